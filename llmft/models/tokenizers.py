"""The tokenizer of a model: loaded with its weights, or trained on the training texts.

The same texts give the same tokenizer in every run, whatever their order. The trainers of `tokenizers` go through hash
tables whose order differs from run to run; where that shows in what they find, it is put right here. The last functions
tell whether a tokenizer knows the language of the rows.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from llmft.models.model_files import Location, locate, user_errors
from llmft.schema.model import BERT, PLAIN_TOKENIZERS, ModelConfig, SpecialTokens, TokenizerConfig
from llmft.schema.problem import Problem, UserError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".msgpack")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # tokens of a character that has none of its own
BREAK = "\0"  # between the words that a trainer is given
LONGEST_WORD = 1000  # of WordPiece; a longer one is unknown. BERT has 100, which a line of Thai or Japanese exceeds
SAMPLE = 1000  # rows that tell whether a tokenizer knows their language
CHOOSE = "Choose a model of their language, such as model=bert_base_chinese."
SPACE = "▁"  # what stands for a space inside the pieces of Unigram


def _source(model: ModelConfig) -> tuple[str, Location] | None:
    """The configuration key that names the tokenizer, and its place; None for one that is trained here."""
    if path := model.tokenizer.path:
        return "model.tokenizer", locate(path, "model.tokenizer", model.hub, model.revision)
    if not model.path:
        return None
    return "model.path", locate(model.path, "model.path", model.hub, model.revision)


def tokenizer_files(model: ModelConfig) -> list[Path] | None:
    """The files that a tokenizer is made of: none for one that is trained here, None where they cannot be told."""
    if (named := _source(model)) is None:
        return []
    place = named[1]
    if place.is_folder and not place.gguf:
        return sorted(f for f in Path(place.name).iterdir() if f.is_file() and f.suffix not in WEIGHTS)
    try:
        return [place.file("tokenizer.json", named[0], model.revision)]
    except UserError:  # there is none, or no network; loading it says which
        return None


def load(model: ModelConfig, texts: Iterable[str], special: SpecialTokens = BERT) -> PreTrainedTokenizerFast:
    """The tokenizer at `model.tokenizer.path`, else the one at `model.path`, else one trained on `texts`.

    Args:
        texts: gone through once, and only for one that is trained.
        special: the special tokens of one that is trained.
    """
    if (named := _source(model)) is None:
        return train(texts, model.tokenizer, special)
    key, place = named
    with user_errors(str(place), key):
        kind = AutoTokenizer if place.gguf or not _is_plain(place.name, model.revision) else PreTrainedTokenizerFast
        tokenizer = kind.from_pretrained(
            place.name,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            **place.options,
        )
    if not tokenizer.is_fast:
        raise UserError(Problem(key, f"the tokenizer of {place} has no fast version, which llmft needs"))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in model.tokenizer.special])
    return tokenizer


def _is_plain(name: str, revision: str | None) -> bool:
    """Whether a tokenizer was saved as tokenizer.json alone says it, and has no class of a model.

    AutoTokenizer would ignore that for some architectures (Qwen 2 and 3.5, ModernBERT, Phi 3, SigLIP 2, ...), rebuild
    the class of that architecture from the vocabulary, and part and normalize texts otherwise than training did.
    """
    return get_tokenizer_config(name, revision=revision).get("tokenizer_class") in PLAIN_TOKENIZERS


def as_others_load(tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig, texts: list[str]) -> str | None:
    """What to say of a tokenizer that `AutoTokenizer` makes another one of, beside a model of this `config`."""
    with TemporaryDirectory(prefix="llmft-") as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        try:
            other = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"cannot load the tokenizer of this run ({str(error).splitlines()[0]})"
        else:
            if other(texts, padding=False)["input_ids"] == tokenizer(texts, padding=False)["input_ids"]:
                return None
            what = f"makes another tokenizer of this run's, a {type(other).__name__}"
    return (
        f"AutoTokenizer of transformers {what}, since the model is a {config.model_type}. llmft is not concerned; "
        "elsewhere, load it by PreTrainedTokenizerFast.from_pretrained"
    )


def train(texts: Iterable[str], config: TokenizerConfig, special: SpecialTokens = BERT) -> PreTrainedTokenizerFast:
    """A tokenizer of the kind and size that `config` says, trained on texts that are gone through once.

    Args:
        special: the tokens that the task needs. Those of `config` come after them.

    Raises:
        UserError: for a size that has no room for them, or texts without a letter.
    """
    special = replace(special, more=(*special.more, *config.special))
    if config.kind in ("wordpiece", "characters") and "unk_token" not in special.roles:
        special = replace(special, roles={"unk_token": BERT.roles["unk_token"], **special.roles})
    _check_room(config, special)
    tokenizer = KINDS[config.kind](texts, config, special)
    # Those of the user are whole wherever they stand in a text; those of the model are letters there.
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=token not in config.special) for token in special.tokens]
    )
    named = [(token, tokenizer.token_to_id(token)) for token in special.tokens if token in special.pair.split()]
    if named:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=special.single, pair=special.pair, special_tokens=named
        )
    more = [token for token in special.tokens if token not in (*special.roles.values(), *config.special)]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=more, **special.roles)


def _check_room(config: TokenizerConfig, special: SpecialTokens) -> None:
    """Raise UserError for a size that has no room for the tokens that must be there."""
    own = len(special.tokens)
    least = own + (len(BYTES) if config.kind in ("bpe", "unigram") else 1)
    if config.size < least:
        parts = f"{own} special tokens" + (" and 256 bytes" if config.kind in ("bpe", "unigram") else "")
        what = f"{config.size} entries have no room for {parts}"
        raise UserError(Problem("model.tokenizer.size", what, hint=f"Write at least {least}."))


def _wordpiece(texts: Iterable[str], config: TokenizerConfig, special: SpecialTokens) -> Tokenizer:
    """Words in the longest pieces that are known, with BERT's normalization; Chinese characters are single words."""
    lower = config.lowercase is not False
    bert = normalizers.BertNormalizer(lowercase=lower, strip_accents=lower)
    normalizer, parting = _normalizer(config, bert) or bert, pre_tokenizers.BertPreTokenizer()
    counts = _words(texts, normalizer, parting)
    known = _known(counts, (config.size - len(special.tokens)) // 2)  # each may stand first in a word, and inside
    words = Counter({word: count for word, count in counts.items() if known.issuperset(word)})
    # The trainer numbers the pieces inside words in the order of a hash table, and breaks ties by number. Named
    # beforehand, in order, they have the same numbers every time.
    inside = sorted({f"##{character}" for word in words for character in word[1:]})
    unknown = special.roles["unk_token"]
    learning = Tokenizer(models.WordPiece(unk_token=unknown))
    learning.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(BREAK)
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.size,
        min_frequency=config.min_count,
        special_tokens=[*special.tokens, *inside],
        show_progress=False,
    )
    learning.train_from_iterator(_repeated(words), trainer)
    tokenizer = Tokenizer(
        models.WordPiece(learning.get_vocab(), unk_token=unknown, max_input_chars_per_word=LONGEST_WORD)
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, parting
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _words(
    texts: Iterable[str], normalizer: normalizers.Normalizer | None, parting: pre_tokenizers.PreTokenizer
) -> Counter[str]:
    """How often each word is seen."""
    return Counter(
        word
        for text in texts
        for word, _ in parting.pre_tokenize_str(normalizer.normalize_str(text) if normalizer else text)
    )


def _known(words: Counter[str], room: int) -> set[str]:
    """The characters of words, or, where these are too many, those that are seen most."""
    seen: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            seen[character] += count
    return set(_most(seen, room))


def _most(seen: Counter[str], number: int) -> list[str]:
    """The characters that are seen most; of equals, the first by its code."""
    return sorted(seen, key=lambda character: (-seen[character], character))[:number]


def _repeated(words: Counter[str], most: int = 1000) -> Iterator[str]:
    """Texts in which each word stands as often as it was counted, parted by BREAK."""
    for word, count in words.items():
        for start in range(0, count, most):
            yield BREAK.join([word] * min(most, count - start))


def _bpe(texts: Iterable[str], config: TokenizerConfig, special: SpecialTokens) -> Tokenizer:
    """The pairs of bytes that are seen most become one, inside of words with the space before them, as in GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.size,
        min_frequency=config.min_count,
        special_tokens=special.tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: Iterable[str], config: TokenizerConfig, special: SpecialTokens) -> Tokenizer:
    """The likeliest pieces, spaces among them (Kudo 2018); a character that is none is written as its bytes."""
    normalizer = _normalizer(config)
    # A token of the model is a piece as well, and would be found in texts that spell it: they are parted behind its
    # first letter.
    spelled = [token for token in special.tokens if len(token) > 1 and token not in config.special]
    marks = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in spelled)
    parting = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+"), "isolated"),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never"),
            *([pre_tokenizers.Split(Regex(marks), "isolated")] if marks else []),
        ]
    )
    fixed = [*special.tokens, *BYTES]
    room = config.size - len(fixed)
    counts = _words(texts, normalizer, parting)
    known = _known(counts, room // 2)
    words: Counter[str] = Counter()
    for word, count in counts.items():
        words["".join(character if character in known else BREAK for character in word)] += count
    found = _pieces(words, room) if known else []
    # A byte costs more than the characters of its token, so that a text which holds `<0x0A>` stays what it is.
    low = 7 * found[-1][1] if found else -1.0
    pieces = [(token, 0.0) for token in special.tokens] + [(token, low) for token in BYTES] + found
    unknown = special.roles.get("unk_token", special.tokens[0])  # asked for, and never given: there are the bytes
    tokenizer = Tokenizer(models.Unigram(pieces, special.tokens.index(unknown), byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, parting
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _pieces(words: Counter[str], room: int) -> list[tuple[str, float]]:
    """The pieces of Unigram for some words, and their scores."""
    learning = Tokenizer(models.Unigram())
    learning.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(BREAK)
    learning.train_from_iterator(_repeated(words), trainers.UnigramTrainer(vocab_size=room, show_progress=False))
    return _settled(json.loads(learning.to_str())["model"]["vocab"])[:room]


def _settled(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces and their scores, the likeliest first, without what differs from run to run.

    The trainer sums in the order of a hash table, and gives characters that it did not find worth a piece the least
    score and 0.0001 more for each one before, in that order, too.
    """
    least = min((score for _, score in pieces), default=0.0)
    characters = sum(len(piece) == 1 for piece, _ in pieces)
    forced = least + 1e-4 * (characters + 1)
    even = [(piece, least if len(piece) == 1 and score < forced else score) for piece, score in pieces]
    return sorted(((piece, round(score, 6)) for piece, score in even), key=lambda pair: (-pair[1], pair[0]))


def _characters(texts: Iterable[str], config: TokenizerConfig, special: SpecialTokens) -> Tokenizer:
    """Each character is a token, line ends too. BPE without a pair to join is that, and quick for a long text."""
    normalizer = _normalizer(config)
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(normalizer.normalize_str(text) if normalizer else text)
    often = Counter({character: count for character, count in seen.items() if count >= config.min_count})
    known = sorted(_most(often, config.size - len(special.tokens)))
    vocabulary = {token: number for number, token in enumerate([*special.tokens, *known])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=special.roles["unk_token"]))
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


KINDS = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram, "characters": _characters}


def _normalizer(config: TokenizerConfig, *more: normalizers.Normalizer) -> normalizers.Normalizer | None:
    """What is done to a text before it is parted."""
    found = [getattr(normalizers, config.normalize)()] if config.normalize else []
    if config.lowercase and not more:
        found.append(normalizers.Lowercase())
    found += more
    return normalizers.Sequence(found) if found else None


def unknown(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """The share of the tokens of some texts that stand for what the tokenizer does not know."""
    mark = tokenizer.unk_token_id
    if mark is None:
        return 0.0
    ids = [i for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for i in row]
    return ids.count(mark) / max(len(ids), 1)


def check_language(texts: list[str], tokenizer: PreTrainedTokenizerFast, hint: str = CHOOSE) -> None:
    """Raise UserError where the tokenizer knows less than half of the text: its model would learn nothing."""
    if (share := unknown(texts, tokenizer)) > 0.5:
        what = f"{share:.0%} of the words of train are unknown to it"
        raise UserError(Problem("model.tokenizer", what, hint=hint), "the data")


def unwritable(what: str, texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """A note on texts that a model cannot write since tokens don't hold all of their letters, where one in 100 is such.

    Spaces and line breaks count as other letters do; those at both ends are stripped of every answer.
    """
    read = tokenizer(texts, padding=False, split_special_tokens=True)["input_ids"]
    again = tokenizer.batch_decode(read, skip_special_tokens=True)
    changed = sum(one.strip() != other.strip() for one, other in zip(texts, again, strict=True)) / max(len(texts), 1)
    if changed < 0.01:
        return []
    how = "come back from the tokenizer otherwise, in case or spaces: they cannot be written as they are"
    return [f"train: {changed:.0%} of {what} {how}"]
