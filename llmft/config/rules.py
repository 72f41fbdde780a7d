"""Rules that look at several keys: each looks at one thing and says what to write instead."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from llmft.config import placement
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.export import PRECISIONS
from llmft.schema.metric import METRICS
from llmft.schema.predict import PredictConfig
from llmft.schema.problem import Problem


@dataclass(frozen=True)
class Origin:
    """Where dotted keys were set."""

    of: Callable[[str], str]
    """`command line` or `FILE:LINE`. Working it out takes 0.4 s, so that only messages ask for it."""
    given: frozenset[str] = frozenset()
    """The keys of the command line."""

    def __call__(self, key: str) -> str:
        """Where `key` was set."""
        return self.of(key)

    def typed(self, key: str) -> bool:
        """Whether a person gave the key, or a table around it, on the command line."""
        return any(key == word or key.startswith(f"{word}.") for word in self.given)


def _model_has_a_source(config: Config, origin: Origin) -> list[Problem]:
    model = config.model
    if model.path or (model.init != "pretrained" and model.architecture):
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


def _stream_can_be_cleaned(config: Config, origin: Origin) -> list[Problem]:
    clean = config.dataset.clean
    if not config.dataset.streaming:
        return []
    compared = {
        "duplicates": clean.duplicates != "keep",
        "near_duplicates": clean.near_duplicates,
        "leaks": clean.leaks,
    }
    return [
        Problem(
            f"dataset.clean.{key}",
            "compares rows with each other, and rows that are streamed are never held together",
            origin(f"dataset.clean.{key}"),
            "Leave it out, or read the rows as a whole with dataset.streaming=false.",
        )
        for key, asked in compared.items()
        if asked
    ]


def _lengths_leave_something(config: Config, origin: Origin) -> list[Problem]:
    key, clean = "dataset.clean.max_characters", config.dataset.clean
    if (clean.min_characters or 0) > (clean.max_characters or math.inf):
        return [Problem(key, f"is below dataset.clean.min_characters={clean.min_characters}", origin(key))]
    return []


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


def _work_with_a_run_is_one_process(config: Config, origin: Origin) -> list[Problem]:
    key = "hardware.processes"
    if COMMANDS[config.command].of_a_run and config.hardware.processes > 1:
        return [Problem(key, f"{config.command} works in one process", origin(key), "Leave it out.")]
    return []


def _predict_is_asked_one_thing(config: Config, origin: Origin) -> list[Problem]:
    predict = config.predict
    if config.command != "predict" and predict != PredictConfig():
        key = f"predict.{min(predict.model_fields_set)}"
        return [Problem(key, "is for llmft predict", origin(key), "Leave it out.")]
    problems = []
    given = [f"predict.{key}" for key in ("input", "text", "row") if getattr(predict, key) is not None]
    if len(given) > 1:
        what = f"{' and '.join(given)} are given; one of them is answered"
        problems.append(Problem(given[1], what, origin(given[1]), "Leave out the others."))
    if predict.text_pair is not None and predict.text is None:
        key = "predict.text_pair"
        problems.append(Problem(key, "is the second of two texts", origin(key), "Give predict.text too."))
    if predict.input_format == "parquet" and predict.input in (None, "-"):
        key = "predict.input_format"
        problems.append(Problem(key, "parquet is read from a file", origin(key), "Write predict.input=FILE."))
    if taken := [name for name in predict.keep if name in ("answer", "scores", "error")]:
        what = f"{taken[0]} is a key of the answer itself"
        problems.append(Problem("predict.keep", what, origin("predict.keep"), "Rename the column."))
    return problems


def _gpus_say_how_many_jobs(config: Config, origin: Origin) -> list[Problem]:
    key, gpus = "sweep.jobs", config.sweep.gpus
    if gpus and (config.sweep.jobs > 1 or origin.typed(key)):
        what = f"sweep.gpus means {len(gpus)} at a time, one on each"
        return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


def _export_can_be_written(config: Config, origin: Origin) -> list[Problem]:
    export = config.export
    if config.command != "export" or export.precision in PRECISIONS.get(export.format, ()):
        return []
    if export.format == "gguf":
        what = "transformers reads GGUF files and writes none"
        command = f"`python convert_hf_to_gguf.py {config.run.source}/model --outfile model.gguf`"
        hint = f"llama.cpp converts causal language models: {command}."
        return [Problem("export.format", what, origin("export.format"), hint)]
    pairs = "; ".join(f"{name} in {', '.join(found)}" for name, found in PRECISIONS.items())
    what = f"{export.format} is not written in {export.precision}"
    return [Problem("export.precision", what, origin("export.precision"), f"There are {pairs}.")]


def _folds_can_be_made(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    if dataset.folds is None:
        key, what = "dataset.fold", "names a part, and dataset.folds does not say of how many"
        return [Problem(key, what, origin(key))] if dataset.fold is not None else []
    problems = []
    if dataset.fold is not None and dataset.fold >= dataset.folds:
        what = f"there is no fold {dataset.fold}; they are 0 to {dataset.folds - 1}"
        problems.append(Problem("dataset.fold", what, origin("dataset.fold")))
    if dataset.fold is None and config.command != "finetune":
        what = f"{config.command} works on the rows of one fold"
        problems.append(Problem("dataset.fold", what, origin("dataset.folds"), "Say which: dataset.fold=0."))
    if dataset.test:
        hint = "Write dataset.test=null, or score the runs on it afterwards: llmft eval FOLDER ensemble=mean."
        problems.append(
            Problem("dataset.test", "with folds, the held-out rows are the test", origin("dataset.test"), hint)
        )
    if dataset.streaming:
        what = "folds are taken from rows in memory"
        problems.append(Problem("dataset.streaming", what, origin("dataset.streaming"), "Leave out one of the two."))
    return problems


def _groups_are_in_memory(config: Config, origin: Origin) -> list[Problem]:
    key = "dataset.columns.group"
    if config.dataset.streaming and "group" in config.dataset.columns:
        what = "no split is made of rows that are streamed, so none can part a group"
        return [Problem(key, what, origin(key), "Leave it out.")]
    return []


def _a_search_has_scores_to_go_by(config: Config, origin: Origin) -> list[Problem]:
    dataset, search = config.dataset, config.search
    if search is None:
        return []
    problems = []
    if config.command != "finetune":
        problems.append(Problem("search", "is for llmft finetune", origin("search"), "Leave it out."))
    if not dataset.validation and not dataset.split.validation and dataset.format != "synthetic":
        what = "trials are compared by validation rows, and there are none"
        problems.append(Problem("dataset.split.validation", what, origin("dataset.split.validation")))
    if dataset.folds and dataset.fold is None:
        hint = "Search on one fold, dataset.fold=0, or on a split, and try the winner on all folds."
        problems.append(Problem("dataset.folds", "a trial of a search is one run", origin("dataset.folds"), hint))
    if search.pruner != "none" and config.hardware.processes > 1:
        what = "a trial of several processes can't be given up early"
        problems.append(Problem("search.pruner", what, origin("search.pruner"), "Write search.pruner=none."))
    return problems


def _an_ensemble_is_of_runs(config: Config, origin: Origin) -> list[Problem]:
    ensemble = config.ensemble
    if ensemble is None:
        return []
    if config.command != "eval":
        return [Problem("ensemble", "is for llmft eval", origin("ensemble"), "Leave it out.")]
    if len(ensemble.runs) < 2:
        return [Problem("ensemble", "wants two runs or more", origin("ensemble"), "llmft eval RUN RUN ensemble=mean")]
    key, weights = "ensemble.weights", ensemble.weights
    if weights is not None and len(weights) != len(ensemble.runs):
        return [Problem(key, f"{len(weights)} weights for {len(ensemble.runs)} runs", origin(key))]
    if weights is not None and not sum(weights):
        return [Problem(key, "are all 0", origin(key))]
    return []


RULES = (
    _model_has_a_source,
    _data_has_a_source,
    _stream_can_be_read,
    _stream_can_be_cleaned,
    _lengths_leave_something,
    _encoding_exists,
    _best_checkpoint_can_be_kept,
    _folders_stay_inside,
    _code_is_trusted_by_a_person,
    _files_are_of_one_dataset,
    _momentum_to_look_along,
    _work_with_a_run_is_one_process,
    _predict_is_asked_one_thing,
    _gpus_say_how_many_jobs,
    _export_can_be_written,
    _folds_can_be_made,
    _groups_are_in_memory,
    _a_search_has_scores_to_go_by,
    _an_ensemble_is_of_runs,
    *placement.RULES,
)
