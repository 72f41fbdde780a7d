"""`--cfg diff`: what of a configuration is no default, and where it was set."""

import json
from typing import Any

from llmft.config.compose import compose
from llmft.config.load import checked, load, origin_of
from llmft.runs.folder import flat
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError


def differing(command: str, words: list[str], multirun: bool = False) -> str:
    """A line for each key that has another value than without the words, but for the task: key, value, place, default.

    For a command that works from a run, what differs from that run.

    Raises:
        UserError: with every problem of the configuration, and for a sweep.
    """
    if multirun:
        raise UserError(Problem("--cfg diff", "is for one run", "command line", "Write --cfg job to see all jobs."))
    if COMMANDS[command].of_a_run:
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
