"""From the section model to a model: pretrained weights with a new head, or random weights of given sizes."""

import inspect
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from llmft.data.files import digest
from llmft.models import register
from llmft.models.initialization import fit_head, initialise
from llmft.models.layers import freeze, still, unfreezing
from llmft.models.model_files import Place, explained, located
from llmft.models.weights import unmap
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

# What the Auto classes want that not every architecture is.
KINDS = {"AutoModelForSeq2SeqLM": "an encoder-decoder, such as t5, mt5, bart, mbart or marian"}

# Sizes that the data need at least; all others they need exactly.
AT_LEAST = {"vocab_size", "max_position_embeddings"}

# RoBERTa and its kin count positions from pad_token_id + 1 on.
SHIFTED = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
}
SHIFTED |= {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}


def build(
    model: ModelConfig,
    head: str,
    needed: dict[str, Any],
    length: str = "task.max_length",
    notes: list[str] | None = None,
) -> PreTrainedModel:
    """A model ready to train, in float32; what `model.freeze` names stays as it is.

    Args:
        head: the Auto class that puts the task's head on, such as `AutoModelForSequenceClassification`.
        needed: what the task's data ask of the model's configuration, such as `num_labels`. Of `vocab_size` and
            `max_position_embeddings`, random weights get at least so many, and pretrained ones must have them; but
            `added_tokens` of the `vocab_size` are new to those, and get embeddings here. Without `pools_last`, a head
            of random weights that would read the last column reads the first.
        length: the key that decides how many positions are needed.
        notes: what the user should know of the model is put here, a line each.

    Raises:
        UserError: if the weights are missing or not the expected ones, or a size is unknown to the architecture.
    """
    register()
    auto = getattr(transformers, head)
    needed = dict(needed)
    added = needed.pop("added_tokens", 0)
    pools_last = needed.pop("pools_last", True)
    if model.first_weights == "pretrained":
        added += len(model.tokenizer.special) if "vocab_size" in needed else 0
        known = {"vocab_size": needed["vocab_size"] - added} if added else {}
        built = _pretrained(model, auto, needed | known, length, [] if notes is None else notes)
    else:
        built = _random(model, auto, needed, pools_last)
    if added:
        _add_tokens(built, needed["vocab_size"])
    if model.first_weights not in ("pretrained", "random"):
        initialise(built, model.first_weights)
    if model.freeze:
        freeze(built, model.freeze)
    if model.unfreeze:
        unfreezing(built, model.unfreeze)  # so that a model without layers is refused before training
        still(built)
    return built


def positions(config: PreTrainedConfig) -> int | None:
    """The most tokens that a model reads at once; None for one that has no such limit, such as T5.

    `trained_positions` is what a model that was trained from scratch here has seen of them.
    """
    text = config if isinstance(_positions(config), int) else config.get_text_config()
    room = _positions(text)
    if not isinstance(room, int):
        return None
    shift = (text.pad_token_id or 0) + 1 if text.model_type in SHIFTED else 0
    return room - shift


def _positions(config: PreTrainedConfig) -> Any:
    found = getattr(config, "max_position_embeddings", None)
    return getattr(config, "max_encoder_position_embeddings", None) if found is None else found  # LED's two


def longest(length: int, model: ModelConfig) -> int:
    """`length`, or what pretrained weights read at once where that is less.

    The number of the tokenizer says nothing: it may be that of other weights, or what a service cuts at.
    """
    if model.first_weights != "pretrained":
        return length
    place = _place(model)
    with explained(str(place), "model.path"):
        config = AutoConfig.from_pretrained(place.name, **_options(model, place))
    for key, value in _canonical(config, model.config).items():
        setattr(config, key, value)
    limits = (positions(config), getattr(config, "trained_positions", None))
    return min([length, *(limit for limit in limits if limit is not None)])


def _random(model: ModelConfig, auto: Any, needed: dict[str, Any], pools_last: bool) -> PreTrainedModel:
    """Random weights; the arguments are those of `build`.

    Raises:
        UserError: for sizes of which the architecture makes no model, such as heads that do not divide `hidden_size`.
    """
    try:
        config = _architecture(model, needed)
        _check_kind(config, auto, model)
        if not pools_last and getattr(config, "summary_type", None) == "last":
            config.summary_type = "first"  # XLNet reads the last column, where only its own tokenizer puts <cls>
        if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = needed.get("pad_token_id")  # as T5 has it
        return auto.from_config(config, trust_remote_code=model.trust_remote_code).float()
    except (ValueError, TypeError, StrictDataclassError) as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise UserError(Problem("model.config", f"makes no {model.architecture or model.path}: {why}")) from error


def _pretrained(
    model: ModelConfig, auto: Any, needed: dict[str, Any], length: str, notes: list[str]
) -> PreTrainedModel:
    """The weights at `model.path` with a head that fits the labels; the arguments are those of `build`.

    Raises:
        UserError: if they cannot be read, are not those of `model.sha256`, or have no room for the data.
    """
    place = _place(model)
    _check_digest(model)
    fixed = {key: value for key, value in needed.items() if key not in AT_LEAST}
    with explained(str(place), "model.path"):
        config = AutoConfig.from_pretrained(place.name, **_options(model, place), **fixed)
        # Read once more without our labels, which say in which order the rows of the head that was saved stand.
        own = AutoConfig.from_pretrained(place.name, **_options(model, place)).id2label
        _check_kind(config, auto, model)
        _check_sizes(config, model)
        for key, value in (model.config | _dropouts(config, model)).items():
            setattr(config, key, value)
        _check_room(config, needed, length)
        if seen := getattr(config, "trained_positions", None):
            config.trained_positions = max(seen, needed.get("max_position_embeddings", 0))
        built, report = auto.from_pretrained(
            place.name,
            config=config,
            **_options(model, place),
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,  # a head for other labels is left behind
            output_loading_info=True,
            **(_unpacked() if place.gguf else {}),
        )
    # transformers draws weights anew where sizes differ. Right for a head; a base model would lose what it has learned.
    misfits = sorted(name for name, *_ in report["mismatched_keys"] if name.startswith(f"{built.base_model_prefix}."))
    if misfits:
        what = f"asks for other sizes than the weights have: {', '.join(misfits[:3])}"
        raise UserError(Problem("model.config", what, hint="Write model.init=random, or leave the sizes out."))
    unmap(built)
    if "num_labels" in needed:  # of a model that classifies
        mismatched = {name for name, *_ in report["mismatched_keys"]}
        note = fit_head(built, own or {}, needed.get("id2label", {}), {*report["missing_keys"]}, mismatched)
        notes += [f"model.path: {note}"] if note else []
    return built


def _add_tokens(built: PreTrainedModel, size: int) -> None:
    """Give the model embeddings for `size` tokens; new ones are drawn like those that it has, dimension by dimension.

    By the architecture's own rule they would be shorter than words are, and by transformers' `mean_resizing` all alike.
    """
    if size <= (room := built.get_input_embeddings().num_embeddings):
        return
    built.resize_token_embeddings(size, mean_resizing=False)
    rows = built.get_input_embeddings().weight.data
    rows[room:] = torch.randn_like(rows[room:]) * rows[:room].std(dim=0) + rows[:room].mean(dim=0)


def import_architecture(model: ModelConfig, head: str) -> None:
    """Import the code of a model and hash its weights, so that processes forked from this one need not.

    No weights are loaded.
    """
    register()
    try:
        if model.first_weights == "pretrained":
            place = _place(model)
            config = AutoConfig.from_pretrained(place.name, **_options(model, place))
        else:
            config = AutoConfig.for_model(str(model.architecture))
        getattr(transformers, head)._model_mapping[type(config)]
        # How older checkpoints name weights, 1,000 patterns for all architectures: 0.2 s to compile.
        get_checkpoint_conversion_mapping(config.model_type)
        _check_digest(model)
    except (OSError, ValueError, KeyError, UserError):
        return  # the run will say what is wrong


def _place(model: ModelConfig) -> Place:
    """Where `model.path` lies."""
    assert model.path is not None
    return located(model.path, "model.path", model.hub, model.revision)


def _options(model: ModelConfig, place: Place) -> dict[str, Any]:
    """What every `from_pretrained` of this model gets."""
    return {"revision": model.revision, "trust_remote_code": model.trust_remote_code} | place.options


def _unpacked() -> dict[str, Any]:
    """What makes numbers of the blocks of a GGUF file, which could not be trained or saved; once, that went unasked."""
    kind = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": kind(dequantize=True)} if kind else {}


def _check_digest(model: ModelConfig) -> None:
    """Raise UserError if the weights are not those that `model.sha256` names."""
    if not model.sha256:
        return
    weights = _place(model).file("model.safetensors", "model.path", model.revision)
    if not weights.is_file():
        raise UserError(Problem("model.sha256", f"{weights} is missing"))
    if (found := _digest(weights, weights.stat().st_mtime_ns)) != model.sha256:
        raise UserError(
            Problem("model.sha256", f"{weights} is not what model.sha256 says", hint=f"It hashes to {found}.")
        )


@cache
def _digest(file: Path, changed: int) -> str:
    """The digest of a file that changed at this time, in ns; a sweep's jobs inherit it: 0.1 s for 90 MB."""
    return digest(file)


def _architecture(model: ModelConfig, needed: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of random weights: sizes of `path` or the architecture's own, then `config`, then `needed`."""
    if model.path:
        place = _place(model)
        with explained(str(place), "model.path"):
            config = AutoConfig.from_pretrained(place.name, **_options(model, place))
    else:
        try:
            config = AutoConfig.for_model(str(model.architecture))
        except ValueError as error:
            known = list(transformers.CONFIG_MAPPING)
            nearest = get_close_matches(str(model.architecture), known, 1)
            hint = (
                f"Did you mean {nearest[0]}?"
                if nearest
                else "See the model types of transformers, or linear, mlp, ft_transformer, boosting."
            )
            raise UserError(
                Problem("model.architecture", f"no architecture called {model.architecture}", hint=hint)
            ) from error
    _check_sizes(config, model)
    _check_vocabulary(model, needed)
    # Without a path only what is given: DeBERTa works other sizes out of `hidden_size`, if they are not given too.
    sizes = (config.to_dict() if model.path else {}) | _canonical(config, model.config) | _dropouts(config, model)
    if model.path is None and "vocab_size" in needed and "vocab_size" not in model.config:
        sizes["vocab_size"] = needed["vocab_size"]  # the tokenizer was trained here
    for key in AT_LEAST & needed.keys():
        name = config.attribute_map.get(key, key)
        if isinstance(default := getattr(config, key, None), int):
            shifted = key == "max_position_embeddings" and config.model_type in SHIFTED
            extra = (needed.get("pad_token_id") or 0) + 1 if shifted else 0
            sizes[name] = max(sizes.get(name, default), needed[key] + extra)
    sizes |= {key: value for key, value in needed.items() if key not in AT_LEAST}
    made = type(config).from_dict(sizes)
    made._name_or_path = config._name_or_path  # where code of its own lies
    return made


def _check_kind(config: PreTrainedConfig, auto: Any, model: ModelConfig) -> None:
    """Raise UserError for an architecture without the head that the task needs, such as a GPT for translation."""
    if type(config) in auto._model_mapping or model.trust_remote_code:
        return
    key = "model.path" if model.path else "model.architecture"
    kind = KINDS.get(auto.__name__)
    hint = f"It takes {kind}." if kind else ""
    what = f"the task cannot be learnt by {config.model_type}, of which transformers has no {auto.__name__}"
    raise UserError(Problem(key, what, hint=hint))


def _check_room(config: PreTrainedConfig, needed: dict[str, Any], length: str) -> None:
    """Raise UserError if the data need more than the pretrained weights have."""
    for key in sorted(AT_LEAST & needed.keys()):
        room = positions(config) if key == "max_position_embeddings" else getattr(config, key, None)
        if isinstance(room, int) and needed[key] > room:
            fix = length if key == "max_position_embeddings" else "model.tokenizer"
            hint = "Leave it out: model.path has its own." if fix == "model.tokenizer" else ""
            raise UserError(Problem(fix, f"needs {key}={needed[key]}, and the model has {room}", hint=hint))


def _check_vocabulary(model: ModelConfig, needed: dict[str, Any]) -> None:
    """Raise UserError for random weights that are to have fewer embeddings than the tokenizer has entries."""
    room, entries = model.config.get("vocab_size"), needed.get("vocab_size", 0)
    if isinstance(room, int) and room < entries:
        what = f"{room} is less than the {entries} entries of the tokenizer"
        hint = "Leave it out, and the model gets as many as the tokenizer has."
        if not (model.path or model.tokenizer.path):
            hint = f"Leave it out, or write model.tokenizer.size={room}."
        raise UserError(Problem("model.config.vocab_size", what, hint=hint))


def _dropouts(config: PreTrainedConfig, model: ModelConfig) -> dict[str, Any]:
    """What `model.dropout` sets: the sizes of an architecture that are shares of dropped values.

    They are told by their names: `hidden_dropout_prob`, `attention_dropout`, `resid_pdrop`, `summary_first_dropout`.
    Some are unset and mean another one, such as BERT's `classifier_dropout`.

    Raises:
        UserError: for an architecture that drops nothing.
    """
    if model.dropout is None:
        return {}
    names = [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or "pdrop" in name) and not isinstance(value, bool | str | dict | list)
    ]
    if not names:
        raise UserError(Problem("model.dropout", f"{config.model_type} has no dropout", hint="Leave it out."))
    return dict.fromkeys(names, model.dropout)


def _canonical(config: PreTrainedConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """Sizes by the architecture's own names: DistilBERT calls `hidden_size` `dim`."""
    return {config.attribute_map.get(key, key): value for key, value in sizes.items()}


def _check_sizes(config: PreTrainedConfig, model: ModelConfig) -> None:
    """Raise UserError for keys of `model.config` that the architecture does not know."""
    known = {*inspect.signature(type(config)).parameters, *config.attribute_map, *config.to_dict()}
    problems = []
    for key in sorted(set(model.config) - known):
        nearest = get_close_matches(key, known, 1)
        hint = f"Did you mean model.config.{nearest[0]}?" if nearest else ""
        problems.append(Problem(f"model.config.{key}", f"{config.model_type} has no such size", hint=hint))
    if problems:
        raise UserError(problems)
