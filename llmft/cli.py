"""The front door: the command word, help, and exit codes. Knows no task, imports no torch."""

import gc
import os
import shlex
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from llmft import __version__
from llmft.schema.command import AT_ONCE, COMMANDS

if TYPE_CHECKING:
    from llmft.schema.job import Job
    from llmft.schema.space import Space


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 failed, 2 the user's input is wrong, 75 stopped by a signal with a checkpoint, 130 without one.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        from llmft.front import help

        print(help.page(words[1]) if words[1:2] and words[1] in COMMANDS | AT_ONCE else help.overview())
        return 0
    if words[0] == "--version":
        print(f"llmft {__version__}")
        return 0
    command, words = words[0], words[1:]
    if command not in COMMANDS | AT_ONCE:
        from llmft.front.nearest import nearest

        print(f"error: no command called {command}. {nearest(command, [*COMMANDS, *AT_ONCE])}", file=sys.stderr)
        return 2
    if {"-h", "--help"} & set(words) and words[:1] != ["words"]:
        return main(["help", command])
    return _run(command, words)


def _run(command: str, words: list[str]) -> int:
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported: libraries draw no bars of their own
    gc.disable()  # the collector took 0.12 of the 0.75 s of `--cfg job`, and start-up leaves no garbage
    from llmft.runs.ending import ending

    if command in AT_ONCE:
        return ending(lambda: import_module(f"llmft.front.{command}").run(words))
    return ending(lambda: _work(command, words))


def _work(command: str, words: list[str]) -> None:
    show, multirun, words = _flags(command, words)
    jobs = _jobs(command, words, multirun)
    if show:
        _show(jobs if isinstance(jobs, list) else [jobs.first])
        return
    gc.enable()
    first = (jobs[0] if isinstance(jobs, list) else jobs.first).config
    if first.show:
        import_module("llmft.commands.show").run(first)
    elif not isinstance(jobs, list):
        import_module("llmft.commands.search").run(jobs, shlex.join(["llmft", command, *words]))
    elif jobs[0].values:
        import_module("llmft.commands.sweep").run(jobs, shlex.join(["llmft", command, "-m", *words]))
    else:
        import_module(f"llmft.commands.{command}").run(first)


def _jobs(command: str, words: list[str], multirun: bool) -> "list[Job] | Space":
    """What is to do: one job without values, those of a sweep, or a search."""
    if COMMANDS[command].of_a_run:
        from llmft.config.load import load
        from llmft.schema.job import Job

        return [Job({}, load(command, words))]
    from llmft.config.search import plan

    return plan(command, words, multirun)


def _show(jobs: "list[Job]") -> None:
    """Print the whole configuration of each job as YAML."""
    import yaml

    from llmft.schema.job import told
    from llmft.schema.renewed import escaped

    for job in jobs:
        if job.values:
            print(f"--- # {told(job.values)}")
        print(yaml.safe_dump(escaped(job.config.model_dump(mode="json")), allow_unicode=True, sort_keys=False), end="")


def _flags(command: str, words: list[str]) -> tuple[bool, bool, list[str]]:
    """Whether `--cfg job` and `-m` were given, and the words without them."""
    from llmft.schema.problem import Problem, UserError

    show = multirun = False
    rest = []
    remaining = iter(words)
    for word in remaining:
        if word in ("--cfg", "-c"):
            what = next(remaining, "")
            if what != "job":
                raise UserError(Problem(f"--cfg {what}", "shows no such part", "command line", "Write --cfg job."))
            show = True
        elif word in ("--multirun", "-m"):
            if COMMANDS[command].of_a_run:
                raise UserError(Problem(word, f"is for finetune; {command} works from one run", "command line"))
            multirun = True
        elif word.startswith("-"):
            hint = "They are -m, --cfg job and --help."
            raise UserError(Problem(word.partition("=")[0], "no such flag", "command line", hint))
        else:
            rest.append(word)
    return show, multirun, rest
