"""The entry point: commands, help, flags, and exit codes. Knows no task and imports no torch."""

import gc
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from importlib import import_module
from typing import Any, TextIO

from llmft import __version__
from llmft.schema.command import COMMANDS, WITHOUT_CONFIG

HELP = {"-h", "--help"}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 failed, 2 the user's input is wrong, 75 stopped by a signal with a checkpoint, 130 without one.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if sys.platform == "win32":  # pipes have a regional encoding there, which lacks most scripts
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8")
    if "--json" in words and words[:2] != ["completion", "words"]:
        return _as_json([word for word in words if word != "--json"])
    return _main(words, {})


def _main(words: list[str], facts: dict[str, Any]) -> int:
    """Run a command, with the options and recipes of `--config-dir`."""
    from llmft.config.folders import config_dir
    from llmft.runs.ending import ending

    code: list[int] = []

    def answer() -> None:
        with config_dir(words if words[:2] != ["completion", "words"] else []) as rest:
            code.append(_answer(rest or words, facts))

    return ending(answer, facts) or sum(code)


def _answer(words: list[str], facts: dict[str, Any]) -> int:
    """Print help and the like; otherwise run the command, which adds its results to `facts`."""
    from llmft.runs.ending import DONE, FAILED, ending

    if not words or words[0] in (*HELP, "help"):
        return _help(words[1:])
    if words[0] == "--version":
        print(f"llmft {__version__}")
        return 0
    command, words = words[0], words[1:]
    if command not in COMMANDS | WITHOUT_CONFIG:
        from llmft.config.nearest import suggest_command

        facts["error"] = f"no command called {command}. {suggest_command(command)}"
        print(f"error: {facts['error']}", file=sys.stderr)
        return 2
    if HELP & set(words) and words[:1] != ["words"]:
        topics = [word for word in words if word not in HELP and "=" not in word and not word.startswith(("-", "+"))]
        return _help(topics if topics and command in COMMANDS else [command])
    if not words and command in COMMANDS and COMMANDS[command].trains:
        _help([command])
        return 2  # nothing to run: a script with empty variables must not see success
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # operations that Metal lacks run on the CPU
    os.environ.setdefault("TQDM_DISABLE", "1")  # read at the import of tqdm: libraries draw no progress bars
    gc.disable()  # garbage collection took 0.12 s of the 0.75 s of `--cfg job`, and start-up leaves no garbage
    unread = FAILED if command == "predict" else DONE  # with stdout closed, predict has lost its answers
    return ending(lambda: facts.update(_run(command, words)), facts, unread)


def _as_json(words: list[str]) -> int:
    """Run a command and print one JSON object at the end; everything that a person would read goes to stderr.

    The object has `command`, `exit_code`, and the results of the command, such as `folder` and `metrics`. If it failed,
    it has `error`, and for mistakes in the input `problems`, each with `key`, `what`, `where`, and `hint`.
    """
    facts: dict[str, Any] = {}
    answers = io.StringIO()  # the answers of predict, one per line, unless they go to a file
    stdout, place = sys.stdout, None
    sys.stdout.flush()
    with suppress(OSError):  # child processes write to file descriptor 1, so it has to be stderr, too
        place = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(answers if words[:1] == ["predict"] else sys.stderr):
            code = _main(words, facts)
    finally:
        if place is not None:
            os.dup2(place, 1)
            os.close(place)
    if answers.getvalue():
        facts["answers"] = [json.loads(line) for line in answers.getvalue().split("\n") if line]
    print(
        json.dumps({"command": words[0] if words else None, "exit_code": code} | facts, ensure_ascii=False), file=stdout
    )
    return code


def _help(topics: list[str]) -> int:
    from llmft.front import help

    if not topics:
        print(help.overview())
        return 0
    for topic in topics:
        if (text := help.topic(topic)) is None:
            print(f"error: no help on {topic}. {help.topic_like(topic)}", file=sys.stderr)
            return 2
        print(text)
    return 0


class _IgnoresClosedPipe:
    """Standard output of a command that writes a run folder: the command continues when `head` closes the pipe."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self._or_nowhere(lambda: self.stream.write(text))

    def flush(self) -> None:
        self._or_nowhere(self.stream.flush)

    def _or_nowhere(self, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _run(command: str, words: list[str]) -> dict[str, Any]:
    """Run the command; its results for `--json`."""
    if command in WITHOUT_CONFIG:
        found = import_module(f"llmft.front.{command}").run(words)
        return {} if found is None else {"result": found}
    from llmft import api

    stdout: Any = _IgnoresClosedPipe(sys.stdout)
    with nullcontext() if command in ("predict", "chat") else redirect_stdout(stdout):
        return api.facts_of(_work(command, words))


def _work(command: str, words: list[str]) -> Any:
    """Run the command or show its config; returns what the command returned."""
    from llmft import api

    shown, multirun, words = _flags(command, words)
    if shown is None:
        return api.work(command, words, multirun)
    if shown == "diff":
        from llmft.config.diff import diff

        return print(diff(command, words, multirun), end="")
    jobs = api.planned(command, words, multirun)
    return _show(jobs if isinstance(jobs, list) else [jobs.first], shown)


def _show(jobs: list[Any], section: str) -> None:
    """Print the config of each job as YAML, or the part below a dotted key."""
    import yaml

    from llmft.config.nearest import nearest
    from llmft.schema.job import as_overrides
    from llmft.schema.migrate import escape
    from llmft.schema.problem import Problem, UserError

    for job in jobs:
        if job.values:
            print(f"--- # {as_overrides(job.values)}")
        tree = escape(job.config.model_dump(mode="json"))
        for name in section.split(".") if section else ():
            if not isinstance(tree, dict) or name not in tree:
                hint = nearest(name, list(tree) if isinstance(tree, dict) else [])
                raise UserError(Problem(f"--cfg job={section}", "no such section or key", "command line", hint))
            tree = tree[name]
        tree = {section: tree} if section and not isinstance(tree, dict) else tree
        print(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), end="")


def _flags(command: str, words: list[str]) -> tuple[str | None, bool, list[str]]:
    """What `--cfg` shows (a section, everything if it is empty, or `diff`), whether `-m` was given, and the other
    words."""
    from llmft.config.habits import wrong_flag
    from llmft.schema.problem import Problem, UserError

    shown: str | None = None
    multirun = False
    rest = []
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if flag in ("--cfg", "-c"):
            what, _, section = (f"{value}" if equals else next(remaining, "")).partition("=")
            if what not in ("job", "diff") or (what == "diff" and section):
                hint = "--cfg job prints everything, --cfg job=SECTION one section, --cfg diff what is not a default."
                raise UserError(Problem(f"--cfg {what}".strip(), "must be job or diff", "command line", hint))
            shown = section or shown or "" if what == "job" else what
        elif flag in ("--package", "-p"):  # Hydra's flag for the section that `--cfg job` shows
            shown = value if equals else next(remaining, "")
        elif word in ("--multirun", "-m"):
            if COMMANDS[command].needs_run:
                raise UserError(Problem(word, f"is only for training; {command} works from one run", "command line"))
            multirun = True
        elif word.startswith("-") and word != "--resolve":  # values are always resolved
            raise UserError(wrong_flag(word))
        elif word != "--resolve":
            rest.append(word)
    return shown, multirun, rest
