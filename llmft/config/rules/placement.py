"""Rules on where the work is done: processes, strategies, GPUs."""

from llmft.config.origin import Origin
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.problem import Problem


def _processes_have_a_strategy(config: Config, origin: Origin) -> list[Problem]:
    """Of a run that is begun: `eval` works in one process, whatever trained it."""
    hardware, strategy, key = config.hardware, config.hardware.strategy, "hardware.strategy"
    if not config.trains:
        return []
    problems = []
    if hardware.processes % hardware.nodes:
        what = f"{hardware.processes} can't be spread over {hardware.nodes} nodes evenly"
        problems.append(Problem("hardware.processes", what, origin("hardware.processes")))
    if strategy != "deepspeed" and origin.typed("hardware.zero_stage"):
        what = f"is not read by hardware.strategy={strategy}"
        problems.append(Problem("hardware.zero_stage", what, "command line", "Write hardware.strategy=deepspeed."))
    if getattr(config.task, "importance", None) and hardware.processes > 1:
        what = "columns are compared in one process"
        problems.append(Problem("task.importance", what, origin("task.importance"), "Leave out one of the two."))
    if strategy == "ddp":
        return problems
    if hardware.processes == 1:
        hint = "Write hardware.processes=2 or more."
        problems.append(Problem(key, f"{strategy} spreads over processes, and there is one", origin(key), hint))
    if config.task.generates:
        what = f"with {strategy} all processes must make equal numbers of passes, and a longer text takes more of them"
        problems.append(Problem(key, what, origin(key), "Write hardware.strategy=ddp."))
    if config.adapter.name != "none" or config.model.freeze:
        what = f"{strategy} spreads what trains, and with " + ("model.freeze" if config.model.freeze else "an adapter")
        problems.append(Problem(key, f"{what} that is little", origin(key), "Leave it out."))
    if config.model.unfreeze:
        what = f"{strategy} shares out what trains before training, and with model.unfreeze that changes"
        problems.append(Problem(key, what, origin(key), "Leave out one of the two."))
    if config.optimizer.name == "muon":
        what = f"muon turns whole matrices, and {strategy} keeps parts of them"
        problems.append(Problem("optimizer.name", what, origin("optimizer.name"), "Write optimizer=adamw."))
    if strategy == "deepspeed" and config.resume:
        what = "the checkpoints of deepspeed hold code, which llmft does not load"
        problems.append(Problem("resume", what, origin("resume"), "Write hardware.strategy=fsdp for runs that resume."))
    return problems


def _layers_can_be_computed_again(config: Config, origin: Origin) -> list[Problem]:
    key = "trainer.gradient_checkpointing"
    if not config.trainer.gradient_checkpointing:
        return []
    if config.adapter.name == "prefix":
        return [Problem(key, "adapter=prefix needs what the layers keep", origin(key), "Leave out one of the two.")]
    if config.model.freeze == ["encoder"]:
        return [Problem(key, "no gradient goes through a frozen encoder", origin(key), "Leave it out.")]
    return []


def _work_with_a_run_is_one_process(config: Config, origin: Origin) -> list[Problem]:
    key = "hardware.processes"
    if COMMANDS[config.command].of_a_run and config.hardware.processes > 1:
        return [Problem(key, f"{config.command} works in one process", origin(key), "Leave it out.")]
    return []


def _gpus_say_how_many_jobs(config: Config, origin: Origin) -> list[Problem]:
    key, gpus = "sweep.jobs", config.sweep.gpus
    if gpus and (config.sweep.jobs > 1 or origin.typed(key)):
        what = f"sweep.gpus means {len(gpus)} at a time, one on each"
        return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


RULES = (
    _processes_have_a_strategy,
    _layers_can_be_computed_again,
    _work_with_a_run_is_one_process,
    _gpus_say_how_many_jobs,
)
