"""Adapters by peft: added to a model, saved, and merged into its weights. Only this file imports peft."""

import copy
import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import Linear, ModuleList
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmft.models.layers import freeze_norms, timm_heads
from llmft.models.weights import save_full
from llmft.schema.model import AdapterConfig
from llmft.schema.problem import Problem, UserError, missing_package, plural

BASE = "base"
"""The folder in RUN/model with the model behind a prefix. So `from_pretrained` of RUN/model fails, instead of loading a
model that gives other answers without its prefix."""


HEAD_INSIDE = ".class_embed"
"""The end of the name of the head of RT-DETR and D-FINE in their base model, which an adapter would freeze."""


def check_package(config: AdapterConfig) -> None:
    """Raise UserError if the config has an adapter and peft is not installed."""
    if config.name != "none" and (problems := missing_package("adapter", config.name, "peft", "peft")):
        raise UserError(problems)


def adapt(model: PreTrainedModel, config: AdapterConfig, length: int | None) -> torch.nn.Module:
    """Add an adapter to `model`, in place, and freeze everything but it and the head.

    Args:
        length: positions of the longest input, for a model with a limited number of them.

    Returns:
        peft's wrapper, or `model` itself for `adapter=none`. Give `trained_part` of it to the Trainer.

    Raises:
        UserError: if the adapter does not fit the architecture.
    """
    if config.name == "none":
        return model
    import peft

    if not _base_modules(model):
        what = f"must be none for {type(model).__name__}, which has no layers below its head"
        raise UserError(Problem("adapter", what, hint="Write adapter=none."))
    inside = next((name for name, _ in model.base_model.named_modules() if name.endswith(HEAD_INSIDE)), None)
    if inside:
        what = f"must be none for {type(model).__name__}, whose new head, {inside}, is inside its base model"
        hint = "Write adapter=none, or train another architecture, such as detr."
        raise UserError(Problem("adapter", what, hint=hint))
    if config.name == "prefix":
        _check_prefix(model, config.prefix_length, length)
    tied = _tied_weights(model)
    try:
        adapted = peft.get_peft_model(model, _peft_config(model, config))
    except (ValueError, AttributeError) as error:
        what = f"{config.name} does not fit {type(model).__name__}: {str(error).splitlines()[0]}"
        raise UserError(Problem("adapter", what, hint=_hint(config))) from error
    if config.name != "prefix":
        _check_tied(adapted, tied)
        freeze_norms(model)  # the files of an adapter have no running statistics
    return adapted


def _tied_weights(model: PreTrainedModel) -> set[int]:
    """The ids of weights that several modules share, such as input embeddings that are also the output embeddings."""
    owners = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    return {owner for owner, count in owners.items() if count > 1}


def _check_tied(adapted: Any, tied: set[int]) -> None:
    """Raise UserError for an adapter in a module that shares its weights with another.

    In training it changes the output of one module only; merged into the shared weight, it would change both.
    """
    model, named = adapted.get_base_model(), adapted.base_model.targeted_module_names
    shared = [name for name in named if id(model.get_submodule(name).get_base_layer().weight) in tied]
    if shared:
        what = f"must be modules with weights of their own, and {shared[0]} shares its weights with another module"
        hint = "Leave it out, or write adapter.target_modules=all-linear, which skips shared weights."
        raise UserError(Problem("adapter.target_modules", what, hint=hint))


def trained_part(model: torch.nn.Module) -> Any:
    """What takes batches in training: the model with adapter layers inside, or peft's wrapper for a prefix."""
    return model if not _is_wrapped(model) or _is_prefix(model) else model.get_base_model()  # type: ignore[operator]


def unwrap(model: torch.nn.Module) -> Any:
    """The model inside peft's wrapper, or `model` itself without one."""
    return model.get_base_model() if _is_wrapped(model) else model  # type: ignore[operator]


def describe(model: torch.nn.Module, config: AdapterConfig) -> str:
    """A line on the adapter: its kind, where it is, and the share of the weights that train."""
    train, everything = model.get_nb_trainable_parameters()  # type: ignore[operator]
    if config.name == "prefix":
        what = f"of {config.prefix_length}"
    else:
        names: list[str] = model.base_model.targeted_module_names  # type: ignore[union-attr, assignment]
        experts: list[str] = model.base_model.targeted_parameter_names  # type: ignore[union-attr, assignment]
        ends = sorted({name.rpartition(".")[2] for name in names})
        size = "" if config.name == "ia3" else f"of rank {config.r} "
        what = f"{size}in {plural(len(names), 'modules')} ({', '.join(ends)})"
        what += f" and {plural(len(experts), 'weights')} of experts" if experts else ""
    head = "with the head, " if _head_modules(unwrap(model)) else ""
    return f"{config.name} {what}; {head}{train / everything:.2%} of the weights train ({train:,})"


def save_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Write the adapter and its head for `PeftModel.from_pretrained`, without peft's model card."""
    # save_embedding_layers="auto", the default, asks the hub whether the vocabulary has changed.
    model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
    (folder / "README.md").unlink(missing_ok=True)


def merge(model: torch.nn.Module) -> torch.nn.Module:
    """The model with the adapter merged into its weights, in place. A prefix cannot be merged, and stays."""
    base = unwrap(model)
    for name in _head_modules(base):  # peft's own merging fails for a head of several layers
        place, _, last = name.rpartition(".")
        setattr(base.get_submodule(place), last, base.get_submodule(name).modules_to_save["default"])
    return model if _is_prefix(model) else model.merge_and_unload()  # type: ignore[operator]


def save_model(model: torch.nn.Module, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write the result of `merge`, or a model without an adapter, into `folder`.

    Args:
        state: the gathered weights of a sharded model, see `weights.full_state_dict`.
    """
    if state is None:
        unwrap(model).save_pretrained(folder / BASE if _is_wrapped(model) else folder)
    else:
        save_full(model, state, folder)


def with_prefix(model: PreTrainedModel, folder: Path) -> torch.nn.Module:
    """`model` in peft's wrapper with the prefix in `folder`.

    Raises:
        OSError: if a file is missing.
        ValueError: if it holds another kind of adapter.
    """
    import peft

    for name in ("adapter_config.json", "adapter_model.safetensors"):  # if missing, peft asks the hub or loads a pickle
        if not (folder / name).is_file():
            raise OSError(f"{folder} has no {name}")
    config = peft.PeftConfig.from_pretrained(folder)
    if not isinstance(config, peft.PrefixTuningConfig):  # configs of other kinds can make peft import modules by name
        raise ValueError(f"{folder} holds no prefix")
    return peft.PeftModel.from_pretrained(model, folder, config=config)


def _is_wrapped(model: torch.nn.Module) -> bool:
    return hasattr(model, "get_base_model")


def _is_prefix(model: torch.nn.Module) -> bool:
    return bool(model.active_peft_config.is_prompt_learning)  # type: ignore[union-attr]


def is_original(name: str) -> bool:
    """Whether a weight belongs to the untrained copy of the head that peft keeps beside the trained one."""
    return ".original_module." in name


def _base_modules(model: PreTrainedModel) -> set[str]:
    """The names of the top-level modules below the head; empty for a model without a base model, such as an MLP."""
    if model.base_model is not model:
        return {model.base_model_prefix}
    # T5ForConditionalGeneration is its own base model: its modules are compared with those of the plain T5Model.
    plain = transformers.AutoModel._model_mapping.get(type(model.config), None)
    if plain is None or isinstance(model, plain):
        return set()
    with torch.device("meta"):
        return {name for name, _ in plain(copy.deepcopy(model.config)).named_children()}


def _head_modules(model: PreTrainedModel) -> list[str]:
    """The modules with weights outside the base model, such as `classifier`; for a ModuleList, its members. A model of
    timm has its head inside.

    Output embeddings are left out: they are pretrained with the rest, and often tied to the input embeddings.
    """
    found, words, body = [], model.get_output_embeddings(), _base_modules(model)
    for name, part in model.named_children():
        of_words = any(layer is words for layer in part.modules())
        if name not in body and any(True for _ in part.parameters()) and not of_words:
            found += [f"{name}.{number}" for number in range(len(part))] if isinstance(part, ModuleList) else [name]
    heads = timm_heads(model)
    return found + [name for name, part in model.named_modules() if any(part is head for head in heads)]


def _peft_config(model: PreTrainedModel, config: AdapterConfig) -> Any:
    """peft's config for an adapter of ours.

    Raises:
        UserError: if target_modules=all-linear meets experts that only lora can adapt.
    """
    import peft
    from peft.utils import constants

    kind, heads, layers = model.config.model_type, _head_modules(model), config.target_modules
    if config.name == "prefix":
        length = config.prefix_length
        return peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=length, modules_to_save=heads)
    experts = _expert_weights(model) if layers == "all-linear" else []
    if experts and (config.name not in ("lora", "rslora") or config.dropout):
        what = f"must name layers outside the experts of {type(model).__name__}, got all-linear: its experts are one"
        what += f" tensor per layer, which fits lora and rslora without dropout, and this is {config.name}"
        hint = "Write adapter=lora without adapter.dropout, or name layers outside the experts."
        raise UserError(Problem("adapter.target_modules", what, hint=hint))
    if layers is None and config.name != "ia3":
        # peft's own defaults, but named here: for a mixture of experts, such as Mixtral, peft itself would replace
        # them by modules of the experts, which do not exist.
        layers = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
    if layers == "all-linear" or (layers is None and config.name != "ia3"):
        layers = _linear_layers(model)
        if not layers and not experts:
            what = f"{config.name} adapts linear layers, and {type(model).__name__} has none below its head"
            hint = "Name convolutions by adapter.target_modules, or write adapter=none model.freeze=encoder."
            raise UserError(Problem("adapter", what, hint=hint))
    transposed = any(isinstance(layer, Conv1D) for layer in model.modules())  # GPT-2's weights are (in, out)
    if config.name == "ia3":
        forward = config.feedforward_modules
        if forward is None and layers is not None:
            ends = tuple(constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, ()))
            forward = [name for name in layers if name.endswith(ends)]
        return peft.IA3Config(
            target_modules=layers, feedforward_modules=forward, fan_in_fan_out=transposed, modules_to_save=heads
        )
    return peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=layers,
        target_parameters=experts or None,
        use_rslora=config.name == "rslora",
        use_dora=config.name == "dora",
        fan_in_fan_out=transposed,
        modules_to_save=heads,
    )


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """The linear layers below the head, except those with shared weights and the routers of experts.

    A router returns a tuple, which adapter layers cannot handle. peft's own `all-linear` includes layers of some heads,
    and output embeddings.
    """
    heads, tied = tuple(f"{name}." for name in _head_modules(model)), _tied_weights(model)
    left_out = {*tied, id(getattr(model.get_output_embeddings(), "weight", None))}
    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, Linear | Conv1D)
        and id(layer.weight) not in left_out
        and not type(layer).__name__.endswith("Router")
    ]
    return [name for name in layers if not f"{name}.".startswith(heads)]


def _expert_weights(model: PreTrainedModel) -> list[str]:
    """The names of parameters with the weights of all experts of a layer in one: (experts, outputs, inputs)."""
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if type(module).__name__.endswith("Experts")
        for name, weight in module.named_parameters(recurse=False)
        if weight.dim() == 3
    ]


def _check_prefix(model: PreTrainedModel, prefix: int, length: int | None) -> None:
    """Raise UserError if the model cannot read a prefix, or has too few positions for prefix and longest input."""
    readers = [inspect.signature(part.forward).parameters for part in (model, model.base_model)]
    if not any("past_key_values" in reader for reader in readers):
        hint = "Write adapter=lora, which fits every model."
        what = f"must not be prefix for {type(model).__name__}, which takes no past_key_values"
        raise UserError(Problem("adapter", what, hint=hint))
    room = getattr(model.config, "max_position_embeddings", None)
    if isinstance(room, int) and length and length + prefix > room:
        what = f"needs {prefix} positions beside the {length} of task.max_length, and the model has {room}"
        raise UserError(Problem("adapter.prefix_length", what, hint=f"Write task.max_length={room - prefix}."))


def _hint(config: AdapterConfig) -> str:
    if config.name == "prefix":
        return "Write adapter=lora, which fits every model."
    if config.name == "ia3" and config.target_modules is None:
        return "Name its layers by adapter.target_modules and adapter.feedforward_modules, or write adapter=lora."
    return "Leave adapter.target_modules out, or write adapter.target_modules=all-linear."
