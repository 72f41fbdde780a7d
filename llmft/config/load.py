"""The config of a command: composed, checked, and made small for `smoke=true`. `eval` starts from the config of a
run."""

import json
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from llmft.config.check import check
from llmft.config.compose import Composed, compose
from llmft.config.overrides import parse
from llmft.config.precedence import GROUPS, Origin
from llmft.config.sources import read_yaml
from llmft.data.encodings import is_utf8
from llmft.runs.index import ROOT, SUMMARY, find_run, is_run
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config
from llmft.schema.migrate import migrate
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import TaskConfig, task_types

SOURCES = ("path", "train", "validation", "test")  # keys of the section `dataset` that name rows
# Eight steps of eight rows are two epochs of the 32 synthetic rows, with one evaluation and checkpoint in between.
STEPS = {
    "max_steps": 8,
    "batch_size": 8,
    "log_every": 1,
    "accumulation": 1,
    "eval_every": "epoch",
    "save_every": "epoch",
}
ROWS = 32
OWN_ROWS = 512  # of the user's own files: a few rows for each of a hundred labels


def load(command: str, arguments: list[str]) -> Config:
    """The checked config of a command with its overrides.

    Raises:
        UserError: with every problem at once.
    """
    if COMMANDS[command].needs_run:
        return _load_for_run(command, arguments)
    return checked(command, compose(command, arguments))


def checked(command: str, composed: Composed) -> Config:
    """The checked config of what was composed for a command.

    Raises:
        UserError: with every problem at once.
    """
    origin = origin_of(composed)
    if "name" not in composed.tree and isinstance(task := composed.tree.get("task"), dict):
        composed.tree["name"] = task.get("name", command)
    # A promised metric is for exactly the recipe's config: with another learning rate it means nothing.
    if not _keeps_promise(composed):
        composed.tree["expect"] = None
    problems = list(composed.problems)
    if (meant := composed.tree.get("command")) != command:
        problems.append(Problem("command", f"this recipe is for llmft {meant}", origin("command")))
    config = check(composed.tree | {"command": command}, origin, problems)
    if not config.smoke:
        return config
    if config.model.architecture is None and not any(key.startswith("model.") for key in composed.given):
        raise UserError(Problem("model.architecture", "must be given for smoke=true", origin("model.architecture")))
    # Checked again: sizes that were made small must still fit together, such as hidden_size and heads.
    return check(smoke(config, composed.given).model_dump(), origin)


# Overrides that do not affect the result, so that the recipe's promise still holds with them.
PROMISE_HOLDS = {"recipe", "name", "run", "resume", "show", "smoke", "tracking", "hardware.device", "dataset.cache"}
PROMISE_HOLDS |= {"trainer.keep", "trainer.keep_finished", "trainer.step_timeout", "trainer.eval_batch_size"}


def smoke(config: Config, given: frozenset[str]) -> Config:
    """`config` made small. Keys in `given`, those of the command line, stay as they are."""
    before: dict[str, Any] = config.model_dump()
    tree = config.model_dump() | {"expect": None}
    if not given & {"model.path", "model.init"}:
        kind, any_kind = str(config.model.architecture), config.task.tiny_sizes
        sizes = config.task.tiny_of.get(kind, {} if any_kind else config.task.tiny)
        tree["model"] = {
            "name": f"tiny-{config.model.architecture}",
            "architecture": config.model.architecture,
            "init": "random",
            "config": dict(sizes),
            "sizes": {} if sizes else dict(any_kind),
            "tokenizer": {**tree["model"]["tokenizer"], "path": None, "size": 512},
        }
    if not given & {"dataset.path", "dataset.train", "dataset.validation", "dataset.test"}:
        tree["dataset"] = {"name": "synthetic", "format": "synthetic", "max_overlap": 1.0, "max_rows": ROWS}
        for key in config.task.of_data:
            tree["task"].pop(key, None)
    else:
        tree["dataset"]["max_rows"] = OWN_ROWS
    tree["trainer"] |= STEPS
    tree["task"] |= {key: value for key, value in config.task.small.items() if f"task.{key}" not in given}
    for key in given:
        section, *path, last = key.split(".") if "." in key else ("", key)
        if section in ("model", "dataset", "trainer"):
            old, new = before[section], tree[section]
            for part in path:
                old, new = old[part], new.setdefault(part, {})
            new[last] = new.get(last, {}) | old[last] if isinstance(old[last], dict) else old[last]
    return Config.model_validate(tree)


def _keeps_promise(composed: Composed) -> bool:
    """Whether the config is the one for which the recipe promises a result."""
    expect = composed.tree.get("expect")
    same_seed = isinstance(expect, dict) and expect.get("seed") == composed.tree.get("seed", 0)
    changed = [
        key
        for key in composed.given | composed.chosen
        if not any(key == kept or key.startswith(f"{kept}.") for kept in PROMISE_HOLDS)
    ]
    return same_seed and changed in ([], ["seed"])


def origin_of(composed: Composed, default: str = "default") -> Origin:
    """Where the keys of a composed tree were set."""
    return Origin(lambda key: composed.place(key, default), composed.given, composed.chosen)


def _load_for_run(command: str, arguments: list[str]) -> Config:
    """The config of a run. Sections that are chosen again replace the run's, except for what GROUPS keeps; the command
    line wins.

    Several runs answer together as `ensemble` says; the config is that of the first.
    """
    if (not arguments or "=" in arguments[0]) and command == "serve":
        arguments = [*_models(arguments).values()][:1] + arguments
    elif command == "serve" and _models(arguments):
        hint = f"Write it into serve.models: {{NAME: {arguments[0]}, ...}}."
        raise UserError(Problem("RUN", "must be left out where serve.models names the runs", "command line", hint))
    if not arguments or "=" in arguments[0]:
        raise UserError(Problem("RUN", "must come first", "command line", f"Write llmft {command} outputs/NAME/STAMP."))
    named = list(takewhile(lambda word: "=" not in word, arguments))
    runs = members(named, sweeps=command == "eval")
    for word, found in zip(named, runs, strict=False):
        if len(named) == len(runs) and Path(word) != found:
            print(f"{word} is {found}", file=sys.stderr)
    run, trees = runs[0], [read_run(run) for run in runs]
    tree = trees[0]
    composed = compose(command, arguments[len(named) :], run=tree)
    section = task_types().get(str(tree.get("task", {}).get("name")), TaskConfig)
    decoding = [f"task.{key}" for key in section.decoding if command in ("predict", "eval", "serve")]
    problems, keys = list(composed.problems), (*COMMANDS[command].keys, *decoding)
    # The tokenizer, labels, and weights are those of training: changing other keys would have no effect, or break it.
    for key in sorted(composed.given | composed.chosen):
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in keys):
            what = f"is fixed by training; {command} accepts {', '.join(keys)}"
            problems.append(Problem(key, what, "command line"))
    other_data = "dataset" in composed.chosen or any(f"dataset.{key}" in composed.given for key in SOURCES)
    problems += differences(runs, trees, other_data)
    ensemble = composed.tree.pop("ensemble", None)
    if isinstance(ensemble, dict):
        ensemble["runs"] = [str(run) for run in runs]
    elif len(runs) > 1:
        hint = "Write ensemble=mean or ensemble=vote to combine their answers."
        problems.append(Problem("RUN", f"must be one run, got {len(runs)}", "command line", hint))
    # dataset=csv replaces the run's whole section, except for what GROUPS keeps: columns, and the cleaning of texts.
    for group in composed.chosen & tree.keys() & composed.tree.keys():
        before, tree[group] = tree[group], composed.tree[group]
        for part in GROUPS[group].kept if group in GROUPS else ():
            kept = before.get(part) if isinstance(before, dict) else None
            if kept and isinstance(tree[group], dict):
                given = _given_below(f"{group}.{part}", composed)
                tree[group][part] = {**kept, **given} if isinstance(kept, dict) else kept
    if isinstance(tree.get("model"), dict):
        tree["model"]["trust_remote_code"] = False  # the person who runs this command has to allow it again
    if isinstance(tree.get("hardware"), dict):
        tree["hardware"] |= {
            "processes": 1,
            "nodes": 1,
            "strategy": "ddp",
        }  # this machine may have fewer devices than training had
    for key in composed.given:
        if key.partition(".")[0] in composed.tree:
            _set(tree, key.split("."), _get(composed.tree, key.split(".")))
    if command == "predict" and "dataset.encoding" not in composed.given and isinstance(tree.get("dataset"), dict):
        file = Path(str(_get(composed.tree, ["predict", "input"])))
        # A pipe is UTF-8, and so is a file that decodes as UTF-8; any other file is like the training files.
        if not file.is_file() or is_utf8(file):
            tree["dataset"]["encoding"] = "utf-8"
    tree |= {"command": command, "expect": None, "search": None, "ensemble": ensemble}
    if command == "serve" and not tree.get("serve", {}).get("models"):
        # The word, not the run that it means now: the service looks for the newest run of it again.
        tree["serve"] = tree.get("serve", {}) | {"models": {tree["name"]: named[0]}}
    tree["run"] = {"dir": composed.tree.get("run", {}).get("dir"), "source": str(run)}
    place = str(run / "config.yaml")
    # Keys that were not typed come from the run, whatever place in configs/ the composition found for them.
    typed = tuple(f"{key}." for key in composed.given | composed.chosen)
    origin = Origin(lambda key: "command line" if f"{key}.".startswith(typed) else place, composed.given)
    return check(tree, origin, problems)


def _models(arguments: list[str]) -> dict[str, str]:
    """The runs that `serve.models` names on the command line."""
    words = [word for word in arguments if word.startswith("serve.models=")]
    found = parse(words)[-1].value() if words else {}
    return {str(name): str(run) for name, run in found.items()} if isinstance(found, dict) else {}


def read_run(run: Path) -> dict[str, Any]:
    """The config of a run as a tree, with present key names.

    Raises:
        UserError: if there is no run.
    """
    file = run / "config.yaml"
    tree = yaml.safe_load(read_yaml(file))
    if not isinstance(tree, dict):
        raise UserError(Problem(str(file), "is not a configuration"))
    return migrate(tree)


def _given_below(prefix: str, composed: Composed) -> dict[str, Any]:
    return {
        key.removeprefix(f"{prefix}."): _get(composed.tree, key.split("."))
        for key in composed.given
        if key.startswith(f"{prefix}.")
    }


def _get(tree: Any, path: list[str]) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _set(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


APART = ("name", "cache")  # keys of `dataset` that do not change which rows a run was trained on


def members(words: list[str], sweeps: bool) -> list[Path]:
    """The run folders that the words name, each as `find_run` finds it.

    Args:
        sweeps: whether the folder of a sweep, of folds, or of a search stands for all its finished runs, not for the
            best.

    Raises:
        UserError: for a word that names no run, a sweep without a finished run, and a run that is named twice.
    """
    found: list[Path] = []
    for word in words:
        folder = Path(word) if Path(word).exists() else ROOT / word
        summary = folder / SUMMARY
        if not sweeps or is_run(folder) or not summary.is_file():
            found.append(find_run(word))
            continue
        jobs = json.loads(summary.read_text(encoding="utf-8"))["jobs"]
        done = [folder / job["folder"] for job in jobs if job["status"] == "done"]
        if not done:
            raise UserError(Problem(str(folder), "is a sweep without a finished run", "command line"))
        found += done
    places = [folder.resolve() for folder in found]
    if twice := [folder for folder, place in zip(found, places, strict=True) if places.count(place) > 1]:
        raise UserError(Problem(str(twice[-1]), "is named twice; each run counts once", "command line"))
    return found


def differences(runs: list[Path], trees: list[dict[str, Any]], other_data: bool) -> list[Problem]:
    """Why the runs cannot be evaluated together: different tasks, different cleaning of texts, or test rows that some
    runs were trained on.

    Args:
        trees: the config of each run.
        other_data: whether the command line names the rows; then the user answers for rows that runs were trained on.
    """
    first, others = trees[0], list(zip(runs, trees, strict=True))[1:]
    problems = [
        Problem(str(run), f"has task.{key} {found}, and {runs[0]} has {wanted}", "command line")
        for key in ("name", "problem")
        for run, tree in others
        if (found := tree["task"].get(key)) != (wanted := first["task"].get(key))
    ]
    problems += [
        Problem(str(run), f"has dataset.clean.{key} {found}, and {runs[0]} has {wanted}", "command line")
        for key in ("unicode", "normalize")
        for run, tree in others
        if (found := _cleaning(tree, key)) != (wanted := _cleaning(first, key))
    ]
    if problems or other_data:
        return problems
    apart = [(run, changed) for run, tree in others if (changed := _changed(first["dataset"], tree["dataset"]))]
    if not apart:
        return []
    run, (key, before, now) = apart[0]
    more = f", as were {len(apart) - 1} more" if len(apart) > 1 else ""
    what = f"was trained on other rows{more}, maybe on the test rows: dataset.{key} is {now}, in {runs[0]} {before}"
    hint = "Name rows that no run has seen: dataset=csv dataset.test=NEW.csv."
    return [Problem(str(run), what, "command line", hint)]


def _cleaning(tree: dict[str, Any], key: str) -> Any:
    return (tree["dataset"].get("clean") or {}).get(key)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key that changes which rows are used and differs, with both values."""
    keys = sorted((before.keys() | now.keys()) - {*APART})
    return next(((key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)), None)
