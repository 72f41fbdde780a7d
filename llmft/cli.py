"""The front door: the command word, help, and exit codes. Knows no task, imports no torch."""

import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module

from llmft import __version__
from llmft.config.folders import options, recipes

COMMANDS = {
    "finetune": "train a model on data, score it, and leave a run folder",
    "eval": "score a finished run, on its own data or on other data",
}
GROUPS = ("task", "model", "dataset", "optimizer", "scheduler", "trainer", "hardware")
DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 75


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 failed, 2 the user's input is wrong, 75 stopped by a signal with a checkpoint, 130 without one.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return DONE
    if words[0] == "--version":
        print(f"llmft {__version__}")
        return DONE
    command, words = words[0], words[1:]
    if command not in COMMANDS:
        from difflib import get_close_matches

        nearest = get_close_matches(command, COMMANDS, 1)
        hint = f"Did you mean {nearest[0]}?" if nearest else f"They are {', '.join(COMMANDS)}."
        return _wrong(f"no command called {command}. {hint}")
    if {"-h", "--help"} & set(words):
        print(_command_help(command))
        return DONE
    return _run(command, words)


def _run(command: str, words: list[str]) -> int:
    gc.disable()  # the collector took 0.12 of the 0.75 s of `--cfg job`, and start-up leaves no garbage
    from llmft.schema.problem import Failure, Stopped, UserError

    try:
        show, words = _flags(words)
        from llmft.config.load import load

        config = load(command, words)
        if show:
            import yaml

            print(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True, sort_keys=False), end="")
            return DONE
        gc.enable()
        run: Callable[..., None] = import_module(f"llmft.commands.{command}").run
        run(config)
    except UserError as error:
        return _wrong(str(error))
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return FAILED
    except Stopped as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # `llmft ... | head` has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  what Python flushes at its end goes nowhere
        return FAILED
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return DONE


def _flags(words: list[str]) -> tuple[bool, list[str]]:
    """Whether `--cfg job` was asked for, and the words without it."""
    from llmft.schema.problem import Problem, UserError

    show = False
    rest = []
    remaining = iter(words)
    for word in remaining:
        if word in ("--cfg", "-c"):
            what = next(remaining, "")
            if what != "job":
                raise UserError(Problem(f"--cfg {what}", "shows no such part", "command line", "Write --cfg job."))
            show = True
        elif word.startswith("-"):
            raise UserError(
                Problem(word.partition("=")[0], "no such flag", "command line", "They are --cfg job and --help.")
            )
        else:
            rest.append(word)
    return show, rest


def _wrong(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return WRONG_INPUT


def _help() -> str:
    commands = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
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
  llmft eval outputs/bert_textcls/RUN

`llmft COMMAND --help` lists the groups and their options; docs/config.md lists every key."""


def _command_help(command: str) -> str:
    groups = "\n".join(f"  {group:<10} {', '.join(options(group))}" for group in GROUPS)
    usage = "RUN [dataset=OPTION]" if command == "eval" else "[+recipe=NAME | FILE.yaml] [GROUP=OPTION ...]"
    return f"""llmft {command}: {COMMANDS[command]}

usage: llmft {command} {usage} [KEY=VALUE ...]

recipes
  {", ".join(recipes())}

groups and their options
{groups}

flags
  --cfg job  print the whole checked configuration, run nothing
  --help     this text"""
