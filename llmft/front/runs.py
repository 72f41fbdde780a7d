"""`llmft runs`: list the runs in outputs; compare, reproduce, and remove runs, and free disk space."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from llmft.config.nearest import nearest
from llmft.runs.index import ROOT, SUMMARY, Entry, find_run, is_run, nearest_names
from llmft.runs.listing import DAYS, FILTERS, free, leftovers, listing, remove, size
from llmft.schema.problem import Failure, Problem, UserError, plural

KINDS = ("checkpoints", "unfinished", "cache")


def run(words: list[str]) -> Any:
    """List runs, or do what the first word says.

    Returns:
        What was printed, as plain data for `--json`.

    Raises:
        UserError: for wrong arguments, and for unknown runs.
        Failure: if a reproduced run differs in any digit.
    """
    words = ["yes=true" if word in ("--yes", "-y") else word for word in words]  # what other tools call it
    action = words[0] if words and words[0] in KEYS.keys() - {"list"} else "list"
    return DO[action](*_parse(action, words[1:] if action != "list" else words))


KEYS = {
    "list": (*FILTERS, "sort", "dir"),
    "compare": ("html",),
    "reproduce": ("run.dir", "model.trust_remote_code"),
    "remove": ("yes",),
    "clean": ("yes", "days", "dir"),
}


def _parse(action: str, words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words without an equals sign, and the values of keys."""
    names, options, problems = [], {}, []
    for word in words:
        key, equals, value = word.partition("=")
        key = key.removeprefix("runs.")
        if not equals and not word.startswith("-"):
            names.append(word)
        elif equals and key in KEYS[action]:
            options[key] = value
        else:
            what = (
                "no such flag"
                if word.startswith("-")
                else f"llmft runs {'' if action == 'list' else action} has no such key".replace("  ", " ")
            )
            problems.append(Problem(key, what, "command line", nearest(key, KEYS[action])))
    if problems:
        raise UserError(problems, "this command")
    return names, options


def _list(words: list[str], options: dict[str, str]) -> list[dict[str, Any]]:
    root = Path(options.pop("dir", ROOT))
    if not root.is_dir() and root != ROOT:
        raise UserError(Problem(f"dir={root}", "no such folder", "command line"), "this command")
    sort = options.pop("sort", "when")
    found = listing(root, words, options, sort)
    _print_list(found, root, chosen=bool(words or options))
    return found


def _print_list(found: list[dict[str, Any]], root: Path, chosen: bool) -> None:
    from llmft.reporting.lines import aligned

    if not found:
        print(f"no {'matching ' if chosen else ''}run in {root}")
        return
    table = [["run", "when", "command", "status", "model", "data", "metric", "size"]]
    for one in found:
        value = "-" if one["score"] is None else f"{one['metric']} {one['score']:.4f}"
        value += " (validation)" if one["split"] == "validation" and one["score"] is not None else ""
        when = one["when"].rpartition(":")[0]
        cells = [one["run"], when, one["command"], one["status"], one["model"], one["data"], value]
        cells.append(format_bytes(one["bytes"]))
        table.append(["-" if cell is None else str(cell) for cell in cells])
    for row in aligned(table):
        print(row)
    print(f"\n{len(found)} {'run' if len(found) == 1 else 'runs'}, {format_bytes(sum(one['bytes'] for one in found))}")


def _compare(names: list[str], options: dict[str, str]) -> dict[str, Any]:
    if len(names) < 2:
        hint = "Write llmft runs compare RUN RUN; each is a folder or the name of a run."
        raise UserError(Problem("compare", "needs two runs or more", "command line", hint), "this command")
    folders = [find_run(name) for name in names]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(Problem(" ".join(names), "name the same run twice", "command line"), "this command")
    command = import_module("llmft.commands.compare")
    facts: dict[str, Any] = command.compare(folders, Path(options["html"]) if "html" in options else None)
    _print_comparison(facts, command.verdict)
    return facts


def _print_comparison(facts: dict[str, Any], verdict: Any) -> None:
    from llmft.reporting.lines import aligned

    names = [run["name"] for run in facts["runs"]]
    table = [["", *names]]
    table += [[key, *map(_short, values)] for key, values in facts["config"].items()]
    for split, scores in facts["scores"].items():
        table += [
            [f"{split} {metric}", *("-" if value is None else f"{value:.4f}" for value in values)]
            for metric, values in scores.items()
            if not metric.endswith(("_micro", "_samples"))
        ]
    for row in aligned(table):
        print(f"  {row}")
    print(f"\n  compared on the same {plural(facts['rows'], 'rows')} of {facts['split']}, by {facts['metric']}")
    for test in facts["tests"]:
        print(f"  {test['first']} and {test['second']}: {verdict(test)}")
    print(f"  page  {facts['page']}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _reproduce(names: list[str], options: dict[str, str]) -> dict[str, Any]:
    if len(names) != 1:
        raise UserError(
            Problem("reproduce", "needs exactly one run", "command line", "Write llmft runs reproduce RUN."),
            "this command",
        )
    folder = find_run(names[0])
    command = import_module("llmft.commands.reproduce")
    facts: dict[str, Any] = command.reproduce(
        folder, options.get("run.dir"), options.get("model.trust_remote_code") == "true"
    )
    print()
    for line in command.told(facts):
        print(f"  {line}")
    if not facts["same"]:
        raise Failure(f"{facts['new']} differs from {facts['run']}; reproduced.json in it lists the differences")
    return facts


def _remove(names: list[str], options: dict[str, str]) -> list[dict[str, Any]]:
    if not names:
        raise UserError(
            Problem("remove", "needs a run", "command line", "Write llmft runs remove RUN."), "this command"
        )
    folders = map(_check_removable, names)
    found: list[dict[str, Any]] = [{"folder": str(folder), "bytes": size(folder)} for folder in folders]
    for one in found:
        print(f"{one['folder']}  {format_bytes(one['bytes'])}")
    if not _confirm(options, f"remove {'it' if len(found) == 1 else 'them'}"):
        raise UserError(
            Problem("remove", "nothing was removed", "command line", "Write yes=true to confirm."), "this command"
        )
    for one in found:
        remove(Path(one["folder"]))
    print(f"removed, {format_bytes(sum(one['bytes'] for one in found))}")
    return found


def _check_removable(name: str) -> Path:
    """The folder of one run, sweep, or search. The name of a run is not enough, because it stands for the newest
    one."""
    for folder in (Path(name), ROOT / name):
        if is_run(folder) or (folder / SUMMARY).is_file():
            runs = [Entry(folder)] if is_run(folder) else [Entry(child) for child in folder.iterdir() if is_run(child)]
            # A link would be deleted while its target stays, which looks like freed space.
            if folder.is_symlink():
                raise UserError(Problem(name, "is a link; write the folder itself", "command line"), "this command")
            if held := [entry for entry in runs if entry.is_held]:
                what = f"is in use by a running process, {held[0].folder}"
                raise UserError(Problem(name, what, "command line"), "this command")
            return folder
        if folder.is_dir():
            what = "is not the folder of one run"
            hint = f"Write one of its runs; llmft runs {folder.name} lists them."
            raise UserError(Problem(name, what, "command line", hint), "this command")
    raise UserError(Problem(name, "no such folder", "command line", nearest_names(name)), "this command")


def _clean(names: list[str], options: dict[str, str]) -> list[dict[str, Any]]:
    if wrong := [name for name in names if name not in KINDS]:
        raise UserError(
            Problem(wrong[0], f"must be one of {', '.join(KINDS)}", "command line", nearest(wrong[0], KINDS)),
            "this command",
        )
    try:
        days = float(options.get("days", DAYS))
    except ValueError as error:
        raise UserError(
            Problem("days", f"must be a number, got {options['days']!r}", "command line"), "this command"
        ) from error
    root = Path(options.get("dir", ROOT))
    found = [one for one in leftovers(root, days) if not names or one["kind"] in names]
    confirmed = options.get("yes") == "true"
    for one in found:
        if confirmed:
            free(one)
        one["removed"] = confirmed
    _print_leftovers(found, confirmed)
    return found


def _print_leftovers(found: list[dict[str, Any]], confirmed: bool) -> None:
    from llmft.reporting.lines import aligned

    for row in aligned([[one["kind"], format_bytes(one["bytes"]), one["folder"], one["why"]] for one in found]):
        print(row)
    total = format_bytes(sum(one["bytes"] for one in found))
    if not found:
        print("nothing to free")
    elif confirmed:
        print(f"\nfreed {total}")
    else:
        print(
            f"\n{total} can be freed; nothing was removed. Write yes=true to free it,"
            f" with {', '.join(KINDS)} for only a part."
        )


def _confirm(options: dict[str, str], what: str) -> bool:
    """Whether the user agrees: by yes=true, or when asked in a terminal."""
    if "yes" in options or sys.stdin is None or not sys.stdin.isatty():
        return options.get("yes") == "true"
    return input(f"{what}? [y/N] ").strip().lower() in ("y", "yes")


def format_bytes(count: int) -> str:
    """A number of bytes with its unit, such as `1.2 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


DO: dict[str, Callable[[list[str], dict[str, str]], Any]] = {
    "list": _list,
    "compare": _compare,
    "reproduce": _reproduce,
    "remove": _remove,
    "clean": _clean,
}
