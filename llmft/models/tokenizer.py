"""The tokenizer of a model, or one trained on the training texts for a model that has none."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import cached_file

from llmft.data.files import resolve
from llmft.models.build import located
from llmft.models.hub import explained
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

SPECIAL = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


SAMPLE = 1000  # texts that tell whether a tokenizer knows their language
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".msgpack")


def _source(model: ModelConfig) -> tuple[str, str] | None:
    """The configuration key that names the tokenizer, and its folder or hub id; None for one that is trained here."""
    if model.tokenizer:
        folder = resolve(model.tokenizer, "model.tokenizer")
        return "model.tokenizer", str(folder) if folder.is_dir() else model.tokenizer
    return ("model.path", located(model)) if model.path else None


def tokenizer_files(model: ModelConfig) -> list[Path] | None:
    """The files that a tokenizer is made of: none for one that is trained here, None where they can't be told."""
    if (named := _source(model)) is None:
        return []
    if Path(named[1]).is_dir():
        return sorted(f for f in Path(named[1]).iterdir() if f.is_file() and f.suffix not in WEIGHTS)
    try:
        return [Path(str(cached_file(named[1], "tokenizer.json", revision=model.revision)))]
    except OSError:  # there is none, or no network; loading it says which
        return None


def load(model: ModelConfig, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """`model.tokenizer`, else the one at `model.path`, else a WordPiece tokenizer trained on `texts`."""
    if (named := _source(model)) is None:
        return train(texts, model.vocab_size)
    key, source = named
    with explained(source, key):
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    if not tokenizer.is_fast:
        raise UserError(Problem(key, f"the tokenizer of {source} has no fast version, which llmft needs"))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def check_language(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> None:
    """Raise UserError where the tokenizer knows less than half of the texts: its model would learn nothing."""
    unknown = tokenizer.unk_token_id
    ids = [i for row in tokenizer(texts[:SAMPLE], add_special_tokens=False)["input_ids"] for i in row]
    share = ids.count(unknown) / max(len(ids), 1)
    if unknown is not None and share > 0.5:
        what = f"{share:.0%} of the words of train are unknown to it"
        hint = "Choose a model of their language, such as model=bert_base_chinese."
        raise UserError(Problem("model.tokenizer", what, hint=hint), "the data")


def train(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer with BERT's normalisation, its special tokens and its pairs.

    Characters are kept as they are but for case and accents; Chinese ones are single words, as in BERT.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    texts = list(texts)
    normalizer, words = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the pieces inside words in the order of a hash table, which differs from run to run, and
    # breaks ties by number. Named beforehand, in order, they have the same numbers every time.
    inside = {
        f"##{character}"
        for text in texts
        for word, _ in words.pre_tokenize_str(normalizer.normalize_str(text))
        for character in word[1:]
    }
    learning = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    learning.normalizer, learning.pre_tokenizer = normalizer, words
    named = [*SPECIAL.values(), *sorted(inside)]
    learning.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=named, show_progress=False)
    )
    tokenizer = Tokenizer(models.WordPiece(learning.get_vocab(), unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, words
    cls, sep = SPECIAL["cls_token"], SPECIAL["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
