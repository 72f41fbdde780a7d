"""The tokenizer of a model, or one trained on the training texts for a model that has none."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from llmft.models.hub import explained
from llmft.models.located import Place, located
from llmft.models.special import BERT, Special
from llmft.models.vocabulary import train
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")  # what transformers 5 and 4 call a tokenizer.json alone
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".msgpack")


def _source(model: ModelConfig) -> tuple[str, Place] | None:
    """The configuration key that names the tokenizer, and its place; None for one that is trained here."""
    if path := model.tokenizer.path:
        return "model.tokenizer", located(path, "model.tokenizer", model.hub, model.revision)
    if not model.path:
        return None
    return "model.path", located(model.path, "model.path", model.hub, model.revision)


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


def load_saved(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that a run keeps, as it was saved."""
    kind = PreTrainedTokenizerFast if _is_plain(str(folder), None) else AutoTokenizer
    found: PreTrainedTokenizerFast = kind.from_pretrained(folder, trust_remote_code=False)
    return found


def _is_plain(name: str, revision: str | None) -> bool:
    """Whether a tokenizer was saved as tokenizer.json alone says it, and has no class of a model.

    AutoTokenizer would ignore that for some architectures (Qwen 2 and 3.5, ModernBERT, Phi 3, SigLIP 2, ...), rebuild
    the class of that architecture from the vocabulary, and part and normalise texts otherwise than training did.
    """
    return get_tokenizer_config(name, revision=revision).get("tokenizer_class") in PLAIN


def as_others_load(tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig, texts: list[str]) -> str | None:
    """What to say of a tokenizer that `AutoTokenizer` makes another one of, beside a model of this `config`."""
    with TemporaryDirectory(prefix="llmft-") as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        try:
            other = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"can't load the tokenizer of this run ({str(error).splitlines()[0]})"
        else:
            if other(texts, padding=False)["input_ids"] == tokenizer(texts, padding=False)["input_ids"]:
                return None
            what = f"makes another tokenizer of this run's, a {type(other).__name__}"
    return (
        f"AutoTokenizer of transformers {what}, since the model is a {config.model_type}. llmft is not concerned; "
        "elsewhere, load it by PreTrainedTokenizerFast.from_pretrained"
    )


def padding_side(tokenizer: PreTrainedTokenizerFast) -> Literal["left", "right"]:
    """Where padding stands for a model that classifies texts, whatever side the tokenizer was saved with.

    Heads read the first token, a mean over the mask, or the last token that is no padding; positions count from the
    left, and the decoder of BART sees padding before a text in spite of the mask. So padding goes to the right, but for
    XLNet, which puts `<cls>` last and reads what stands in the last column.
    """
    ids = tokenizer("a")["input_ids"]
    return "left" if ids and ids[-1] == tokenizer.cls_token_id else "right"
