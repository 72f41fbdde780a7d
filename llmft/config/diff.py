"""How a config differs from the defaults (`--cfg diff`), and from the recipe that it started from (`best.yaml`)."""

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


def diff(command: str, words: list[str], multirun: bool = False) -> str:
    """A line for each key that the overrides change, except for the task: key, value, place, default.

    For a command that works from a run, the differences from that run.

    Raises:
        UserError: with every problem of the config, and for a sweep.
    """
    if multirun:
        raise UserError(
            Problem("--cfg diff", "works on a single run", "command line", "Write --cfg job to see all jobs.")
        )
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
    lines_of = {key: f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in changed.items()}
    width = min(max(map(len, lines_of.values())), 60)
    lines = []
    for key, text in lines_of.items():
        default = f", instead of {json.dumps(old[key], ensure_ascii=False)}" if old.get(key) is not None else ""
        lines.append(f"{text:<{width}}  # {where(key)}{default}\n")
    return "".join(lines)


WHOLE = {"model": (), "task": ("name",), "dataset": ("format",)}
"""Sections that are written completely if one of these keys differs, or any key: the rest of the section depends on
it."""


def shorten(command: str, arguments: list[str]) -> Callable[[Config], str]:
    """A function that writes a config made by these overrides as a short recipe.

    The recipe is composed once to check that it gives the same config. If it does not, as with the small sizes of
    `smoke=true`, all keys are written. A recipe given by its path is not included by name, because best.yaml lies
    elsewhere.
    """
    overrides = dict(word.lstrip("+").partition("=")[::2] for word in arguments)
    recipe = overrides.get("recipe")
    chosen = {group: overrides[group] for group in groups(command) if group in overrides and group != "search"}

    @cache
    def shortened(text: str) -> str:
        with no_config_dir():  # best.yaml may be used without it
            return _short(text)

    def _short(text: str) -> str:
        now = yaml.safe_load(text)
        # The second try names no options: some are only valid together with keys of the command line.
        for choices in (chosen, {}):
            if (before := _base(command, recipe, choices)) is None:
                continue
            begin = [*([recipe] if recipe else []), *({f"override /{key}": value} for key, value in choices.items())]
            head = {"defaults": [*begin, "_self_"]} if begin else {}
            tree = head | {"command": command, "name": now["name"]} | _changed(before, now)
            short = "# @package _global_\n" + yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
            if _composes_to(command, short, text):
                return short
        return text

    return lambda config: shortened(as_recipe(config))


def _base(command: str, recipe: str | None, choices: dict[str, str]) -> dict[str, Any] | None:
    """The config of the recipe with these options, or None if that is not a valid config by itself."""
    words = [f"+recipe={recipe}"] if recipe else []
    try:
        tree = compose(command, words + [f"{group}={option}" for group, option in choices.items()]).tree
        config = Config.model_validate({"name": tree["task"]["name"], **tree, "command": command, "expect": None})
    except (UserError, ValidationError):
        return None
    found: dict[str, Any] = yaml.safe_load(as_recipe(config))
    return found


def _changed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The sections and keys of `now` that differ. A table inside a section is written completely."""
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


def _composes_to(command: str, text: str, wanted: str) -> bool:
    """Whether a recipe composes to the config `wanted`, given as a recipe."""
    with TemporaryDirectory(prefix="llmft-") as folder:
        file = Path(folder, "best.yaml")
        file.write_text(text, encoding="utf-8")
        try:
            # Composed like any recipe: only this shows that no default or rule changes a key that was left out.
            return as_recipe(checked(command, compose(command, [str(file)]))) == wanted
        except UserError:
            return False
