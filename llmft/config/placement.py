"""Rules on what trains and where it lies: adapters, strategies, and what goes with neither."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llmft.schema.config import Config
from llmft.schema.problem import Problem

if TYPE_CHECKING:
    from llmft.config.rules import Origin


def _adapter_reads_its_keys(config: Config, origin: "Origin") -> list[Problem]:
    adapter = config.adapter
    reads = adapter.reads[adapter.name]
    hint = f"It reads {', '.join(reads)}." if reads else "Write adapter=lora or another before it."
    keys = sorted({key for kind in adapter.reads.values() for key in kind} - {*reads})
    return [
        Problem(f"adapter.{key}", f"is not read by adapter={adapter.name}", "command line", hint)
        for key in keys
        if f"adapter.{key}" in origin.given
    ]


def _adapter_has_what_it_needs(config: Config, origin: "Origin") -> list[Problem]:
    """peft, and weights that are worth keeping: a smoke run and what goes on with it do without the latter."""
    name, model, problems = config.adapter.name, config.model, []
    if name == "none" or (config.command != "finetune" and name != "prefix"):
        return []
    if find_spec("peft") is None:
        hint = "Install it: pip install 'llmft[peft]'."
        problems.append(Problem("adapter", f"{name} needs peft, which is not installed", origin("adapter.name"), hint))
    if model.freeze:
        what = f"adapter={name} leaves all weights as they are but its own and those of the head"
        problems.append(Problem("model.freeze", what, origin("model.freeze"), "Leave out one of the two."))
    tried = config.smoke or config.resume or config.dataset.format == "synthetic"
    if config.command == "finetune" and model.init != "pretrained" and not tried:
        what = f"adapter={name} would leave the random weights random"
        hint = "Give pretrained ones by model.path, or write adapter=none."
        problems.append(Problem("model.init", what, origin("model.init"), hint))
    return problems


def _processes_have_a_strategy(config: Config, origin: "Origin") -> list[Problem]:
    """Of a run that is begun: `eval` works in one process, whatever trained it."""
    hardware, strategy, key = config.hardware, config.hardware.strategy, "hardware.strategy"
    if config.command != "finetune":
        return []
    problems = []
    if hardware.processes % hardware.nodes:
        what = f"{hardware.processes} can't be spread over {hardware.nodes} nodes evenly"
        problems.append(Problem("hardware.processes", what, origin("hardware.processes")))
    if strategy != "deepspeed" and origin.typed("hardware.zero_stage"):
        what = f"is not read by hardware.strategy={strategy}"
        problems.append(Problem("hardware.zero_stage", what, "command line", "Write hardware.strategy=deepspeed."))
    if strategy == "ddp":
        return problems
    if hardware.processes == 1:
        hint = "Write hardware.processes=2 or more."
        problems.append(Problem(key, f"{strategy} spreads over processes, and there is one", origin(key), hint))
    if config.adapter.name != "none" or config.model.freeze:
        what = f"{strategy} spreads what trains, and with " + ("model.freeze" if config.model.freeze else "an adapter")
        problems.append(Problem(key, f"{what} that is little", origin(key), "Leave it out."))
    if strategy == "deepspeed" and find_spec("deepspeed") is None:
        hint = "Install it: pip install deepspeed. Or write hardware.strategy=fsdp."
        problems.append(Problem(key, "deepspeed is not installed", origin(key), hint))
    if strategy == "deepspeed" and config.resume:
        what = "the checkpoints of deepspeed hold code, which llmft does not load"
        problems.append(Problem("resume", what, origin("resume"), "Write hardware.strategy=fsdp for runs that resume."))
    return problems


def _layers_can_be_computed_again(config: Config, origin: "Origin") -> list[Problem]:
    key = "trainer.gradient_checkpointing"
    if not config.trainer.gradient_checkpointing:
        return []
    if config.adapter.name == "prefix":
        return [Problem(key, "adapter=prefix needs what the layers keep", origin(key), "Leave out one of the two.")]
    if config.model.freeze == ["encoder"]:
        return [Problem(key, "no gradient goes through a frozen encoder", origin(key), "Leave it out.")]
    return []


RULES = (
    _adapter_reads_its_keys,
    _adapter_has_what_it_needs,
    _processes_have_a_strategy,
    _layers_can_be_computed_again,
)
