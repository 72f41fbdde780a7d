"""Rules of the rows: where they come from, how they are read, cleaned and split, and what is answered about them."""

import math
from pathlib import Path

from llmft.config.precedence import Origin
from llmft.data.files import mismatch, resolve
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import Problem
from llmft.schema.tasks import task_types
from llmft.tasks.targets.config import TargetConfig


def _data_has_a_source(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    problems = []
    if dataset.format != "synthetic" and not dataset.train and config.trains:
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


def _headers_are_of_csv(config: Config, origin: Origin) -> list[Problem]:
    dataset, key = config.dataset, "dataset.header"
    if dataset.header and dataset.format != "csv":
        what = f"names the columns of csv files, and dataset.format is {dataset.format}"
        return [Problem(key, what, origin(key), "Leave it out; dataset.columns says which column plays which role.")]
    if len(set(dataset.header)) < len(dataset.header):
        return [Problem(key, "names a column twice", origin(key))]
    return []


def _stream_can_be_read(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    if not dataset.streaming or dataset.format == "synthetic":
        return []
    if dataset.format in ("hub", "sklearn", "po", "parallel", "excel", "sqlite", "folder"):
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


def _stream_is_of_whole_rows(config: Config, origin: Origin) -> list[Problem]:
    if not config.dataset.streaming or config.task.streams:
        return []
    key = "dataset.streaming"
    what = (
        f"{config.task.name} makes several examples of a long row, and those of a stream cannot be counted beforehand"
    )
    return [Problem(key, what, origin(key), "Leave it out: the rows are then read as a whole.")]


def _corpus_is_read_in_parts(config: Config, origin: Origin) -> list[Problem]:
    """Raw text goes to the disk as it is read, document by document; its splits are shares of documents."""
    dataset = config.dataset
    what = {
        "streaming": (dataset.streaming, "raw text is never held in memory as it is", "Leave it out."),
        "folds": (dataset.folds, "folds are taken from rows in memory", "Write dataset.split.seed for other shares."),
    }
    wrong = config.task.pretrains or dataset.format in ("text", "pydocs")
    return [
        Problem(f"dataset.{key}", why, origin(f"dataset.{key}"), hint)
        for key, (asked, why, hint) in what.items()
        if asked and wrong
    ]


def _unit_is_of_text(config: Config, origin: Origin) -> list[Problem]:
    key, dataset = "dataset.unit", config.dataset
    if dataset.format == "text" or not origin.typed(key):
        return []
    what = f"is for dataset=text; a row of dataset={dataset.format} is a document"
    return [Problem(key, what, origin(key), "Leave it out.")]


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


def _files_are_of_one_dataset(config: Config, origin: Origin) -> list[Problem]:
    """`dataset.train=mine.csv` without `dataset=csv` would train on it and score on the reviews."""
    dataset = config.dataset
    brought = (dataset.path or "").startswith("package:")
    if not brought or origin.typed("dataset.path"):
        return []
    return [
        Problem(
            f"dataset.{split}",
            f"is not part of dataset={dataset.name}",
            "command line",
            "Leave out the choice of dataset." if origin.typed("dataset.train") else "Name dataset.train as well.",
        )
        for split in ("train", "validation", "test")
        if getattr(dataset, split) and origin.typed(f"dataset.{split}")
    ]


def _files_are_what_is_read(config: Config, origin: Origin) -> list[Problem]:
    """Said here, before torch is imported, of what was named just now; the readers look at every file again."""
    dataset = config.dataset
    problems = []
    for split in ("train", "validation", "test"):
        source = getattr(dataset, split)
        if not source or not origin.typed(f"dataset.{split}") or dataset.format in ("hub", "sklearn", "synthetic"):
            continue
        folder = resolve(dataset.path, "dataset.path") if dataset.path else Path()
        for name in [source] if isinstance(source, str) else source:
            file = folder / Path(name).expanduser()
            if file.is_file() and (problem := mismatch(file, name, dataset.format)):
                problems.append(problem._replace(where=f"dataset.{split}"))
    return problems


def _folds_can_be_made(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    if dataset.folds is None:
        key, what = "dataset.fold", "names a part, and dataset.folds does not say of how many"
        return [Problem(key, what, origin(key))] if dataset.fold is not None else []
    problems = []
    if dataset.fold is not None and dataset.fold >= dataset.folds:
        what = f"there is no fold {dataset.fold}; they are 0 to {dataset.folds - 1}"
        problems.append(Problem("dataset.fold", what, origin("dataset.fold")))
    if dataset.fold is None and not config.trains:
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


def _a_split_by_time_takes_shares(config: Config, origin: Origin) -> list[Problem]:
    key, dataset = "dataset.split.by", config.dataset
    if dataset.split.by is None:
        return []
    shared = any(not getattr(dataset, name) and getattr(dataset.split, name) for name in ("validation", "test"))
    for wrong, what, hint in (
        (dataset.folds, "folds are drawn, whatever the time of their rows", "Leave out one of the two."),
        ("group" in dataset.columns, "groups and times cannot both decide", "Leave out dataset.columns.group."),
        (origin.typed("dataset.split.stratify"), "with it, labels have no say in the split", "Leave one of them out."),
        (config.task.pretrains, f"{config.task.name} reads documents, which have no columns", "Leave it out."),
        (not shared, "no share is taken of train: other splits have files, or share 0", "Leave it out."),
    ):
        if wrong:
            return [Problem(key, what, origin(key), hint)]
    return []


def _a_baseline_sees_all_rows(config: Config, origin: Origin) -> list[Problem]:
    key = "task.baseline"
    if config.dataset.streaming and getattr(config.task, "baseline", None):
        what = "a baseline is fitted to all rows at once, and dataset.streaming reads a part at a time"
        return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


def _pretraining_is_on_raw_text(config: Config, origin: Origin) -> list[Problem]:
    if config.command != "pretrain" or config.task.pretrains:
        return []
    names = ", ".join(name for name, task in task_types().items() if task.pretrains)
    hint = f"Write llmft finetune; llmft pretrain is for {names}."
    return [Problem("task", f"{config.task.name} learns from rows that say what is right", origin("task.name"), hint)]


def _blocks_are_read_as_they_are(config: Config, origin: Origin) -> list[Problem]:
    dataset, name = config.dataset, config.task.name
    if not config.task.pretrains or not config.trains:
        return []
    found = {
        "dataset.streaming": (dataset.streaming, "raw text is read part by part anyway, and kept on the disk"),
        "dataset.folds": (dataset.folds, "folds are of rows in memory"),
        "dataset.columns.group": ("group" in dataset.columns, "no split parts a document; there are no other groups"),
        "model.freeze": (
            "encoder" in config.model.freeze,
            "each epoch cuts the text elsewhere, so that nothing can be computed once",
        ),
        "adapter": (config.adapter.name == "prefix", f"a prefix is not offered for {name}"),
    }
    hints = {"model.freeze": "Name parts, such as [embeddings,layers.0-3].", "adapter": "Write adapter=lora."}
    return [
        Problem(key, what, origin(key), hints.get(key, "Leave it out."))
        for key, (asked, what) in found.items()
        if asked
    ]


LOSSES = {
    "single_label": ("cross_entropy", "focal"),
    "multi_label": ("cross_entropy", "focal"),
    "regression": ("mse", "mae", "huber"),
}
OF_LABELS = ("labels", "class_weights", "label_smoothing", "threshold", "calibrate")


def _metric_is_of_the_problem(config: Config, origin: Origin) -> list[Problem]:
    key, metric = "trainer.metric_for_best", config.trainer.metric_for_best
    if not metric or metric not in METRICS or metric in config.task.metrics:
        return []
    kind = getattr(config.task, "problem", config.task.name)
    hint = f"They are {', '.join(config.task.metrics)}."
    return [Problem(key, f"{metric} is not a metric of {kind}", origin(key), hint)]


def _keys_are_of_the_problem(config: Config, origin: Origin) -> list[Problem]:
    task = config.task
    if not isinstance(task, TargetConfig):
        return []
    problems = []
    if task.loss and task.loss not in (fitting := LOSSES[task.problem]):
        hint = f"Choose {', '.join(fitting[:-1])} or {fitting[-1]}."
        problems.append(Problem("task.loss", f"{task.loss} is not a loss of {task.problem}", origin("task.loss"), hint))
    elif task.loss == "focal" and task.label_smoothing:
        key = "task.label_smoothing"
        problems.append(Problem(key, "is of cross_entropy, and task.loss is focal", origin(key), "Leave out one."))
    for key, used, wanted in (
        ("separator", task.problem == "multi_label", "task.problem=multi_label"),
        ("focal_gamma", task.loss == "focal", "task.loss=focal"),
    ):
        if not used and origin.typed(f"task.{key}"):
            problems.append(
                Problem(f"task.{key}", f"is read with {wanted} alone", origin(f"task.{key}"), "Leave it out.")
            )
    if task.problem == "regression":
        defaults = {key: TargetConfig.model_fields[key].default for key in OF_LABELS}
        problems += [
            Problem(
                f"task.{key}", "is of labels, and task.problem is regression", origin(f"task.{key}"), "Leave it out."
            )
            for key, default in defaults.items()
            if getattr(task, key) != default
        ]
    return problems


def _there_is_something_to_tune_on(config: Config, origin: Origin) -> list[Problem]:
    task, dataset = config.task, config.dataset
    if not isinstance(task, TargetConfig) or dataset.validation or dataset.split.validation or config.command == "eval":
        return []
    return [
        Problem(f"task.{key}", "is learnt from validation rows, and there are none", origin(f"task.{key}"))
        for key, wanted in (("calibrate", task.calibrate), ("threshold", isinstance(task.threshold, str)))
        if wanted
    ]


RULES = (
    _a_baseline_sees_all_rows,
    _a_split_by_time_takes_shares,
    _data_has_a_source,
    _headers_are_of_csv,
    _stream_can_be_read,
    _stream_is_of_whole_rows,
    _corpus_is_read_in_parts,
    _unit_is_of_text,
    _stream_can_be_cleaned,
    _lengths_leave_something,
    _encoding_exists,
    _files_are_of_one_dataset,
    _files_are_what_is_read,
    _folds_can_be_made,
    _groups_are_in_memory,
    _pretraining_is_on_raw_text,
    _blocks_are_read_as_they_are,
    _metric_is_of_the_problem,
    _keys_are_of_the_problem,
    _there_is_something_to_tune_on,
)
