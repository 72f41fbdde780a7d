"""Adapters by peft: put into a model, kept, and merged into its weights. Only this file knows peft."""

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

from llmft.models.weights import save_whole
from llmft.schema.model import AdapterConfig
from llmft.schema.problem import Problem, UserError, missing_package, plural

BASE = "base"
"""Where in RUN/model the model lies that has a prefix before it. `from_pretrained` of RUN/model finds none: without its
prefix it would give other answers."""


def check_package(config: AdapterConfig) -> None:
    """Raise UserError where an adapter is asked for and peft is not installed."""
    if config.name != "none" and (problems := missing_package("adapter", config.name, "peft", "peft")):
        raise UserError(problems)


def adapt(model: PreTrainedModel, config: AdapterConfig, length: int | None) -> torch.nn.Module:
    """Put an adapter into `model`, in place, and let nothing train but it and the head: all outside the base model.

    Args:
        length: positions that the longest input takes, for a model that has positions.

    Returns:
        peft's wrapper; `trainee` says what of it trains, and `model` itself where there is no adapter.

    Raises:
        UserError: for an architecture that the adapter does not fit.
    """
    if config.name == "none":
        return model
    import peft

    if not _body(model):
        what = f"{type(model).__name__} has no layers below its head that could be adapted"
        raise UserError(Problem("adapter", what, hint="Write adapter=none."))
    if config.name == "prefix":
        _check_prefix(model, config.prefix_length, length)
    tied = _tied(model)
    try:
        adapted = peft.get_peft_model(model, _config(model, config))
    except (ValueError, AttributeError) as error:
        what = f"{config.name} does not fit {type(model).__name__}: {str(error).splitlines()[0]}"
        raise UserError(Problem("adapter", what, hint=_hint(config))) from error
    if config.name != "prefix":
        _check_tied(adapted, tied)
    return adapted


def _tied(model: PreTrainedModel) -> set[int]:
    """The ids of weights that several modules share, such as embeddings that are the output embeddings too."""
    owners = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    return {owner for owner, count in owners.items() if count > 1}


def _check_tied(adapted: Any, tied: set[int]) -> None:
    """Raise UserError for an adapter in a module whose weights another one has, too.

    It would change one of them in training. Merged, it changes both, or neither.
    """
    model, named = adapted.get_base_model(), adapted.base_model.targeted_module_names
    shared = [name for name in named if id(model.get_submodule(name).get_base_layer().weight) in tied]
    if shared:
        what = f"{shared[0]} shares its weights with another module, most often the embeddings: none of them can have"
        hint = "Leave it out: adapter.target_modules=all-linear takes all linear layers but such."
        raise UserError(Problem("adapter.target_modules", f"{what} an adapter", hint=hint))


def trainee(model: torch.nn.Module) -> Any:
    """What trains and takes batches: the model with the adapter's layers in it, or a prefix with its model."""
    return model if not _is_wrapped(model) or _is_prefix(model) else model.get_base_model()  # type: ignore[operator]


def within(model: torch.nn.Module) -> Any:
    """The model in peft's wrapper, or `model` where there is none."""
    return model.get_base_model() if _is_wrapped(model) else model  # type: ignore[operator]


def described(model: torch.nn.Module, config: AdapterConfig) -> str:
    """The adapter in a few words: its kind, what it changes, and the share of the weights that train."""
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
    head = "with the head, " if _heads(within(model)) else ""
    return f"{config.name} {what}; {head}{train / everything:.2%} of the weights train ({train:,} numbers)"


def save_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Write the adapter with its head, as `PeftModel.from_pretrained` reads it. The card is that of the run."""
    model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]  # else it asks the hub
    (folder / "README.md").unlink(missing_ok=True)


def merged(model: torch.nn.Module) -> torch.nn.Module:
    """The model with the adapter in its weights, in place; a prefix, which has no place in them, stays before it."""
    base = within(model)
    for name in _heads(base):  # peft's own merging fails for a head of several layers
        place, _, last = name.rpartition(".")
        setattr(base.get_submodule(place), last, base.get_submodule(name).modules_to_save["default"])
    return model if _is_prefix(model) else model.merge_and_unload()  # type: ignore[operator]


def save_model(model: torch.nn.Module, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write what `merged` returned, or a model without an adapter, below `folder`.

    Args:
        state: the weights of a sharded model.
    """
    if state is None:
        within(model).save_pretrained(folder / BASE if _is_wrapped(model) else folder)
    else:
        save_whole(model, state, folder)


def with_prefix(model: PreTrainedModel, folder: Path) -> torch.nn.Module:
    """`model` with the prefix in `folder` before it.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    import peft

    for name in ("adapter_config.json", "adapter_model.safetensors"):  # else peft asks the hub, or takes a pickle
        if not (folder / name).is_file():
            raise OSError(f"{folder} has no {name}")
    config = peft.PeftConfig.from_pretrained(folder)
    if not isinstance(config, peft.PrefixTuningConfig):  # other kinds may name modules to import
        raise ValueError(f"{folder} holds no prefix")
    return peft.PeftModel.from_pretrained(model, folder, config=config)


def _is_wrapped(model: torch.nn.Module) -> bool:
    return hasattr(model, "get_base_model")


def _is_prefix(model: torch.nn.Module) -> bool:
    return bool(model.active_peft_config.is_prompt_learning)  # type: ignore[union-attr]


def is_original(name: str) -> bool:
    """Whether a weight is that of a head as it was before training, which peft keeps beside the one that trains."""
    return ".original_module." in name


def _body(model: PreTrainedModel) -> set[str]:
    """The names of the modules below the head; none for a model that is all head."""
    if model.base_model is not model:
        return {model.base_model_prefix}
    # A T5 that writes holds the modules of the plain T5 itself.
    plain = transformers.AutoModel._model_mapping.get(type(model.config), None)
    if plain is None or isinstance(model, plain):
        return set()
    with torch.device("meta"):
        return {name for name, _ in plain(copy.deepcopy(model.config)).named_children()}


def _heads(model: PreTrainedModel) -> list[str]:
    """The parts of a model with weights outside its base model, such as `classifier`; of lists, their members.

    Not that of a language model, which was pretrained with the rest, and is often the embeddings once more.
    """
    found, words, body = [], model.get_output_embeddings(), _body(model)
    for name, part in model.named_children():
        of_words = any(layer is words for layer in part.modules())
        if name not in body and any(True for _ in part.parameters()) and not of_words:
            found += [f"{name}.{number}" for number in range(len(part))] if isinstance(part, ModuleList) else [name]
    return found


def _config(model: PreTrainedModel, config: AdapterConfig) -> Any:
    """The adapter in peft's words."""
    import peft
    from peft.utils import constants

    kind, heads, layers = model.config.model_type, _heads(model), config.target_modules
    if config.name == "prefix":
        length = config.prefix_length
        return peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=length, modules_to_save=heads)
    experts = _experts(model) if layers == "all-linear" else []
    if experts and (config.name not in ("lora", "rslora") or config.dropout):
        what = f"takes the experts of {type(model).__name__}, each of whose weights is one for all of them"
        hint = "Write adapter=lora without adapter.dropout, or name layers outside the experts."
        raise UserError(Problem("adapter.target_modules", f"all-linear {what}: only lora and rslora fit", hint=hint))
    if layers is None and config.name != "ia3":
        # Named by us: for a mixture of experts peft turns its own list into one of experts, and finds none (Mixtral).
        layers = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
    if layers == "all-linear" or (layers is None and config.name != "ia3"):
        layers = _linear(model)
    transposed = any(isinstance(layer, Conv1D) for layer in model.modules())  # as GPT-2 keeps its weights
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


def _linear(model: PreTrainedModel) -> list[str]:
    """The linear layers below the head, except for those that share their weights, and routers, which say two things.

    peft's own `all-linear` takes some of the head's, and output embeddings that transformers finds no other way.
    """
    heads, tied = {name.partition(".")[0] for name in _heads(model)}, _tied(model)
    left_out = {*tied, id(getattr(model.get_output_embeddings(), "weight", None))}
    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, Linear | Conv1D)
        and id(layer.weight) not in left_out
        and not type(layer).__name__.endswith("Router")
    ]
    return [name for name in layers if name.partition(".")[0] not in heads]


def _experts(model: PreTrainedModel) -> list[str]:
    """The weights of experts that are one parameter for all experts of a layer: (experts, outputs, inputs)."""
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if type(module).__name__.endswith("Experts")
        for name, weight in module.named_parameters(recurse=False)
        if weight.dim() == 3
    ]


def _check_prefix(model: PreTrainedModel, prefix: int, length: int | None) -> None:
    """Raise UserError for a model that reads no prefix, or has no room for it before the longest input."""
    readers = [inspect.signature(part.forward).parameters for part in (model, model.base_model)]
    if not any("past_key_values" in reader for reader in readers):
        hint = "Write adapter=lora, which fits every model."
        raise UserError(Problem("adapter", f"{type(model).__name__} reads no prefix", hint=hint))
    room = getattr(model.config, "max_position_embeddings", None)
    if isinstance(room, int) and length and length + prefix > room:
        what = f"{prefix} tokens before the {length} of task.max_length, and the model has {room} positions"
        raise UserError(Problem("adapter.prefix_length", what, hint=f"Write task.max_length={room - prefix}."))


def _hint(config: AdapterConfig) -> str:
    if config.name == "prefix":
        return "Write adapter=lora, which fits every model."
    if config.name == "ia3" and config.target_modules is None:
        return "Name its layers by adapter.target_modules and adapter.feedforward_modules, or write adapter=lora."
    return "Leave adapter.target_modules out, or write adapter.target_modules=all-linear."
