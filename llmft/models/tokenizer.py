"""The tokenizer of a model, or one trained on the training texts for a model that has none."""

from collections.abc import Iterable
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import cached_file

from llmft.data.files import resolve
from llmft.models.build import located
from llmft.models.hub import explained
from llmft.models.special import BERT, Special
from llmft.models.vocabulary import train
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".msgpack")


def _source(model: ModelConfig) -> tuple[str, str] | None:
    """The configuration key that names the tokenizer, and its folder or hub id; None for one that is trained here."""
    if path := model.tokenizer.path:
        folder = resolve(path, "model.tokenizer")
        return "model.tokenizer", str(folder) if folder.is_dir() else path
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


def load(model: ModelConfig, texts: Iterable[str], special: Special = BERT) -> PreTrainedTokenizerFast:
    """The tokenizer at `model.tokenizer.path`, else the one at `model.path`, else one trained on `texts`.

    Args:
        texts: gone through once, and only for one that is trained.
        special: the special tokens of one that is trained.
    """
    if (named := _source(model)) is None:
        return train(texts, model.tokenizer, special)
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
