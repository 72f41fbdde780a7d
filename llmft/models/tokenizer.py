"""The tokenizer of a model, or one trained on the training texts for a model that has none."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.models.hub import explained
from llmft.models.located import Place, located
from llmft.models.special import BERT, Special
from llmft.models.vocabulary import train
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".msgpack")


def _source(model: ModelConfig) -> tuple[str, Place] | None:
    """The configuration key that names the tokenizer, and its place; None for one that is trained here."""
    if path := model.tokenizer.path:
        return "model.tokenizer", located(path, "model.tokenizer")
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


def load(model: ModelConfig, texts: Iterable[str], special: Special = BERT) -> PreTrainedTokenizerFast:
    """The tokenizer at `model.tokenizer.path`, else the one at `model.path`, else one trained on `texts`.

    Args:
        texts: gone through once, and only for one that is trained.
        special: the special tokens of one that is trained.
    """
    if (named := _source(model)) is None:
        return train(texts, model.tokenizer, special)
    key, place = named
    with explained(str(place), key):
        tokenizer = AutoTokenizer.from_pretrained(
            place.name,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            **place.options,
        )
    if not tokenizer.is_fast:
        raise UserError(Problem(key, f"the tokenizer of {place} has no fast version, which llmft needs"))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def padding_side(tokenizer: PreTrainedTokenizerFast) -> Literal["left", "right"]:
    """Where padding stands for a model that classifies texts, whatever side the tokenizer was saved with.

    Heads read the first token, a mean over the mask, or the last token that is no padding; positions count from the
    left, and the decoder of BART sees padding before a text in spite of the mask. So padding goes to the right, but for
    XLNet, which puts `<cls>` last and reads what stands in the last column.
    """
    ids = tokenizer("a")["input_ids"]
    return "left" if ids and ids[-1] == tokenizer.cls_token_id else "right"
