"""How a configuration differs: from the defaults (`--cfg diff`), and from what a command named (`best.yaml`)."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from pydantic import ValidationError

from llmft.config.compose import compose
from llmft.config.folders import groups, no_config_dir
from llmft.config.load import checked, load, origin_of
from llmft.runs.folder import as_recipe, flat
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError


def differing(command: str, words: list[str], multirun: bool = False) -> str:
    """A line for each key that the words change, except for the task: key, value, place, default.

    For a command that works from a run, what differs from that run.

    Raises:
        UserError: with every problem of the configuration, and for a sweep.
    """
    if multirun:
        raise UserError(Problem("--cfg diff", "is for one run", "command line", "Write --cfg job to see all jobs."))
    if COMMANDS[command].needs_run:
        before: dict[str, Any] = load(command, [word for word in words if "=" not in word]).model_dump(mode="json")
        now = load(command, words).model_dump(mode="json")
        return _lines(before, now, lambda key: "command line", "the run")
    composed = compose(command, words)
    config = checked(command, composed)
    plain = compose(command, [f"task={config.task.name}"]).tree
    before = Config.model_validate({"name": config.task.name} | plain | {"command": command}).model_dump(mode="json")
    where = origin_of(composed)
    return _lines(before, config.model_dump(mode="json"), where, f"llmft {command} task={config.task.name}")


def _lines(before: dict[str, Any], now: dict[str, Any], where: Any, what: str) -> str:
    old, new = flat(before), flat(now)
    changed = {
        key: value for key, value in new.items() if old.get(key) != value and not key.startswith(("run.", "expect"))
    }
    if not changed:
        return f"nothing differs from {what}\n"
    shown = {key: f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in changed.items()}
    width = min(max(map(len, shown.values())), 60)
    lines = []
    for key, text in shown.items():
        default = f", in place of {json.dumps(old[key], ensure_ascii=False)}" if old.get(key) is not None else ""
        lines.append(f"{text:<{width}}  # {where(key)}{default}\n")
    return "".join(lines)


WHOLE = {"model": (), "task": ("name",), "dataset": ("format",)}
"""Sections that are written whole where one of these keys differs, or any key: each is then about something else."""


def brief(command: str, arguments: list[str]) -> Callable[[Config], str]:
    """What writes a configuration that came of these words as a short recipe.

    It is composed once to see that it gives the same configuration again. Where it does not, as with the small sizes of
    `smoke=true`, all keys are written. A recipe that was named by its path is not named: best.yaml lies elsewhere.
    """
    said = dict(word.lstrip("+").partition("=")[::2] for word in arguments)
    recipe = said.get("recipe")
    chosen = {group: said[group] for group in groups(command) if group in said and group != "search"}

    @cache
    def shortened(text: str) -> str:
        with no_config_dir():  # best.yaml may be used without it
            return _short(text)

    def _short(text: str) -> str:
        now = yaml.safe_load(text)
        for choices in (chosen, {}):
            if (before := _base(command, recipe, choices)) is None:
                continue
            begin = [*([recipe] if recipe else []), *({f"override /{key}": value} for key, value in choices.items())]
            head = {"defaults": [*begin, "_self_"]} if begin else {}
            tree = head | {"command": command, "name": now["name"]} | _changed(before, now)
            short = "# @package _global_\n" + yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
            if _gives(command, short, text):
                return short
        return text

    return lambda config: shortened(as_recipe(config))


def _base(command: str, recipe: str | None, choices: dict[str, str]) -> dict[str, Any] | None:
    """What the recipe says with these options, or None where that is not a configuration by itself."""
    words = [f"+recipe={recipe}"] if recipe else []
    try:
        tree = compose(command, words + [f"{group}={option}" for group, option in choices.items()]).tree
        config = Config.model_validate({"name": tree["task"]["name"], **tree, "command": command, "expect": None})
    except (UserError, ValidationError):
        return None
    found: dict[str, Any] = yaml.safe_load(as_recipe(config))
    return found


def _changed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The sections and keys of `now` that differ; a table inside a section is written whole."""
    found: dict[str, Any] = {}
    for name, value in now.items():
        old = before.get(name)
        if value == old or name == "run":
            continue
        if not isinstance(value, dict) or not isinstance(old, dict):
            found[name] = value
            continue
        keys = [key for key in value if key not in old or value[key] != old[key]]
        whole = name in WHOLE and (not WHOLE[name] or {*WHOLE[name]} & {*keys})
        found[name] = value if whole else {key: value[key] for key in keys}
    return found


def _gives(command: str, text: str, wanted: str) -> bool:
    """Whether a recipe means the configuration `wanted`, which is one too."""
    with TemporaryDirectory(prefix="llmft-") as folder:
        file = Path(folder, "best.yaml")
        file.write_text(text, encoding="utf-8")
        try:
            return as_recipe(checked(command, compose(command, [str(file)]))) == wanted
        except UserError:
            return False
