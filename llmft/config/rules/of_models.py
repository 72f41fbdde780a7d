"""Rules of the model: its source, its adapter, what stays frozen, how it writes texts, and where it is placed."""

from llmft.config.precedence import Origin
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.model import FITTED
from llmft.schema.problem import Problem

OF_ANY_MODEL = ("trainer.eval_batch_size", "trainer.metric_for_best")  # what of `trainer` a fitted model reads, too


def _model_has_a_source(config: Config, origin: Origin) -> list[Problem]:
    model = config.model
    if model.path or (model.first_weights != "pretrained" and model.architecture):
        return []
    if model.architecture:
        return [
            Problem(
                "model.init",
                "weights of an architecture alone are random",
                origin("model.init"),
                "Write model.init=random, or give model.path.",
            )
        ]
    return [
        Problem(
            "model.path",
            "no model is named",
            origin("model.path"),
            "Give model.path, or model.architecture with model.init=random.",
        )
    ]


def _code_is_trusted_by_a_person(config: Config, origin: Origin) -> list[Problem]:
    key = "model.trust_remote_code"
    if config.model.trust_remote_code and not origin.typed(key):
        return [
            Problem(key, "runs code, which only the command line may ask for", origin(key), f"Write {key}=true there.")
        ]
    return []


def _adapter_reads_its_keys(config: Config, origin: Origin) -> list[Problem]:
    adapter = config.adapter
    reads = adapter.reads[adapter.name]
    hint = f"It reads {', '.join(reads)}." if reads else "Write adapter=lora or another before it."
    keys = sorted({key for kind in adapter.reads.values() for key in kind} - {*reads})
    return [
        Problem(f"adapter.{key}", f"is not read by adapter={adapter.name}", "command line", hint)
        for key in keys
        if f"adapter.{key}" in origin.given
    ]


def _tokenizer_reads_its_keys(config: Config, origin: Origin) -> list[Problem]:
    """A tokenizer that is there already reads nothing of how one is trained."""
    if not (config.model.path or config.model.tokenizer.path):
        return []
    place = "model.tokenizer.path" if config.model.tokenizer.path else "model.path"
    hint = "Leave it out. A tokenizer is trained where there is model.architecture and no model.path."
    return [
        Problem(f"model.tokenizer.{key}", f"is for a tokenizer trained here, and {place} has one", "command line", hint)
        for key in type(config.model.tokenizer).of_training
        if f"model.tokenizer.{key}" in origin.given
    ]


def _adapter_has_what_it_needs(config: Config, origin: Origin) -> list[Problem]:
    """Weights that are worth keeping; a smoke run and what goes on with it do without."""
    name, model, problems = config.adapter.name, config.model, []
    if name == "none" or not config.trains:
        return []
    for key in ("freeze", "unfreeze"):
        if getattr(model, key):
            what = f"adapter={name} leaves all weights as they are but its own and those of the head"
            problems.append(Problem(f"model.{key}", what, origin(f"model.{key}"), "Leave out one of the two."))
    if name == "prefix" and not config.task.prefixes:
        what = f"a prefix goes before models that classify, and {config.task.name} writes"
        problems.append(Problem("adapter.name", what, origin("adapter.name"), "Write adapter=lora."))
    tried = config.smoke or config.resume or config.dataset.format == "synthetic"
    if model.first_weights != "pretrained" and not tried:
        what = f"adapter={name} would leave the random weights random"
        hint = "Give pretrained ones by model.path, or write adapter=none."
        problems.append(Problem("model.init", what, origin("model.init"), hint))
    return problems


def _something_is_left_to_unfreeze(config: Config, origin: Origin) -> list[Problem]:
    if config.model.unfreeze and "encoder" in config.model.freeze:
        what = "model.freeze=encoder keeps all layers frozen"
        return [Problem("model.unfreeze", what, origin("model.unfreeze"), "Leave out one of the two.")]
    return []


def _a_fitted_model_reads_its_keys(config: Config, origin: Origin) -> list[Problem]:
    """What belongs to gradients, steps and checkpoints would change nothing, or cannot be done."""
    model, task = config.model, config.task
    if model.architecture not in FITTED or model.path:
        return []
    name = model.architecture
    if config.command == "export" and config.export.precision != "fp32":
        what = f"{name} compares numbers with thresholds, which {config.export.precision} would move"
        return [Problem("export.precision", what, origin("export.precision"), "Write export.precision=fp32.")]
    if not config.trains:
        return []
    sections = ("optimizer", "scheduler", "trainer")
    unread = [key for key in sorted(origin.given) if key.partition(".")[0] in sections and key not in OF_ANY_MODEL]
    unread += [group for group in sections if group in origin.chosen]
    hint = "Leave it out; the model's options are below model.config."
    what = f"is not read by model={name}, which is fitted to all rows at once"
    problems = [Problem(key, what, "command line", hint) for key in unread]
    for key, wrong, what in (
        ("adapter", config.adapter.name != "none", "has no layers to adapt"),
        ("model.freeze", bool(model.freeze), "has no weights to keep"),
        ("model.unfreeze", model.unfreeze is not None, "has no layers"),
        ("model.dropout", model.dropout is not None, "has no dropout"),
        ("model.init", model.first_weights != "random", "begins without weights"),
        ("hardware.processes", config.hardware.processes > 1, "is fitted in one process"),
        ("dataset.streaming", config.dataset.streaming, "needs all rows at once"),
        ("search.pruner", origin.typed("search.pruner"), "has no scores before it is fitted"),
        ("task.loss", getattr(task, "loss", None) in ("focal", "huber"), "has the losses cross_entropy, mse and mae"),
        ("task.bins", origin.typed("task.bins"), "has bins of its own, by model.config.max_bins"),
        ("task.label_smoothing", getattr(task, "label_smoothing", 0) > 0, "is fitted to whole labels"),
    ):
        if wrong:
            problems.append(Problem(key, f"model={name} {what}", origin(key), "Leave it out."))
    return problems


def _processes_have_a_strategy(config: Config, origin: Origin) -> list[Problem]:
    """Of a run that is begun: `eval` works in one process, whatever trained it."""
    hardware, strategy, key = config.hardware, config.hardware.strategy, "hardware.strategy"
    if not config.trains:
        return []
    problems = []
    if hardware.processes % hardware.nodes:
        what = f"{hardware.processes} cannot be spread over {hardware.nodes} nodes evenly"
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
    if COMMANDS[config.command].needs_run and config.hardware.processes > 1:
        return [Problem(key, f"{config.command} works in one process", origin(key), "Leave it out.")]
    return []


def _gpus_say_how_many_jobs(config: Config, origin: Origin) -> list[Problem]:
    key, gpus = "sweep.jobs", config.sweep.gpus
    if gpus and (config.sweep.jobs > 1 or origin.typed(key)):
        what = f"sweep.gpus means {len(gpus)} at a time, one on each"
        return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


OF_DRAWS = ("temperature", "top_k", "top_p")


def _keys_of_generation_are_read(config: Config, origin: Origin) -> list[Problem]:
    """`generation.temperature=2` without `generation.sample=true` would change nothing."""
    generation, problems = config.generation, []
    unread = [(key, "generation.sample=true") for key in OF_DRAWS if not generation.sample]
    if generation.beams == 1:
        unread.append(("length_penalty", "generation.beams=2 or more"))
    for key, wanted in unread:
        if origin.typed(f"generation.{key}"):
            what, hint = f"is read with {wanted} alone", f"Leave it out, or write {wanted}."
            problems.append(Problem(f"generation.{key}", what, origin(f"generation.{key}"), hint))
    return problems


def _draws_follow_one_beginning(config: Config, origin: Origin) -> list[Problem]:
    key, generation = "generation.beams", config.generation
    if generation.sample and generation.beams > 1:
        what = "what is drawn would depend on the other rows of a batch"
        return [Problem(key, what, origin(key), "Leave out one of generation.beams and generation.sample.")]
    return []


RULES = (
    _model_has_a_source,
    _code_is_trusted_by_a_person,
    _adapter_reads_its_keys,
    _tokenizer_reads_its_keys,
    _adapter_has_what_it_needs,
    _something_is_left_to_unfreeze,
    _a_fitted_model_reads_its_keys,
    _processes_have_a_strategy,
    _layers_can_be_computed_again,
    _work_with_a_run_is_one_process,
    _gpus_say_how_many_jobs,
    _keys_of_generation_are_read,
    _draws_follow_one_beginning,
)
