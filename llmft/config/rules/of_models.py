"""Rules for the model: its source, adapter, frozen weights, generation, and devices."""

from llmft.config.precedence import Origin
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.model import BY_EPOCHS, FITTED
from llmft.schema.problem import Problem

OF_EPOCHS = ("optimizer.lr", "trainer.epochs", "trainer.batch_size", "trainer.patience")
OF_ANY_MODEL = ("trainer.eval_batch_size", "trainer.metric_for_best")  # keys of `trainer` that fitted models use, too


def _model_has_a_source(config: Config, origin: Origin) -> list[Problem]:
    model = config.model
    if model.path or (model.first_weights != "pretrained" and model.architecture):
        return []
    if model.architecture:
        return [
            Problem(
                "model.init",
                "must be random for an architecture without a path",
                origin("model.init"),
                "Write model.init=random, or model.path=HUB_ID_OR_FOLDER.",
            )
        ]
    return [
        Problem(
            "model.path",
            "must be given",
            origin("model.path"),
            "Write model.path=HUB_ID_OR_FOLDER, or model.architecture=NAME with model.init=random.",
        )
    ]


def _code_is_trusted_by_a_person(config: Config, origin: Origin) -> list[Problem]:
    key = "model.trust_remote_code"
    if config.model.trust_remote_code and not origin.typed(key):
        return [
            Problem(key, "runs code, so it must be set on the command line", origin(key), f"Write {key}=true there.")
        ]
    return []


def _adapter_reads_its_keys(config: Config, origin: Origin) -> list[Problem]:
    adapter = config.adapter
    reads = adapter.reads[adapter.name]
    hint = f"It uses {', '.join(reads)}." if reads else "Write adapter=lora, or another adapter, before it."
    keys = sorted({key for kind in adapter.reads.values() for key in kind} - {*reads})
    return [
        Problem(f"adapter.{key}", f"is not used by adapter={adapter.name}", "command line", hint)
        for key in keys
        if f"adapter.{key}" in origin.given
    ]


def _tokenizer_reads_its_keys(config: Config, origin: Origin) -> list[Problem]:
    """An existing tokenizer ignores the keys for training one."""
    if not (config.model.path or config.model.tokenizer.path):
        return []
    place = "model.tokenizer.path" if config.model.tokenizer.path else "model.path"
    hint = "Leave it out. A tokenizer is only trained with model.architecture and without model.path."
    return [
        Problem(
            f"model.tokenizer.{key}", f"is for training a tokenizer, and {place} already has one", "command line", hint
        )
        for key in type(config.model.tokenizer).of_training
        if f"model.tokenizer.{key}" in origin.given
    ]


def _adapter_has_what_it_needs(config: Config, origin: Origin) -> list[Problem]:
    """Pretrained weights below the adapter. Smoke runs, and runs that continue them, do without."""
    name, model, problems = config.adapter.name, config.model, []
    if name == "none" or not config.trains:
        return []
    for key in ("freeze", "unfreeze"):
        if getattr(model, key):
            what = f"adapter={name} already freezes all weights except for its own and the head's"
            problems.append(Problem(f"model.{key}", what, origin(f"model.{key}"), "Leave out one of the two."))
    if name == "prefix" and not config.task.prefixes:
        what = f"prefix only works for tasks that classify texts, got task={config.task.name}"
        problems.append(Problem("adapter.name", what, origin("adapter.name"), "Write adapter=lora."))
    tried = config.smoke or config.resume or config.dataset.format == "synthetic"
    if model.first_weights != "pretrained" and not tried:
        what = f"must be pretrained with adapter={name}, which would leave random weights untrained"
        hint = "Write model.path=HUB_ID_OR_FOLDER, or adapter=none."
        problems.append(Problem("model.init", what, origin("model.init"), hint))
    return problems


def _something_is_left_to_unfreeze(config: Config, origin: Origin) -> list[Problem]:
    if config.model.unfreeze and "encoder" in config.model.freeze:
        what = "has no effect: model.freeze=encoder keeps all layers frozen"
        return [Problem("model.unfreeze", what, origin("model.unfreeze"), "Leave out one of the two.")]
    return []


def _a_head_is_trained_first(config: Config, origin: Origin) -> list[Problem]:
    key, model = "model.head_epochs", config.model
    if not model.head_epochs:
        if origin.typed("model.head_lr"):
            return [Problem("model.head_lr", f"is only used with {key}", origin("model.head_lr"), f"Write {key}=20.")]
        return []
    for wrong, what in (
        ("encoder" in model.freeze, "has no effect: model.freeze=encoder trains the head alone anyway"),
        (model.unfreeze is not None, "does not work with model.unfreeze, which begins with the head, too"),
        (config.hardware.strategy != "ddp", f"does not work with hardware.strategy={config.hardware.strategy}"),
        (config.task.pretrains or config.task.generates, f"is for heads that are new, and {config.task.name} has none"),
    ):
        if wrong:
            return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


def _pairs_are_of_one_label(config: Config, origin: Origin) -> list[Problem]:
    """An encoder is tuned on pairs in one process, before the head, by rows that are alike or not."""
    if not config.task.tunes_encoder or not config.trains:
        return []
    key, hardware = "task.contrastive", config.hardware
    for wrong, what in (
        (getattr(config.task, "problem", "") != "single_label", "compares rows of one label each (single_label)"),
        (config.dataset.streaming, "needs all training rows in memory, and dataset.streaming reads parts of them"),
        (hardware.processes != 1, f"works in one process, and hardware.processes is {hardware.processes}"),
        (config.adapter.name != "none", f"tunes all weights of the encoder, and adapter={config.adapter.name} none"),
        (config.model.architecture in FITTED, "needs a model that is trained by gradients"),
    ):
        if wrong:
            return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


def _a_fitted_model_reads_its_keys(config: Config, origin: Origin) -> list[Problem]:
    """Keys about gradients, steps, and checkpoints, which a fitted model does not have."""
    model, task = config.model, config.task
    own = OF_EPOCHS if model.architecture in BY_EPOCHS else ()
    if model.architecture not in (*FITTED, *BY_EPOCHS) or model.path:
        return []
    name = model.architecture
    if config.command == "export" and config.export.precision != "fp32":
        what = f"must be fp32: {name} compares numbers with thresholds, which {config.export.precision} would change"
        return [Problem("export.precision", what, origin("export.precision"), "Write export.precision=fp32.")]
    if not config.trains:
        return []
    sections = ("optimizer", "scheduler", "trainer")
    unread = [
        key for key in sorted(origin.given) if key.partition(".")[0] in sections and key not in (*OF_ANY_MODEL, *own)
    ]
    unread += [group for group in sections if group in origin.chosen]
    hint = "Leave it out; the options of this model are under model.config."
    what = f"is not used by model={name}, which is fitted to all rows at once"
    problems = [Problem(key, what, "command line", hint) for key in unread]
    for key, wrong, what in (
        ("adapter", config.adapter.name != "none", "has no layers to adapt"),
        ("model.freeze", bool(model.freeze), "has no weights to freeze"),
        ("model.unfreeze", model.unfreeze is not None, "has no layers"),
        ("model.dropout", model.dropout is not None, "has no dropout"),
        ("model.init", model.first_weights != "random", "has no initial weights"),
        ("hardware.processes", config.hardware.processes > 1, "is fitted in one process"),
        ("dataset.streaming", config.dataset.streaming, "needs all rows in memory"),
        ("search.pruner", origin.typed("search.pruner"), "has no metrics before it is fitted"),
        ("task.loss", getattr(task, "loss", None) in ("focal", "huber"), "has the losses cross_entropy, mse, and mae"),
        ("task.bins", origin.typed("task.bins"), "has its own bins, model.config.max_bins"),
        ("task.label_smoothing", getattr(task, "label_smoothing", 0) > 0, "does not support label smoothing"),
    ):
        if wrong:
            problems.append(Problem(key, f"model={name} {what}", origin(key), "Leave it out."))
    return problems


def _processes_have_a_strategy(config: Config, origin: Origin) -> list[Problem]:
    """For training only: `eval` works in one process, however many trained the model."""
    hardware, strategy, key = config.hardware, config.hardware.strategy, "hardware.strategy"
    if not config.trains:
        return []
    problems = []
    if hardware.processes % hardware.nodes:
        what = f"must be a multiple of hardware.nodes={hardware.nodes}, got {hardware.processes}"
        problems.append(Problem("hardware.processes", what, origin("hardware.processes")))
    if strategy != "deepspeed" and origin.typed("hardware.zero_stage"):
        what = f"is not used by hardware.strategy={strategy}"
        problems.append(Problem("hardware.zero_stage", what, "command line", "Write hardware.strategy=deepspeed."))
    if getattr(config.task, "importance", None) and hardware.processes > 1:
        what = "only works in one process"
        problems.append(Problem("task.importance", what, origin("task.importance"), "Leave out one of the two."))
    if strategy == "ddp":
        return problems
    if hardware.processes == 1:
        hint = "Write hardware.processes=2 or more."
        problems.append(Problem(key, f"{strategy} needs several processes, got one", origin(key), hint))
    if config.task.generates:
        what = f"{strategy} needs equal numbers of forward passes in all processes, and generation makes different ones"
        problems.append(Problem(key, what, origin(key), "Write hardware.strategy=ddp."))
    if config.adapter.name != "none" or config.model.freeze:
        little = "model.freeze" if config.model.freeze else "an adapter"
        what = f"{strategy} divides the trained weights among processes, and with {little} there are few"
        problems.append(Problem(key, what, origin(key), "Leave it out."))
    if config.model.unfreeze:
        what = f"{strategy} divides the trained weights once, and model.unfreeze changes them during training"
        problems.append(Problem(key, what, origin(key), "Leave out one of the two."))
    if config.optimizer.name == "muon":
        what = f"muon needs whole matrices, and {strategy} divides them among processes"
        problems.append(Problem("optimizer.name", what, origin("optimizer.name"), "Write optimizer=adamw."))
    if strategy == "deepspeed" and config.resume:
        what = "checkpoints of deepspeed contain pickled code, which llmft does not load"
        problems.append(Problem("resume", what, origin("resume"), "Write hardware.strategy=fsdp for runs that resume."))
    return problems


def _layers_can_be_computed_again(config: Config, origin: Origin) -> list[Problem]:
    key = "trainer.gradient_checkpointing"
    if not config.trainer.gradient_checkpointing:
        return []
    if config.adapter.name == "prefix":
        return [
            Problem(
                key,
                "does not work with adapter=prefix, which needs the stored activations",
                origin(key),
                "Leave out one of the two.",
            )
        ]
    if config.model.freeze == ["encoder"]:
        return [
            Problem(key, "has no effect: no gradient passes through a frozen encoder", origin(key), "Leave it out.")
        ]
    return []


def _work_with_a_run_is_one_process(config: Config, origin: Origin) -> list[Problem]:
    key = "hardware.processes"
    if COMMANDS[config.command].needs_run and config.hardware.processes > 1:
        return [Problem(key, f"must be 1: {config.command} works in one process", origin(key), "Leave it out.")]
    return []


def _gpus_say_how_many_jobs(config: Config, origin: Origin) -> list[Problem]:
    key, gpus = "sweep.jobs", config.sweep.gpus
    if gpus and (config.sweep.jobs > 1 or origin.typed(key)):
        what = f"does not work with sweep.gpus, which runs {len(gpus)} jobs at a time, one on each GPU"
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
            what, hint = f"is only used with {wanted}", f"Leave it out, or write {wanted}."
            problems.append(Problem(f"generation.{key}", what, origin(f"generation.{key}"), hint))
    return problems


def _draws_follow_one_beginning(config: Config, origin: Origin) -> list[Problem]:
    key, generation = "generation.beams", config.generation
    if generation.sample and generation.beams > 1:
        what = "does not work with generation.sample: draws would depend on the other rows of a batch"
        return [Problem(key, what, origin(key), "Leave out one of generation.beams and generation.sample.")]
    return []


RULES = (
    _model_has_a_source,
    _code_is_trusted_by_a_person,
    _adapter_reads_its_keys,
    _tokenizer_reads_its_keys,
    _adapter_has_what_it_needs,
    _something_is_left_to_unfreeze,
    _a_head_is_trained_first,
    _pairs_are_of_one_label,
    _a_fitted_model_reads_its_keys,
    _processes_have_a_strategy,
    _layers_can_be_computed_again,
    _work_with_a_run_is_one_process,
    _gpus_say_how_many_jobs,
    _keys_of_generation_are_read,
    _draws_follow_one_beginning,
)
