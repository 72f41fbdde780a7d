"""Checks a composed tree against the schema: every problem at once, with its place and the nearest right name."""

import re
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from llmft.config.nearest import KEYS_ELSEWHERE
from llmft.config.precedence import Origin
from llmft.config.rules import RULES
from llmft.schema.config import NAME, Config
from llmft.schema.problem import Problem, UserError, plural
from llmft.schema.section import section_of
from llmft.schema.tasks import TaskConfig, task_type, task_types

PATTERNS = {
    NAME: "a name: letters, digits, . - and _, at most 64, first and last a letter or digit",
    "^#[0-9a-fA-F]{6}$": "a color such as '#804080'",
    "^[0-9a-f]{64}$": "a sha256: 64 digits and letters from a to f",
}
"""What a text must be that does not have the form of a pattern."""


def check(tree: dict[str, Any], origin: Origin, problems: list[Problem] | None = None) -> Config:
    """The checked config of a tree.

    Args:
        tree: plain sections and values.
        origin: where a dotted key was set.
        problems: found earlier; they are raised together with new ones.

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
    """Every dotted key of the schema. `task` is the section class to use for the section `task`."""
    found = []
    for name, field in model.model_fields.items():
        section = task if name == "task" and task else section_of(field.annotation)
        found.append(f"{prefix}{name}")
        if section:
            found += keys(section, f"{prefix}{name}.")
    return found


def _problems(error: ValidationError, tree: dict[str, Any], origin: Origin) -> list[Problem]:
    """pydantic's errors as problems. The branches of a union become one problem: `must be a number or 'all'`."""
    task = tree.get("task")
    names = keys(Config, task=task_type(str(task.get("name"))) if isinstance(task, dict) else None)
    merged: dict[str, tuple[list[str], Any, dict[str, Any]]] = {}
    for found in error.errors():
        path = [str(part) for part in found["loc"] if not _is_union_branch(part, found["loc"])]
        key = ".".join(path)
        kinds, _, context = merged.setdefault(key, ([], found["input"], {}))
        kinds.append(found["type"])
        context.update(found.get("ctx", {}), msg=found["msg"])
    return [
        _problem(key, kinds, value, context, names, origin)
        for key, (kinds, value, context) in merged.items()
        if not any(other.startswith(f"{key}.") for other in merged)  # a problem inside of it says more
    ]


def _is_union_branch(part: Any, loc: tuple[Any, ...]) -> bool:
    """Whether a part of pydantic's location is a branch of a union: ("trainer", "eval_every", "literal['epoch']")."""
    if len(loc) == 1:
        return False
    return (part == loc[-1] and str(part) in ("str", "int", "float")) or str(part).startswith(
        ("literal[", "list[", "dict[", "constrained-", "function-")
    )


def _problem(
    key: str, kinds: list[str], value: Any, context: dict[str, Any], names: list[str], origin: Origin
) -> Problem:
    where = origin(key)
    if "extra_forbidden" in kinds:
        # Of optimzer.lr=1, pydantic names optimzer, which no place sets.
        below = sorted(word for word in origin.given if word.startswith(f"{key}.") and not origin.typed(key))
        key = below[0] if below else key
        return Problem(key, "no such key", origin(key), _did_you_mean(key, names))
    if "missing" in kinds:
        return Problem(key, "must be given", where)
    if "no_task" in kinds:
        return Problem("task", f"no task called {context['name']}", where, f"They are {', '.join(context['options'])}.")
    received = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
    expected = list(dict.fromkeys(text for kind in kinds if (text := _expected(kind, context))))
    if expected:
        if key == "resume" and isinstance(value, str):
            hint = f"To go on with a run: run.dir={value} resume=true."
            return Problem(key, f"must be true or false, got {received}", where, hint)
        quoted = "a text" in expected and not isinstance(value, dict | list)
        hint = f"Put it in quotes: {_quotes(value)}." if quoted else ""
        if isinstance(value, str) and re.search(r",|\(.*\)$", value):
            ranged = value.startswith(("interval(", "log("))
            hint = "For a search, write search=tpe." if ranged else "For a run with each of several values, write -m."
        # A number beyond a limit is beyond it in a list, too.
        limited = any(kind.startswith(("greater_than", "less_than")) for kind in kinds)
        if (
            "a list" in expected
            and not limited
            and isinstance(value, str | int | float)
            and not str(value).endswith(")")
        ):
            plain = re.fullmatch(r"[\w.,-]+", str(value))
            hint = f"Write {key}=[{value if plain else repr(value)}]."
        return Problem(key, f"must be {' or '.join(expected)}, got {received}", where, hint)
    message = str(context["msg"]).removeprefix("Value error, ")
    # A check of a whole section has the section as its value, which would hide the message.
    received = "" if key in Config.model_fields and isinstance(value, dict) else f", got {received}"
    return Problem(key, f"{message[0].lower()}{message[1:]}{received}", where)


def _quotes(value: Any) -> str:
    return f'\'"{value}"\' on the command line, "{value}" in YAML'


def _expected(kind: str, context: dict[str, Any]) -> str:
    """What was expected, after `must be`."""
    if kind == "literal_error":
        expected = str(context["expected"])
        return f"one of {expected}" if " or " in expected else expected
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(str(context["pattern"]), f"a text of the form {context['pattern']}")
    if kind in ("too_short", "too_long"):
        bound = context["min_length"] if kind == "too_short" else context["max_length"]
        what = "a list of" if context["field_type"] == "List" else "an object of"
        return f"{what} {'at least' if kind == 'too_short' else 'at most'} {plural(bound, 'values')}"
    families = {
        "float": "a number",
        "int": "a whole number",
        "bool": "true or false",
        "string": "a text",
        "list": "a list",
        "dict": "{KEY: VALUE, ...}",
        "model": "{KEY: VALUE, ...}",
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
    """The key with the same last name in another section, its name in other tools translated, or the most similar
    spelling."""
    section, _, leaf = key.rpartition(".")
    if section == "task" and (other := [name for name, found in task_types().items() if leaf in found.model_fields]):
        return f"It is a key of task={', '.join(sorted(other))}."
    same = [name for name in names if name.rpartition(".")[2] == leaf]
    same += [KEYS_ELSEWHERE[leaf]] if KEYS_ELSEWHERE.get(leaf) in names else []
    beside = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == section}
    alike = [beside[near] for near in get_close_matches(leaf, beside, 1, 0.6)]
    nearest = same[:1] or alike or get_close_matches(key, names, 1, 0.7)
    return f"Did you mean {nearest[0]}?" if nearest else ""
