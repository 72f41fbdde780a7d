"""Rules that look at several keys: each looks at one thing and says what to write instead."""

from pathlib import Path, PurePath

from llmft.config.origin import Origin
from llmft.config.rules_of_many import RULES_OF_MANY
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import Problem


def _model_has_a_source(config: Config, origin: Origin) -> list[Problem]:
    model = config.model
    if model.path or (model.init == "random" and model.architecture):
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


def _data_has_a_source(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    problems = []
    if dataset.format != "synthetic" and not dataset.train and (config.command == "finetune"):
        problems.append(
            Problem(
                "dataset.train",
                "must be given",
                origin("dataset.train"),
                "Name a file, a folder or a pattern.",
            )
        )
    if dataset.format == "hub" and not dataset.path:
        problems.append(Problem("dataset.path", "must be given", origin("dataset.path"), "Name a dataset of the hub."))
    if (
        config.command == "eval"
        and dataset.format != "synthetic"
        and not (dataset.test or dataset.validation or dataset.train)
    ):
        problems.append(Problem("dataset.test", "must be given", origin("dataset.test")))
    if dataset.split.validation + dataset.split.test >= 1:
        problems.append(Problem("dataset.split", "leaves no rows for training", origin("dataset.split.test")))
    return problems


def _stream_can_be_read(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    if not dataset.streaming or dataset.format == "synthetic":
        return []
    if dataset.format in ("hub", "sklearn"):
        what = f"dataset={dataset.format} is read as a whole"
        fetch = "`hf download --repo-type dataset`, then dataset=parquet" if dataset.format == "hub" else "dataset=csv"
        hint = f"Streamed are csv, jsonl and parquet files: {fetch}."
        return [Problem("dataset.streaming", what, origin("dataset.streaming"), hint)]
    return [
        Problem(
            f"dataset.{split}",
            "must be given: no share can be taken of rows that are streamed",
            origin(f"dataset.{split}"),
            f"Name a file, or write dataset.split.{split}=0 to do without.",
        )
        for split in ("validation", "test")
        if not getattr(dataset, split) and getattr(dataset.split, split)
    ]


def _encoding_exists(config: Config, origin: Origin) -> list[Problem]:
    key, name = "dataset.encoding", config.dataset.encoding
    try:
        "".encode(name)  # codecs.lookup also knows base64 and its like, which are of bytes
    except LookupError:
        hint = "Such as utf-8, gb18030, utf-16, latin-1."
        return [Problem(key, f"no encoding called {name}", origin(key), hint)]
    return []


def _best_checkpoint_can_be_kept(config: Config, origin: Origin) -> list[Problem]:
    trainer = config.trainer
    problems = []
    if trainer.eval_every != trainer.save_every and (
        "epoch" in (trainer.eval_every, trainer.save_every) or trainer.save_every % trainer.eval_every  # type: ignore[operator]
    ):
        problems.append(
            Problem(
                "trainer.save_every",
                f"{trainer.save_every} is no multiple of trainer.eval_every={trainer.eval_every}",
                origin("trainer.save_every"),
                "The best checkpoint is picked among those that were scored.",
            )
        )
    if trainer.metric_for_best and trainer.metric_for_best not in METRICS:
        problems.append(
            Problem(
                "trainer.metric_for_best",
                f"no metric called {trainer.metric_for_best}",
                origin("trainer.metric_for_best"),
                f"They are {', '.join(METRICS)}.",
            )
        )
    for key in ("eval_every", "save_every"):
        if isinstance(every := getattr(trainer, key), int) and every < 1:
            problems.append(Problem(f"trainer.{key}", f"{every} is not at least 1", origin(f"trainer.{key}")))
    return problems


def _folders_stay_inside(config: Config, origin: Origin) -> list[Problem]:
    """A recipe may not write where it likes; the person at the command line may."""
    folder = config.run.dir
    if folder is None:
        return []
    if "\0" in folder:
        return [Problem("run.dir", "holds a NUL character", origin("run.dir"))]
    path = PurePath(folder)
    if not origin.typed("run.dir") and (path.is_absolute() or ".." in path.parts):
        return [
            Problem(
                "run.dir",
                f"{folder!r} leaves the working directory",
                origin("run.dir"),
                "Give such a folder on the command line.",
            )
        ]
    outside = not Path(folder).resolve().is_relative_to(Path.cwd().resolve())
    if not origin.typed("run.dir") and outside:
        return [Problem("run.dir", f"{folder!r} leads out of the working directory by a link", origin("run.dir"))]
    return []


def _code_is_trusted_by_a_person(config: Config, origin: Origin) -> list[Problem]:
    key = "model.trust_remote_code"
    if config.model.trust_remote_code and not origin.typed(key):
        return [
            Problem(key, "runs code, which only the command line may ask for", origin(key), f"Write {key}=true there.")
        ]
    return []


def _files_are_of_one_dataset(config: Config, origin: Origin) -> list[Problem]:
    """`dataset.train=mine.csv` without `dataset=csv` would train on it and score on the reviews."""
    dataset = config.dataset
    brought = (dataset.path or "").startswith("package:")
    if not brought or origin.typed("dataset.path"):
        return []
    return [
        Problem(
            f"dataset.{split}", f"is no part of dataset={dataset.name}", "command line", "Write dataset=csv before it."
        )
        for split in ("train", "validation", "test")
        if getattr(dataset, split) and origin.typed(f"dataset.{split}")
    ]


def _momentum_to_look_along(config: Config, origin: Origin) -> list[Problem]:
    if config.optimizer.nesterov and not config.optimizer.momentum:
        return [
            Problem("optimizer.nesterov", "looks along a momentum, and there is none", origin("optimizer.nesterov"))
        ]
    return []


def _eval_is_one_process(config: Config, origin: Origin) -> list[Problem]:
    key = "hardware.processes"
    if config.command == "eval" and config.hardware.processes > 1:
        return [Problem(key, "eval works in one process", origin(key), "Leave it out.")]
    return []


def _gpus_say_how_many_jobs(config: Config, origin: Origin) -> list[Problem]:
    key, gpus = "sweep.jobs", config.sweep.gpus
    if gpus and (config.sweep.jobs > 1 or origin.typed(key)):
        what = f"sweep.gpus means {len(gpus)} at a time, one on each"
        return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


RULES = (
    _model_has_a_source,
    _data_has_a_source,
    _stream_can_be_read,
    _encoding_exists,
    _best_checkpoint_can_be_kept,
    _folders_stay_inside,
    _code_is_trusted_by_a_person,
    _files_are_of_one_dataset,
    _momentum_to_look_along,
    _eval_is_one_process,
    _gpus_say_how_many_jobs,
    *RULES_OF_MANY,
)
