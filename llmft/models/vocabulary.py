"""A tokenizer trained on texts. The same texts give the same numbers in every run, whatever their order.

The trainers of `tokenizers` go through hash tables whose order differs from run to run. Where that shows in what they
find, it is put right here.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llmft.models.special import BERT, Special
from llmft.schema.problem import Problem, UserError
from llmft.schema.tokenizer import TokenizerConfig

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # tokens of a character that has none of its own
BREAK = "\0"  # between the words that a trainer is given
LONGEST_WORD = 1000  # of WordPiece; a longer one is unknown. BERT has 100, which a line of Thai or Japanese exceeds
SPACE = "▁"  # what stands for a space inside the pieces of Unigram


def train(texts: Iterable[str], config: TokenizerConfig, special: Special = BERT) -> PreTrainedTokenizerFast:
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


def _check_room(config: TokenizerConfig, special: Special) -> None:
    """Raise UserError for a size that has no room for the tokens that must be there."""
    own = len(special.tokens)
    least = own + (len(BYTES) if config.kind in ("bpe", "unigram") else 1)
    if config.size < least:
        parts = f"{own} special tokens" + (" and 256 bytes" if config.kind in ("bpe", "unigram") else "")
        what = f"{config.size} entries have no room for {parts}"
        raise UserError(Problem("model.tokenizer.size", what, hint=f"Write at least {least}."))


def _wordpiece(texts: Iterable[str], config: TokenizerConfig, special: Special) -> Tokenizer:
    """Words in the longest pieces that are known, with BERT's normalisation; Chinese characters are single words."""
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


def _bpe(texts: Iterable[str], config: TokenizerConfig, special: Special) -> Tokenizer:
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


def _unigram(texts: Iterable[str], config: TokenizerConfig, special: Special) -> Tokenizer:
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


def _characters(texts: Iterable[str], config: TokenizerConfig, special: Special) -> Tokenizer:
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
