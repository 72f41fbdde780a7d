"""From a composed tree to a checked Config: every problem at once, with its place and the nearest right name."""

import codecs
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ValidationError

from llmft.schema.config import NAME, Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import Problem, UserError
from llmft.schema.section import section_of
from llmft.schema.task import TaskConfig, task_type

Origin = Callable[[str], str]


def check(tree: dict[str, Any], origin: Origin, problems: list[Problem] | None = None) -> Config:
    """The Config that a tree says.

    Args:
        tree: plain sections and values.
        origin: where a dotted key was set.
        problems: found before; they are raised together with what is found here.

    Raises:
        UserError: with every problem of the tree.
    """
    problems = list(problems or [])
    config = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems += _problems(error, tree, origin)
    if config:
        problems += [problem for rule in RULES for problem in rule(config, origin)]
    if problems or config is None:
        raise UserError(problems)
    return config


def keys(model: type[BaseModel], prefix: str = "", task: type[TaskConfig] | None = None) -> list[str]:
    """Every dotted key of the vocabulary; `task` is the section that `task` stands for."""
    found = []
    for name, field in model.model_fields.items():
        section = task if name == "task" and task else section_of(field.annotation)
        found.append(f"{prefix}{name}")
        if section:
            found += keys(section, f"{prefix}{name}.")
    return found


def _problems(error: ValidationError, tree: dict[str, Any], origin: Origin) -> list[Problem]:
    """pydantic's findings in our words; the branches of a union become one problem."""
    task = tree.get("task")
    names = keys(Config, task=task_type(str(task.get("name"))) if isinstance(task, dict) else None)
    merged: dict[str, tuple[list[str], Any, dict[str, Any]]] = {}
    for found in error.errors():
        path = [str(part) for part in found["loc"] if not _is_union_branch(part, found["loc"])]
        key = ".".join(path)
        kinds, _, context = merged.setdefault(key, ([], found["input"], {}))
        kinds.append(found["type"])
        context.update(found.get("ctx", {}), msg=found["msg"])
    return [_problem(key, kinds, value, context, names, origin) for key, (kinds, value, context) in merged.items()]


def _is_union_branch(part: Any, loc: tuple[Any, ...]) -> bool:
    """pydantic names the branch of a union in the place: ("trainer", "eval_every", "literal['epoch']")."""
    return (
        part == loc[-1]
        and len(loc) > 1
        and (str(part) in ("str", "int", "float") or str(part).startswith(("literal[", "list[")))
    )


def _problem(
    key: str, kinds: list[str], value: Any, context: dict[str, Any], names: list[str], origin: Origin
) -> Problem:
    where = origin(key)
    if "extra_forbidden" in kinds:
        return Problem(key, "no such key", where, _did_you_mean(key, names))
    if "missing" in kinds:
        return Problem(key, "must be given", where)
    if "no_task" in kinds:
        return Problem("task", f"no task called {context['name']}", where, f"They are {', '.join(context['options'])}.")
    shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
    wanted = [text for kind in kinds if (text := _wanted(kind, context))]
    if wanted:
        hint = (
            f"Put it into quotes: {_quotes(value)}."
            if "a text" in wanted and not isinstance(value, dict | list)
            else ""
        )
        return Problem(key, f"{shown} is not {' or '.join(dict.fromkeys(wanted))}", where, hint)
    return Problem(key, f"{shown}: {context['msg'][0].lower()}{context['msg'][1:]}", where)


def _quotes(value: Any) -> str:
    return f'\'"{value}"\' on the command line, "{value}" in YAML'


def _wanted(kind: str, context: dict[str, Any]) -> str:
    """What would have been right, after `is not`."""
    if kind == "literal_error":
        return f"one of {context['expected']}".replace("one of 'epoch'", "'epoch'")
    if kind == "string_pattern_mismatch" and context["pattern"] == NAME:
        return "a name: letters, digits, `.`, `-` and `_`, at most 64, first and last a letter or digit"
    families = {
        "float": "a number",
        "int": "a whole number",
        "bool": "true or false",
        "string": "a text",
        "list": "a list",
        "dict": "a table",
        "model": "a table",
        "tuple": "a list",
    }
    if kind.endswith(("_parsing", "_type", "_from_float")):
        return families.get(kind.split("_")[0], "")
    limits = {
        "greater_than": ("gt", "above"),
        "greater_than_equal": ("ge", "at least"),
        "less_than": ("lt", "below"),
        "less_than_equal": ("le", "at most"),
    }
    if kind in limits:
        bound, word = limits[kind]
        return f"{word} {context[bound]:g}"
    return ""


def _did_you_mean(key: str, names: list[str]) -> str:
    """The key of the same last name in another section, or the one that is spelt most alike."""
    leaf = key.rpartition(".")[2]
    same = [name for name in names if name.rpartition(".")[2] == leaf]
    section = [name for name in names if name.rpartition(".")[0] == key.rpartition(".")[0]]
    nearest = same[:1] or get_close_matches(key, section, 1, 0.6) or get_close_matches(key, names, 1, 0.7)
    return f"Did you mean {nearest[0]}?" if nearest else ""


# Rules across keys. Each looks at one thing and says what to write instead.


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


def _encoding_exists(config: Config, origin: Origin) -> list[Problem]:
    try:
        codecs.lookup(config.dataset.encoding)
    except LookupError:
        what = f"no encoding called {config.dataset.encoding}"
        return [
            Problem(
                "dataset.encoding",
                what,
                origin("dataset.encoding"),
                "Such as utf-8, gb18030, utf-16, latin-1.",
            )
        ]
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
    if origin("run.dir") != "command line" and (path.is_absolute() or ".." in path.parts):
        return [
            Problem(
                "run.dir",
                f"{folder!r} leaves the working directory",
                origin("run.dir"),
                "Give such a folder on the command line.",
            )
        ]
    outside = not Path(folder).resolve().is_relative_to(Path.cwd().resolve())
    if origin("run.dir") != "command line" and outside:
        return [Problem("run.dir", f"{folder!r} leads out of the working directory by a link", origin("run.dir"))]
    return []


def _warmup_said_once(config: Config, origin: Origin) -> list[Problem]:
    if config.scheduler.warmup_ratio and config.scheduler.warmup_steps:
        return [
            Problem(
                "scheduler.warmup_steps",
                "and scheduler.warmup_ratio are both given",
                origin("scheduler.warmup_steps"),
                "Set one of them to 0.",
            )
        ]
    return []


RULES = (
    _model_has_a_source,
    _data_has_a_source,
    _encoding_exists,
    _best_checkpoint_can_be_kept,
    _folders_stay_inside,
    _warmup_said_once,
)
