"""Builds the model of a config: pretrained weights with a head for the task, or random weights of given sizes."""

import inspect
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, TimmBackboneConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from llmft.data.files import digest
from llmft.models import register
from llmft.models.initialization import (
    add_mean_pooling,
    fit_head,
    initialize,
    interpolate_positions,
    mend_batch_norms,
    position_tables,
)
from llmft.models.layers import eval_frozen_parts, freeze, unfreeze_epochs
from llmft.models.model_files import Location, locate, user_errors
from llmft.models.weights import unmap_weights
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

# Auto classes that only one kind of architecture fits, for the hint of `_check_kind`.
HEAD_KINDS = {"AutoModelForSeq2SeqLM": "an encoder-decoder, such as t5, mt5, bart, mbart or marian"}

TIMM = "timm_wrapper"  # the architecture of transformers that holds any model of timm

# Sizes that may be larger than the data need. All others must be equal.
AT_LEAST = {"vocab_size", "max_position_embeddings"}

# RoBERTa and its relatives number positions from pad_token_id + 1, so 514 position embeddings hold 512 tokens.
OFFSET_POSITIONS = {
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
OFFSET_POSITIONS |= {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}


def build(
    model: ModelConfig,
    head: str,
    needed: dict[str, Any],
    length: str = "task.max_length",
    notes: list[str] | None = None,
) -> PreTrainedModel:
    """A model ready to train, in float32, with the weights of `model.freeze` frozen.

    Args:
        head: the Auto class with the task's head, such as `AutoModelForSequenceClassification`.
        needed: what the data require of the model's config, such as `num_labels`. `vocab_size` and
            `max_position_embeddings` are minimums: random weights get at least that many, pretrained weights must have
            them. `added_tokens` of the `vocab_size` are new to pretrained weights and get embeddings here. With
            `pools_last` false, a head of random weights that would read the last token reads the first.
        length: the config key that decides how many positions are needed, for errors.
        notes: gets a line for each thing that the user should know about the model.

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
        if model.backbone:
            from llmft.models.backbones import load_backbone  # imports timm, which texts do without

            load_backbone(built, model)
    if added:
        _add_tokens(built, needed["vocab_size"])
    if model.first_weights not in ("pretrained", "random"):
        initialize(built, model.first_weights)
    if model.pooling:
        add_mean_pooling(built)
    if model.freeze:
        freeze(built, model.freeze)
    if model.unfreeze:
        unfreeze_epochs(built, model.unfreeze)  # raises for a model without layers, now and not after loading data
        eval_frozen_parts(built)
    return built


def max_positions(config: PreTrainedConfig) -> int | None:
    """The most tokens that a model reads at once; None without a limit, as for T5's relative positions.

    Not `trained_positions`, which says how many of them a model that was pretrained here has seen.
    """
    text = config if isinstance(_positions(config), int) else config.get_text_config()
    room = _positions(text)
    if not isinstance(room, int):
        return None
    shift = (text.pad_token_id or 0) + 1 if text.model_type in OFFSET_POSITIONS else 0
    return room - shift


def _positions(config: PreTrainedConfig) -> Any:
    found = getattr(config, "max_position_embeddings", None)
    # LED has one limit for its encoder and one for its decoder; the encoder reads the input.
    return getattr(config, "max_encoder_position_embeddings", None) if found is None else found


def clip_length(length: int, model: ModelConfig) -> int:
    """`length`, or the most tokens that pretrained weights read at once if that is less.

    The tokenizer's `model_max_length` is not asked: it may be that of other weights, or the limit of a service.
    """
    if model.first_weights != "pretrained":
        return length
    place = _locate(model)
    with user_errors(str(place), "model.path"):
        config = AutoConfig.from_pretrained(place.name, **_load_options(model, place))
    _set_sizes(config, _own_names(config, model.config))
    limits = (max_positions(config), getattr(config, "trained_positions", None))
    return min([length, *(limit for limit in limits if limit is not None)])


def _random(model: ModelConfig, auto: Any, needed: dict[str, Any], pools_last: bool) -> PreTrainedModel:
    """A model with random weights; arguments as for `build`.

    Raises:
        UserError: for sizes that the architecture refuses, such as heads that do not divide `hidden_size`.
    """
    try:
        config = _architecture(model, needed, auto)
        _freeze_as_timm_does(config)
        if not pools_last and getattr(config, "summary_type", None) == "last":
            config.summary_type = "first"  # XLNet reads the last token, where only its own tokenizer puts <cls>
        if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = needed.get("pad_token_id")  # T5's convention; generate() needs a start
        built = auto.from_config(config, trust_remote_code=model.trust_remote_code).float()
        mend_batch_norms(built)
        return built
    except ImportError as error:  # of timm, whose message has the way to install it
        what = f"needs a package: {str(error).strip().splitlines()[-1].strip()}"
        raise UserError(Problem("model", what, hint="Write: pip install 'llmft[vision]'")) from error
    except (ValueError, TypeError, StrictDataclassError) as error:
        why = str(error).strip().splitlines()[-1].strip()
        what = f"must be sizes of which {model.architecture or model.path} can be built: {why}"
        raise UserError(Problem("model.config", what)) from error


def _pretrained(
    model: ModelConfig, auto: Any, needed: dict[str, Any], length: str, notes: list[str]
) -> PreTrainedModel:
    """The weights at `model.path`, with a head that fits the labels; arguments as for `build`.

    Raises:
        UserError: if they cannot be read, do not hash to `model.sha256`, or have too few positions or embeddings.
    """
    place = _locate(model)
    _check_digest(model)
    fixed = {key: value for key, value in needed.items() if key not in AT_LEAST}
    with user_errors(str(place), "model.path"):
        config = AutoConfig.from_pretrained(place.name, **_load_options(model, place), **fixed)
        # Read again without our labels: `fixed` has replaced the labels that the saved head was trained with.
        saved = AutoConfig.from_pretrained(place.name, **_load_options(model, place))
        own = saved.id2label
        _check_kind(config, auto, model)
        _check_sizes(config, model)
        _set_sizes(config, model.config | _dropouts(config, model))
        _check_room(config, needed, length)
        if seen := getattr(config, "trained_positions", None):
            config.trained_positions = max(seen, needed.get("max_position_embeddings", 0))
        built, report = auto.from_pretrained(
            place.name,
            config=config,
            **_load_options(model, place),
            use_safetensors=True,
            dtype="float32",
            ignore_mismatched_sizes=True,  # a saved head for another number of labels is replaced by a new one
            output_loading_info=True,
            **(_dequantized() if place.gguf else {}),
        )
        # That option also replaces weights of the base model whose sizes differ, which would lose what they learned.
        resized = position_tables(report["mismatched_keys"], built.config)
        if resized:
            load = partial(auto.from_pretrained, place.name, use_safetensors=True, dtype="float32")
            interpolate_positions(built, load(config=saved, **_load_options(model, place)), resized)
            sides = f"{saved.image_size} to {config.image_size} pixels"
            notes.append(f"model.path: its position embeddings were interpolated from {sides} (task.size)")
    misfits = sorted(
        name
        for name, *_ in report["mismatched_keys"]
        if name.startswith(f"{built.base_model_prefix}.") and name not in resized
    )
    if misfits:
        what = f"must be the sizes of the pretrained weights, and {', '.join(misfits[:3])} would have others"
        raise UserError(Problem("model.config", what, hint="Write model.init=random, or leave the sizes out."))
    unmap_weights(built)
    mend_batch_norms(built, new=False)
    if "num_labels" in needed:  # a classifier; the heads of language models are pretrained with the rest
        mismatched = {name for name, *_ in report["mismatched_keys"]}
        note = fit_head(built, own or {}, needed.get("id2label", {}), {*report["missing_keys"]}, mismatched)
        notes += [f"model.path: {note}"] if note else []
    return built


def _add_tokens(built: PreTrainedModel, size: int) -> None:
    """Resize the embeddings to `size` tokens. New ones are drawn with the mean and deviation of each dimension.

    The architecture's own initialization would make them shorter than those of words, and transformers' `mean_resizing`
    almost equal to each other.
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
            place = _locate(model)
            config = AutoConfig.from_pretrained(place.name, **_load_options(model, place))
        else:
            config = AutoConfig.for_model(str(model.architecture))
        getattr(transformers, head)._model_mapping[type(config)]
        # Compiles 1,000 patterns of how older checkpoints of all architectures name their weights, which takes 0.2 s.
        get_checkpoint_conversion_mapping(config.model_type)
        _check_digest(model)
    except (OSError, ValueError, KeyError, UserError):
        return  # the job itself reports what is wrong


def _locate(model: ModelConfig) -> Location:
    """Where the files of `model.path` are."""
    assert model.path is not None
    return locate(model.path, "model.path", model.hub, model.revision)


def _load_options(model: ModelConfig, place: Location) -> dict[str, Any]:
    """The arguments of every `from_pretrained` of this model."""
    return {"revision": model.revision, "trust_remote_code": model.trust_remote_code} | place.options


def _dequantized() -> dict[str, Any]:
    """The argument that turns the quantized blocks of a GGUF file into floats, which can be trained and saved.

    Older versions of transformers have no such option and always do so.
    """
    kind = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": kind(dequantize=True)} if kind else {}


def _check_digest(model: ModelConfig) -> None:
    """Raise UserError if the weights do not hash to `model.sha256`."""
    if not model.sha256:
        return
    weights = _locate(model).file("model.safetensors", "model.path", model.revision)
    if not weights.is_file():
        raise UserError(Problem("model.sha256", f"must be the sha256 of {weights}, which does not exist"))
    if (found := _digest(weights, weights.stat().st_mtime_ns)) != model.sha256:
        what = f"must be the sha256 of {weights}, which is {found}, got {model.sha256}"
        raise UserError(Problem("model.sha256", what))


@cache
def _digest(file: Path, changed: int) -> str:
    """The digest of a file that changed at this time, in ns; a sweep's jobs inherit it: 0.1 s for 90 MB."""
    return digest(file)


def _architecture(model: ModelConfig, needed: dict[str, Any], auto: Any) -> PreTrainedConfig:
    """The config of random weights: sizes of `path` or the architecture's defaults, then `config`, then `needed`.

    Raises:
        UserError: for an architecture that is not there, or not for this task, and for keys that it does not have.
    """
    if model.path:
        place = _locate(model)
        with user_errors(str(place), "model.path"):
            config = AutoConfig.from_pretrained(place.name, **_load_options(model, place))
    else:
        try:
            config = AutoConfig.for_model(str(model.architecture))
        except ValueError as error:
            known = list(transformers.CONFIG_MAPPING)
            nearest = get_close_matches(str(model.architecture), known, 1)
            hint = (
                f"Did you mean {nearest[0]}?"
                if nearest
                else "See the model types of transformers, or those of llmft: llmft help model."
            )
            what = f"must be a model type of transformers or llmft, got {model.architecture}"
            raise UserError(Problem("model.architecture", what, hint=hint)) from error
    _check_kind(config, auto, model)  # first: smoke=true sets keys that only architectures for the task have
    _check_sizes(config, model)
    _check_vocabulary(model, needed)
    # Without a path, only the given sizes: DeBERTa derives others from `hidden_size` unless they are given too.
    wanted = dict(model.sizes)
    if isinstance(side := needed.get("image_size"), int) and wanted and not hasattr(config, "image_size"):
        wanted["image_size"] = side  # of the model inside that sees, such as CLIP's
    sizes = (config.to_dict() if model.path else {}) | _fitting(config, wanted)
    sizes |= _own_names(config, model.config) | _dropouts(config, model)
    if model.path is None and "vocab_size" in needed and "vocab_size" not in model.config:
        sizes["vocab_size"] = needed["vocab_size"]  # of the tokenizer trained here, not BERT's 30,522
    for key in AT_LEAST & needed.keys():
        name = config.attribute_map.get(key, key)
        if isinstance(default := getattr(config, key, None), int):
            shifted = key == "max_position_embeddings" and config.model_type in OFFSET_POSITIONS
            extra = (needed.get("pad_token_id") or 0) + 1 if shifted else 0
            sizes[name] = max(sizes.get(name, default), needed[key] + extra)
    sizes |= {key: value for key, value in needed.items() if key not in AT_LEAST}
    made = _timm_config(config, sizes) if config.model_type == TIMM else type(config).from_dict(sizes)
    # transformers iterates over it where an architecture has several classes for a task, such as those of DeiT.
    made.architectures = made.architectures or []
    made._name_or_path = config._name_or_path  # where transformers looks for a model's own code
    return made


def _timm_config(config: PreTrainedConfig, sizes: dict[str, Any]) -> PreTrainedConfig:
    """The config of a model of timm, which has names of its own for the size and the channels of an image."""
    import timm

    labels = {key: sizes[key] for key in ("num_labels", "id2label", "label2id") if key in sizes}
    own = {key: value for key, value in sizes.items() if key not in (*labels, "image_size", "num_channels")}
    name = own.get("architecture", config.architecture)
    if not timm.is_model(name):
        nearest = get_close_matches(name, timm.list_models(), 1)
        hint = f"Did you mean {nearest[0]}?" if nearest else "See timm.list_models()."
        raise UserError(Problem("model.config.architecture", f"must be a model of timm, got {name}", hint=hint))
    arguments = {"in_chans": sizes["num_channels"]} if sizes.get("num_channels", 3) != 3 else {}
    # Transformers have an embedding for each place. Convnets take any size, and no such argument.
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False) and "image_size" in sizes:
        arguments["img_size"] = sizes["image_size"]
    if arguments := arguments | (own.get("model_args") or {}):
        own["model_args"] = arguments
    return type(config).from_dict(own, **labels)


def _check_kind(config: PreTrainedConfig, auto: Any, model: ModelConfig) -> None:
    """Raise UserError if the architecture has no head for the task, such as a GPT for translation."""
    if type(config) in auto._model_mapping or model.trust_remote_code:
        return
    key = "model.path" if model.path else "model.architecture"
    kind = HEAD_KINDS.get(auto.__name__)
    hint = f"Choose {kind}." if kind else ""
    what = f"must be an architecture with {auto.__name__} in transformers, got {config.model_type}"
    raise UserError(Problem(key, what, hint=hint))


def _freeze_as_timm_does(config: PreTrainedConfig) -> None:
    """Leave the frozen batch normalization of a backbone to timm, whose layers have the activation inside.

    transformers replaces them in RT-DETR and D-FINE, activations and all, and the backbone becomes nearly linear.
    """
    backbone = getattr(config, "backbone_config", None)
    if getattr(config, "freeze_backbone_batch_norms", False) and isinstance(backbone, TimmBackboneConfig):
        config.freeze_backbone_batch_norms = False
        backbone.freeze_batch_norm_2d = True


def _check_room(config: PreTrainedConfig, needed: dict[str, Any], length: str) -> None:
    """Raise UserError if the data need more positions or embeddings than the pretrained weights have."""
    for key in sorted(AT_LEAST & needed.keys()):
        room = max_positions(config) if key == "max_position_embeddings" else getattr(config, key, None)
        if isinstance(room, int) and needed[key] > room:
            fix = length if key == "max_position_embeddings" else "model.tokenizer"
            hint = "Leave it out: model.path has its own." if fix == "model.tokenizer" else ""
            raise UserError(Problem(fix, f"needs {key}={needed[key]}, and the model has {room}", hint=hint))


def _check_vocabulary(model: ModelConfig, needed: dict[str, Any]) -> None:
    """Raise UserError if random weights would have fewer embeddings than the tokenizer has tokens."""
    room, entries = model.config.get("vocab_size"), needed.get("vocab_size", 0)
    if isinstance(room, int) and room < entries:
        what = f"must be at least the {entries} tokens of the tokenizer, got {room}"
        hint = "Leave it out: the model gets as many as the tokenizer has."
        if not (model.path or model.tokenizer.path):
            hint = f"Leave it out, or write model.tokenizer.size={room}."
        raise UserError(Problem("model.config.vocab_size", what, hint=hint))


def _dropouts(config: PreTrainedConfig, model: ModelConfig) -> dict[str, Any]:
    """All dropout probabilities of an architecture, set to `model.dropout`.

    Recognized by name: `hidden_dropout_prob`, `attention_dropout`, `resid_pdrop`, `summary_first_dropout`. Those that
    are None are included: BERT's `classifier_dropout` then means `hidden_dropout_prob`.

    Raises:
        UserError: for an architecture without dropout.
    """
    if model.dropout is None:
        return {}
    if config.model_type == TIMM:  # an argument of timm.create_model, for which every model has one name
        arguments = (getattr(config, "model_args", None) or {}) | (model.config.get("model_args") or {})
        return {"model_args": arguments | {"drop_rate": model.dropout}}
    names = [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or "pdrop" in name) and not isinstance(value, bool | str | dict | list)
    ]
    if not names:
        raise UserError(Problem("model.dropout", f"{config.model_type} has no dropout", hint="Leave it out."))
    return dict.fromkeys(names, model.dropout)


def _own_names(config: PreTrainedConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """Sizes under the architecture's own names: DistilBERT calls `hidden_size` `dim`."""
    return {config.attribute_map.get(key, key): value for key, value in sizes.items()}


def _fitting(config: PreTrainedConfig, sizes: dict[str, int]) -> dict[str, Any]:
    """Those of `model.sizes` that an architecture has, also for the models that it is made of, such as CLIP's two."""
    found: dict[str, Any] = {}
    for key, size in sizes.items():
        own = getattr(config, key, None)
        if isinstance(own, int) and not isinstance(own, bool):
            found[config.attribute_map.get(key, key)] = size
        elif isinstance(own, list | tuple) and own and all(isinstance(each, int) for each in own):
            found[key] = [size] * len(own)
    for key in config.sub_configs:
        inner = getattr(config, key, None)
        if isinstance(inner, PreTrainedConfig) and (smaller := _fitting(inner, sizes)):
            found[key] = inner.to_dict() | smaller
    return found


def _set_sizes(config: PreTrainedConfig, sizes: dict[str, Any]) -> None:
    """Set sizes of a config; raise UserError for a value of a type that its architecture refuses."""
    for key, value in sizes.items():
        try:
            setattr(config, key, value)
        except StrictDataclassError as error:
            why = str(error).strip().splitlines()[-1].strip().removeprefix("TypeError: ")
            what = f"must be a value that {config.model_type} takes: {why}"
            raise UserError(Problem(f"model.config.{key}", what)) from error


def _check_sizes(config: PreTrainedConfig, model: ModelConfig) -> None:
    """Raise UserError for keys of `model.config` that the architecture does not have."""
    known = {*inspect.signature(type(config)).parameters, *config.attribute_map, *config.to_dict()}
    problems = []
    for key in sorted(set(model.config) - known):
        nearest = get_close_matches(key, known, 1)
        hint = f"Did you mean model.config.{nearest[0]}?" if nearest else ""
        problems.append(Problem(f"model.config.{key}", f"must be a config key of {config.model_type}", hint=hint))
    if problems:
        raise UserError(problems)
