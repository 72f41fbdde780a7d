"""Rules for runs: training, the input of each command, and the folders that it may write."""

from pathlib import Path, PurePath

from llmft.config.precedence import Origin
from llmft.schema.config import Config
from llmft.schema.inference import PRECISIONS, ChatConfig, PredictConfig
from llmft.schema.metric import METRICS
from llmft.schema.optimizer import READ_BY
from llmft.schema.problem import Problem
from llmft.tasks.targets.config import TargetConfig


def _best_checkpoint_can_be_kept(config: Config, origin: Origin) -> list[Problem]:
    trainer = config.trainer
    problems = []
    if trainer.eval_every != trainer.save_every and (
        "epoch" in (trainer.eval_every, trainer.save_every) or trainer.save_every % trainer.eval_every  # type: ignore[operator]
    ):
        problems.append(
            Problem(
                "trainer.save_every",
                f"must be a multiple of trainer.eval_every={trainer.eval_every}, got {trainer.save_every}",
                origin("trainer.save_every"),
                "The best checkpoint is selected from evaluated ones: "
                f"write trainer.eval_every={trainer.save_every} too.",
            )
        )
    if trainer.metric_for_best and trainer.metric_for_best not in METRICS:
        problems.append(
            Problem(
                "trainer.metric_for_best",
                f"must be a metric, got {trainer.metric_for_best}",
                origin("trainer.metric_for_best"),
                f"They are {', '.join(METRICS)}.",
            )
        )
    for key in ("eval_every", "save_every"):
        if isinstance(every := getattr(trainer, key), int) and every < 1:
            problems.append(Problem(f"trainer.{key}", f"must be at least 1, got {every}", origin(f"trainer.{key}")))
    return problems


def _momentum_to_look_along(config: Config, origin: Origin) -> list[Problem]:
    if config.optimizer.nesterov and not config.optimizer.momentum:
        return [
            Problem(
                "optimizer.nesterov",
                "needs a momentum above 0",
                origin("optimizer.nesterov"),
                "Write optimizer.momentum=0.9.",
            )
        ]
    return []


def _keys_are_read(config: Config, origin: Origin) -> list[Problem]:
    """`optimizer.momentum=0.5` with AdamW would change nothing."""
    problems = []
    for section, keys in READ_BY.items():
        name = getattr(config, section).name
        for key, readers in keys.items():
            if name not in readers and origin.typed(f"{section}.{key}"):
                what = f"is not used by {name}"
                *first, last = readers
                hint = f"It is used by {', '.join(first)} and {last}." if first else f"It is used by {last}."
                problems.append(Problem(f"{section}.{key}", what, origin(f"{section}.{key}"), hint))
    return problems


def _steps_between_falls(config: Config, origin: Origin) -> list[Problem]:
    key, every = "scheduler.every", config.scheduler.every
    return (
        [Problem(key, f"must be at least 1, got {every}", origin(key))] if isinstance(every, int) and every < 1 else []
    )


def _plateau_has_scores(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    has_validation = dataset.validation or dataset.split.validation or dataset.format == "synthetic"
    if config.scheduler.name == "plateau" and not has_validation:
        what = "plateau needs a validation split, and there is none"
        return [Problem("scheduler.name", what, origin("scheduler.name"), "Write dataset.split.validation=0.1.")]
    return []


def _all_rows_are_one_step(config: Config, origin: Origin) -> list[Problem]:
    key, trainer = "trainer.accumulation", config.trainer
    if trainer.batch_size == "all" and trainer.accumulation > 1:
        what = "must be 1 with trainer.batch_size=all, which puts every row in one step"
        return [Problem(key, what, origin(key), "Leave it out.")]
    return []


def _rows_have_company(config: Config, origin: Origin) -> list[Problem]:
    key = "trainer.batch_size"
    if config.trains and config.trainer.batch_size == 1 and config.task.compares_rows:
        what = f"must be at least 2: the loss of {config.task.name} compares the rows of a batch, got 1"
        return [Problem(key, what, origin(key), "Write trainer.batch_size=32.")]
    return []


def _a_stream_has_steps_of_its_own(config: Config, origin: Origin) -> list[Problem]:
    key = "trainer.batch_size"
    if config.trainer.batch_size == "all" and config.dataset.streaming:
        what = "must be a number with dataset.streaming=true: all needs all rows in memory"
        return [Problem(key, what, origin(key), "Write trainer.batch_size=32, or dataset.streaming=false.")]
    return []


def _rows_can_be_packed(config: Config, origin: Origin) -> list[Problem]:
    key = "trainer.packing"
    if config.trainer.packing and not config.task.packs and config.trains:
        what = f"needs a loss that is a mean over tokens, which {config.task.name} does not have"
        return [Problem(key, what, origin(key), "Leave it out; trainer.group_by_length=true saves padding too.")]
    return []


def _rows_are_there_before_training(config: Config, origin: Origin) -> list[Problem]:
    key = "dataset.streaming"
    if config.dataset.streaming and config.task.refers and config.trains:
        what = f"{config.task.name} computes all rows with the initial weights before training"
        return [Problem(key, what, origin(key), "Write dataset.streaming=false.")]
    return []


def _folders_stay_inside(config: Config, origin: Origin) -> list[Problem]:
    """A recipe may only write inside the working directory; on the command line any folder is allowed."""
    folder = config.run.dir
    if folder is None:
        return []
    if "\0" in folder:
        return [Problem("run.dir", "contains a NUL character", origin("run.dir"))]
    path = PurePath(folder)
    if not origin.typed("run.dir") and (path.is_absolute() or ".." in path.parts):
        return [
            Problem(
                "run.dir",
                f"must be inside the working directory, got {folder!r}",
                origin("run.dir"),
                f"Write run.dir={folder} on the command line.",
            )
        ]
    outside = not Path(folder).resolve().is_relative_to(Path.cwd().resolve())
    if not origin.typed("run.dir") and outside:
        return [
            Problem(
                "run.dir", f"must be inside the working directory; a link leads {folder!r} out of it", origin("run.dir")
            )
        ]
    return []


def _chat_is_for_chat(config: Config, origin: Origin) -> list[Problem]:
    if config.command != "chat" and config.chat != ChatConfig():
        return [Problem("chat.system", "is only for llmft chat", origin("chat.system"), "Leave it out.")]
    return []


def _predict_is_asked_one_thing(config: Config, origin: Origin) -> list[Problem]:
    predict = config.predict
    if config.command != "predict" and predict != PredictConfig():
        key = f"predict.{min(predict.model_fields_set)}"
        return [Problem(key, "is only for llmft predict", origin(key), "Leave it out.")]
    problems = []
    given = [f"predict.{key}" for key in ("input", "text", "row") if getattr(predict, key) is not None]
    if len(given) > 1:
        what = f"only one input can be answered, got {' and '.join(given)}"
        problems.append(Problem(given[1], what, origin(given[1]), "Leave out the others."))
    if predict.text_pair is not None and predict.text is None:
        key = "predict.text_pair"
        problems.append(Problem(key, "needs the first text of the pair", origin(key), "Write predict.text=TEXT too."))
    if predict.input_format in ("parquet", "squad") and predict.input in (None, "-"):
        key, what = "predict.input_format", f"{predict.input_format} can only be read from a file"
        problems.append(Problem(key, what, origin(key), "Write predict.input=FILE."))
    if taken := [name for name in predict.keep if name in config.task.answered]:
        what = f"{taken[0]} is already a field of each answer"
        problems.append(Problem("predict.keep", what, origin("predict.keep"), "Rename the column."))
    return problems


def _export_can_be_written(config: Config, origin: Origin) -> list[Problem]:
    export = config.export
    if config.command != "export" or export.precision in PRECISIONS.get(export.format, ()):
        return []
    if export.format == "gguf":
        what = "must be another format: transformers reads GGUF files but does not write them"
        command = f"python convert_hf_to_gguf.py {config.run.source}/model --outfile model.gguf"
        hint = f"llama.cpp converts causal language models: run {command}."
        return [Problem("export.format", what, origin("export.format"), hint)]
    pairs = "; ".join(f"{name} in {', '.join(found)}" for name, found in PRECISIONS.items())
    what = f"{export.format} does not support {export.precision}"
    return [Problem("export.precision", what, origin("export.precision"), f"Supported are {pairs}.")]


def _a_search_has_scores_to_go_by(config: Config, origin: Origin) -> list[Problem]:
    dataset, search = config.dataset, config.search
    if search is None:
        return []
    problems = []
    if not config.trains:
        problems.append(Problem("search", "is only for commands that train", origin("search"), "Leave it out."))
    if not dataset.validation and not dataset.split.validation and dataset.format != "synthetic":
        what = "must be above 0 for a search, which compares trials on validation rows"
        hint = "Write dataset.split.validation=0.1."
        problems.append(Problem("dataset.split.validation", what, origin("dataset.split.validation"), hint))
    if dataset.folds and dataset.fold is None:
        hint = "Write dataset.fold=0 to search on one fold, and run the best recipe on all folds afterwards."
        problems.append(Problem("dataset.folds", "does not work with a search", origin("dataset.folds"), hint))
    if search.pruner != "none" and config.hardware.processes > 1:
        what = "cannot stop a trial of several processes early"
        problems.append(Problem("search.pruner", what, origin("search.pruner"), "Write search.pruner=none."))
    return problems


def _an_ensemble_is_of_runs(config: Config, origin: Origin) -> list[Problem]:
    ensemble = config.ensemble
    if ensemble is None:
        return []
    if config.command != "eval":
        return [Problem("ensemble", "is only for llmft eval", origin("ensemble"), "Leave it out.")]
    if not isinstance(config.task, TargetConfig):
        what = f"needs answers that are labels or numbers, and {config.task.name} has others"
        return [Problem("ensemble", what, origin("ensemble"), "Leave it out.")]
    if len(ensemble.runs) < 2:
        return [
            Problem("ensemble", "needs two runs or more", origin("ensemble"), "Write llmft eval RUN RUN ensemble=mean.")
        ]
    key, weights = "ensemble.weights", ensemble.weights
    if weights is not None and len(weights) != len(ensemble.runs):
        return [
            Problem(
                key, f"must have a weight for each of the {len(ensemble.runs)} runs, got {len(weights)}", origin(key)
            )
        ]
    if weights is not None and min(weights) < 0:
        return [Problem(key, f"must be at least 0, got {min(weights):g}", origin(key))]
    if weights is not None and not sum(weights):
        return [Problem(key, "must have a weight above 0", origin(key))]
    return []


def _export_has_one_pass(config: Config, origin: Origin) -> list[Problem]:
    if config.command != "export" or config.task.exports:
        return []
    what = f"export supports tasks that answer with one forward pass, and {config.task.name} does not"
    hint = f"transformers loads {config.run.source}/model."
    return [Problem("task", what, str(config.run.source), hint)]


RULES = (
    _best_checkpoint_can_be_kept,
    _momentum_to_look_along,
    _keys_are_read,
    _steps_between_falls,
    _plateau_has_scores,
    _all_rows_are_one_step,
    _rows_have_company,
    _a_stream_has_steps_of_its_own,
    _rows_can_be_packed,
    _rows_are_there_before_training,
    _folders_stay_inside,
    _chat_is_for_chat,
    _predict_is_asked_one_thing,
    _export_has_one_pass,
    _export_can_be_written,
    _a_search_has_scores_to_go_by,
    _an_ensemble_is_of_runs,
)
