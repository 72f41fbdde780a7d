"""The tokenizer of a model, or one trained on the training texts for a model that has none."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.models.hub import explained
from llmft.models.located import Place, located
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

SPECIAL = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".msgpack")


def _source(model: ModelConfig) -> tuple[str, Place] | None:
    """The configuration key that names the tokenizer, and its place; None for one that is trained here."""
    if model.tokenizer:
        return "model.tokenizer", located(model.tokenizer, "model.tokenizer")
    return ("model.path", located(model.path, "model.path")) if model.path else None


def tokenizer_files(model: ModelConfig) -> list[Path] | None:
    """The files that a tokenizer is made of: none for one that is trained here, None where they can't be told."""
    if (named := _source(model)) is None:
        return []
    place = named[1]
    if place.is_folder and not place.gguf:
        return sorted(f for f in Path(place.name).iterdir() if f.is_file() and f.suffix not in WEIGHTS)
    try:
        return [place.file("tokenizer.json", named[0], model.revision)]
    except UserError:  # there is none, or no network; loading it says which
        return None


def load(model: ModelConfig, texts: Iterable[str], **options: Any) -> PreTrainedTokenizerFast:
    """`model.tokenizer`, else the one at `model.path`, else a WordPiece tokenizer trained on `texts`.

    Args:
        options: of a tokenizer that is loaded, such as `add_prefix_space`; those without the option leave it out.
    """
    if (named := _source(model)) is None:
        return train(texts, model.vocab_size)
    key, place = named
    with explained(str(place), key):
        tokenizer = AutoTokenizer.from_pretrained(
            place.name,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            **place.options,
            **options,
        )
    if not tokenizer.is_fast:
        raise UserError(Problem(key, f"the tokenizer of {place} has no fast version, which llmft needs"))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


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
