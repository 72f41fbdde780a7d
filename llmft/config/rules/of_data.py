"""Rules for data: where rows come from, how they are read, cleaned, and split, and the target that they hold."""

import math
from pathlib import Path

from llmft.config.precedence import Origin
from llmft.data.files import mismatch, resolve
from llmft.schema.config import Config
from llmft.schema.metric import METRICS, at_10
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
                "Write dataset.train=FILE, a folder, or a pattern.",
            )
        )
    if dataset.format == "hub" and not dataset.path:
        problems.append(Problem("dataset.path", "must be given", origin("dataset.path"), "Write dataset.path=HUB_ID."))
    if (
        config.command == "eval"
        and dataset.format != "synthetic"
        and not (dataset.test or dataset.validation or dataset.train)
    ):
        problems.append(Problem("dataset.test", "must be given", origin("dataset.test")))
    if config.command == "monitor" and not dataset.test:
        hint = "Write dataset=csv dataset.test=FILE."
        problems.append(Problem("dataset.test", "must be given", origin("dataset.test"), hint))
    if dataset.split.validation + dataset.split.test >= 1:
        problems.append(Problem("dataset.split", "must leave rows for training", origin("dataset.split.test")))
    return problems


def _headers_are_of_csv(config: Config, origin: Origin) -> list[Problem]:
    dataset, key = config.dataset, "dataset.header"
    if dataset.header and dataset.format != "csv":
        what = f"is only for csv files, and dataset.format is {dataset.format}"
        return [Problem(key, what, origin(key), "Leave it out; dataset.columns assigns columns to roles.")]
    if len(set(dataset.header)) < len(dataset.header):
        return [Problem(key, "must name each column once", origin(key))]
    return []


IMAGES = ("images", "idx", "cifar")
BOXES = ("coco", "voc", "yolo", "boxes")


def _stream_can_be_read(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    if not dataset.streaming or dataset.format == "synthetic" or _is_raw_text(config):
        return []
    if dataset.format in ("hub", "sklearn", "po", "parallel", "excel", "sqlite", "folder", *IMAGES, *BOXES):
        what = f"dataset={dataset.format} can only be read as a whole"
        fetch = "run hf download --repo-type dataset, then" if dataset.format == "hub" else "write"
        option = "dataset=parquet" if dataset.format == "hub" else "dataset=csv"
        hint = f"csv, jsonl, and parquet files can be streamed: {fetch} {option}."
        return [Problem("dataset.streaming", what, origin("dataset.streaming"), hint)]
    return [
        Problem(
            f"dataset.{split}",
            "must be given: streamed rows cannot be split into shares",
            origin(f"dataset.{split}"),
            f"Name a file, or write dataset.split.{split}=0 for no such split.",
        )
        for split in ("validation", "test")
        if not getattr(dataset, split) and getattr(dataset.split, split)
    ]


def _stream_is_of_whole_rows(config: Config, origin: Origin) -> list[Problem]:
    if not config.dataset.streaming or config.task.streams:
        return []
    key = "dataset.streaming"
    what = f"{config.task.name} makes several features of a long row, and a stream cannot count them before training"
    return [Problem(key, what, origin(key), "Leave it out; all rows are then read before training.")]


def _corpus_is_read_in_parts(config: Config, origin: Origin) -> list[Problem]:
    """Raw text is written to disk as it is read, document by document. Its splits are shares of documents."""
    dataset = config.dataset
    what = {
        "streaming": (dataset.streaming, "raw text is never held in memory anyway", "Leave it out."),
        "folds": (
            dataset.folds,
            "needs all rows in memory, and raw text is not",
            "Write dataset.split.seed=1 for another split.",
        ),
    }
    return [
        Problem(f"dataset.{key}", why, origin(f"dataset.{key}"), hint)
        for key, (asked, why, hint) in what.items()
        if asked and _is_raw_text(config)
    ]


def _is_raw_text(config: Config) -> bool:
    return config.task.pretrains or config.dataset.format in ("text", "pydocs")


def _unit_is_of_text(config: Config, origin: Origin) -> list[Problem]:
    key, dataset = "dataset.unit", config.dataset
    if dataset.format == "text" or dataset.corpus or not origin.typed(key):
        return []
    what = f"is only for dataset=text; with dataset={dataset.format} each row is a document"
    return [Problem(key, what, origin(key), "Leave it out.")]


def _corpus_is_searched(config: Config, origin: Origin) -> list[Problem]:
    if not config.dataset.corpus or config.task.searches:
        return []
    names = ", ".join(name for name, section in task_types().items() if section.searches)
    what = f"is only for tasks that find passages ({names}), and this one is {config.task.name}"
    return [Problem("dataset.corpus", what, origin("dataset.corpus"), "Leave it out.")]


def _shots_are_of_labels(config: Config, origin: Origin) -> list[Problem]:
    key, task = "dataset.shots", config.task
    if not config.dataset.shots:
        return []
    if not isinstance(task, TargetConfig) or task.problem != "single_label":
        what = "draws rows of each label, and rows of this task have not one label each"
        return [Problem(key, what, origin(key), "Write dataset.max_rows=N.")]
    if config.dataset.streaming:
        what = "draws rows in memory, and dataset.streaming reads them in training"
        return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


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
            "compares rows with each other, and streamed rows are never all in memory",
            origin(f"dataset.clean.{key}"),
            "Leave it out, or write dataset.streaming=false.",
        )
        for key, asked in compared.items()
        if asked
    ]


def _lengths_leave_something(config: Config, origin: Origin) -> list[Problem]:
    key, clean = "dataset.clean.max_characters", config.dataset.clean
    if (clean.min_characters or 0) > (clean.max_characters or math.inf):
        return [
            Problem(
                key,
                f"must be at least dataset.clean.min_characters={clean.min_characters}, got {clean.max_characters}",
                origin(key),
            )
        ]
    return []


def _encoding_exists(config: Config, origin: Origin) -> list[Problem]:
    key, name = "dataset.encoding", config.dataset.encoding
    try:
        "".encode(name)  # codecs.lookup also accepts base64 and the like, which encode bytes
    except LookupError:
        hint = "Write for example utf-8, gb18030, utf-16, or latin-1."
        return [Problem(key, f"must be an encoding, got {name}", origin(key), hint)]
    return []


def _files_are_of_one_dataset(config: Config, origin: Origin) -> list[Problem]:
    """`dataset.train=mine.csv` without `dataset=csv` would train on it and evaluate on the recipe's reviews."""
    dataset = config.dataset
    brought = (dataset.path or "").startswith("package:")
    if not brought or origin.typed("dataset.path"):
        return []
    hint = "Leave out dataset=." if "dataset" in origin.chosen else "Leave out dataset.format, or write dataset= too."
    return [
        Problem(
            f"dataset.{split}",
            f"is not part of dataset={dataset.name}",
            "command line",
            hint if origin.typed("dataset.train") else "Write dataset.train=FILE too.",
        )
        for split in ("train", "validation", "test")
        if getattr(dataset, split) and origin.typed(f"dataset.{split}")
    ]


def _files_are_what_is_read(config: Config, origin: Origin) -> list[Problem]:
    """Checks files named on the command line before torch is imported. The readers check every file again."""
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
        key, what = "dataset.fold", "needs dataset.folds, the number of folds"
        return [Problem(key, what, origin(key), "Write dataset.folds=5.")] if dataset.fold is not None else []
    problems = []
    if dataset.fold is not None and dataset.fold >= dataset.folds:
        what = f"must be 0 to {dataset.folds - 1}, got {dataset.fold}"
        problems.append(Problem("dataset.fold", what, origin("dataset.fold")))
    if dataset.fold is None and not config.trains:
        what = f"must be given: {config.command} works on one fold"
        problems.append(Problem("dataset.fold", what, origin("dataset.folds"), "Write dataset.fold=0."))
    if dataset.test:
        hint = "Write dataset.test=null, or evaluate the runs on it later: llmft eval FOLDER ensemble=mean."
        problems.append(
            Problem(
                "dataset.test", "must be unset: with folds, each fold is a test split", origin("dataset.test"), hint
            )
        )
    if dataset.streaming:
        what = "does not work with dataset.folds, which needs all rows in memory"
        problems.append(Problem("dataset.streaming", what, origin("dataset.streaming"), "Leave out one of the two."))
    return problems


def _groups_are_in_memory(config: Config, origin: Origin) -> list[Problem]:
    key = "dataset.columns.group"
    if config.dataset.streaming and "group" in config.dataset.columns:
        what = "has no effect: streamed rows are not split, so groups stay together"
        return [Problem(key, what, origin(key), "Leave it out.")]
    return []


def _a_split_by_time_takes_shares(config: Config, origin: Origin) -> list[Problem]:
    key, dataset = "dataset.split.by", config.dataset
    if dataset.split.by is None:
        return []
    shared = any(not getattr(dataset, name) and getattr(dataset.split, name) for name in ("validation", "test"))
    for wrong, what, hint in (
        (dataset.folds, "does not work with dataset.folds, which are drawn at random", "Leave out one of the two."),
        ("group" in dataset.columns, "does not work with a group column", "Leave out dataset.columns.group."),
        (origin.typed("dataset.split.stratify"), "does not work with dataset.split.stratify", "Leave out one of them."),
        (config.task.pretrains, f"{config.task.name} reads documents, which have no columns", "Leave it out."),
        # A recipe may say how splits are taken, of files that somebody else names.
        (not shared and origin.typed(key), "has no effect: no split is taken from train", "Leave it out."),
    ):
        if wrong:
            return [Problem(key, what, origin(key), hint)]
    return []


def _a_baseline_sees_all_rows(config: Config, origin: Origin) -> list[Problem]:
    key = "task.baseline"
    if config.dataset.streaming and getattr(config.task, "baseline", None):
        what = "a baseline needs all rows in memory, and dataset.streaming=true reads them in parts"
        return [Problem(key, what, origin(key), "Leave out one of the two.")]
    return []


def _pretraining_is_on_raw_text(config: Config, origin: Origin) -> list[Problem]:
    if config.command != "pretrain" or config.task.pretrains:
        return []
    names = ", ".join(name for name, task in task_types().items() if task.pretrains)
    hint = f"Write llmft finetune; llmft pretrain is for {names}."
    return [Problem("task", f"{config.task.name} learns from labeled rows", origin("task.name"), hint)]


def _blocks_are_read_as_they_are(config: Config, origin: Origin) -> list[Problem]:
    dataset, name = config.dataset, config.task.name
    if not config.task.pretrains or not config.trains:
        return []
    found = {
        "dataset.columns.group": ("group" in dataset.columns, "documents have no columns; each stays in one split"),
        "model.freeze": (
            "encoder" in config.model.freeze,
            "each epoch cuts the text at other places, so the outputs of the encoder cannot be computed once",
        ),
        "adapter": (config.adapter.name == "prefix", f"adapter=prefix does not work with {name}"),
    }
    hints = {"model.freeze": "Write model.freeze=[embeddings,layers.0-3].", "adapter": "Write adapter=lora."}
    return [
        Problem(key, what, origin(key), hints.get(key, "Leave it out."))
        for key, (asked, what) in found.items()
        if asked
    ]


def _images_are_augmented(config: Config, origin: Origin) -> list[Problem]:
    if config.task.images or not config.augment.active:
        return []
    what = f"changes images, and task={config.task.name} has none"
    return [Problem("augment", what, origin("augment.name"), "Write augment=none, or leave it out.")]


def _labels_are_mixed(config: Config, origin: Origin) -> list[Problem]:
    if isinstance(config.task, TargetConfig):
        return []
    what = f"blends the labels of two images, and those of task={config.task.name} are places"
    return [
        Problem(f"augment.{key}", what, origin(f"augment.{key}"), f"Write augment.{key}=0, or leave it out.")
        for key in ("mixup", "cutmix")
        if config.task.images and getattr(config.augment, key)
    ]


LOSSES = {
    "single_label": ("cross_entropy", "focal"),
    "multi_label": ("cross_entropy", "focal"),
    "regression": ("mse", "mae", "huber"),
}
OF_LABELS = ("labels", "class_weights", "label_smoothing", "threshold", "calibrate")


def _metric_is_of_the_problem(config: Config, origin: Origin) -> list[Problem]:
    key, metric = "trainer.metric_for_best", config.trainer.metric_for_best
    known = (*config.task.metrics, *config.task.own_metrics)
    if not metric or metric not in METRICS or at_10(metric) in known:
        return []
    kind = getattr(config.task, "problem", config.task.name)
    hint = f"They are {', '.join(known)}."
    return [Problem(key, f"{metric} is not a metric of {kind}", origin(key), hint)]


def _keys_are_of_the_problem(config: Config, origin: Origin) -> list[Problem]:
    task = config.task
    if not isinstance(task, TargetConfig):
        return []
    problems = []
    if task.loss and task.loss not in (fitting := LOSSES[task.problem]):
        hint = f"Write task.loss={' or '.join(fitting)}."
        problems.append(Problem("task.loss", f"{task.loss} is not a loss of {task.problem}", origin("task.loss"), hint))
    elif task.loss == "focal" and task.label_smoothing:
        key = "task.label_smoothing"
        problems.append(
            Problem(key, "is only for cross_entropy, and task.loss is focal", origin(key), "Leave out one.")
        )
    for key, used, wanted in (
        ("separator", task.problem == "multi_label", "task.problem=multi_label"),
        ("focal_gamma", task.loss == "focal", "task.loss=focal"),
    ):
        if not used and origin.typed(f"task.{key}"):
            problems.append(
                Problem(f"task.{key}", f"is only used with {wanted}", origin(f"task.{key}"), "Leave it out.")
            )
    if task.problem == "regression":
        defaults = {key: TargetConfig.model_fields[key].default for key in OF_LABELS}
        problems += [
            Problem(
                f"task.{key}",
                "is only for labels, and task.problem is regression",
                origin(f"task.{key}"),
                "Leave it out.",
            )
            for key, default in defaults.items()
            if getattr(task, key) != default
        ]
    return problems


def _there_is_something_to_tune_on(config: Config, origin: Origin) -> list[Problem]:
    task, dataset = config.task, config.dataset
    if not isinstance(task, TargetConfig) or dataset.validation or dataset.split.validation or not config.trains:
        return []
    return [
        Problem(
            f"task.{key}",
            "needs validation rows, and there are none",
            origin(f"task.{key}"),
            "Write dataset.split.validation=0.1.",
        )
        for key, wanted in (("calibrate", task.calibrate), ("threshold", isinstance(task.threshold, str)))
        if wanted
    ]


RULES = (
    _images_are_augmented,
    _labels_are_mixed,
    _a_baseline_sees_all_rows,
    _a_split_by_time_takes_shares,
    _data_has_a_source,
    _headers_are_of_csv,
    _stream_can_be_read,
    _stream_is_of_whole_rows,
    _corpus_is_read_in_parts,
    _unit_is_of_text,
    _corpus_is_searched,
    _shots_are_of_labels,
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
