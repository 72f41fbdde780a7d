"""The front door: the command word, help, and exit codes. Knows no task, imports no torch."""

import gc
import shlex
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from llmft import __version__
from llmft.config.folders import options, recipes
from llmft.schema.command import COMMANDS

if TYPE_CHECKING:
    from llmft.schema.job import Job
    from llmft.schema.space import Space

GROUPS = ("task", "model", "dataset", "optimizer", "scheduler", "trainer", "hardware", "search", "ensemble")


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 failed, 2 the user's input is wrong, 75 stopped by a signal with a checkpoint, 130 without one.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"llmft {__version__}")
        return 0
    command, words = words[0], words[1:]
    if command not in COMMANDS:
        from difflib import get_close_matches

        nearest = get_close_matches(command, COMMANDS, 1)
        hint = f"Did you mean {nearest[0]}?" if nearest else f"They are {', '.join(COMMANDS)}."
        return _wrong(f"no command called {command}. {hint}")
    if {"-h", "--help"} & set(words):
        print(_command_help(command))
        return 0
    return _run(command, words)


def _run(command: str, words: list[str]) -> int:
    gc.disable()  # the collector took 0.12 of the 0.75 s of `--cfg job`, and start-up leaves no garbage
    from llmft.runs.ending import ending

    return ending(lambda: _work(command, words))


def _work(command: str, words: list[str]) -> None:
    show, multirun, words = _flags(command, words)
    jobs = _jobs(command, words, multirun)
    if show:
        _show(jobs if isinstance(jobs, list) else [jobs.first])
        return
    gc.enable()
    if not isinstance(jobs, list):
        import_module("llmft.commands.search").run(jobs, shlex.join(["llmft", command, *words]))
    elif jobs[0].values:
        import_module("llmft.commands.sweep").run(jobs, shlex.join(["llmft", command, "-m", *words]))
    else:
        import_module(f"llmft.commands.{command}").run(jobs[0].config)


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

    for job in jobs:
        if job.values:
            print(f"--- # {told(job.values)}")
        print(yaml.safe_dump(job.config.model_dump(mode="json"), allow_unicode=True, sort_keys=False), end="")


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


def _wrong(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2


def _help() -> str:
    commands = "\n".join(f"  {name:<10} {command.what}" for name, command in COMMANDS.items())
    return f"""llmft {__version__}: train, adapt and ship models; every choice is a line of YAML.

usage: llmft COMMAND [+recipe=NAME] [GROUP=OPTION ...] [KEY=VALUE ...]

commands
{commands}

recipes    {", ".join(recipes())}

examples
  llmft finetune +recipe=bert_textcls
  llmft finetune +recipe=bert_textcls dataset=csv dataset.train=mine.csv optimizer.lr=3e-5
  llmft finetune +recipe=bert_textcls smoke=true      a tiny model for a few steps: does it run?
  llmft finetune +recipe=bert_textcls --cfg job       print every choice, run nothing
  llmft finetune -m +recipe=bert_textcls optimizer.lr=1e-5,3e-5 seed=0,1,2      six runs and a table
  llmft finetune +recipe=tabular_mlp dataset.folds=5                             cross-validation
  llmft finetune +recipe=tabular_mlp search=tpe 'optimizer.lr=log(1e-5,1e-1)'    a search for the best
  llmft eval outputs/bert_textcls/RUN
  llmft eval RUN RUN RUN ensemble=mean                the mean of several runs

`llmft COMMAND --help` lists the groups and their options; docs/config.md lists every key."""


def _command_help(command: str) -> str:
    groups = "\n".join(f"  {group:<10} {', '.join(options(group))}" for group in GROUPS)
    usage = "RUN [dataset=OPTION]" if COMMANDS[command].of_a_run else "[+recipe=NAME | FILE.yaml] [GROUP=OPTION ...]"
    return f"""llmft {command}: {COMMANDS[command].what}

usage: llmft {command} {usage} [KEY=VALUE ...]

recipes
  {", ".join(recipes())}

groups and their options
{groups}

flags
  -m         sweep: every combination of the values in KEY=A,B  KEY=range(3)  +recipe=glob(*); finetune only
  --cfg job  print the whole checked configuration, run nothing
  --help     this text"""
