"""`llmft --help`, and a page for each command. What can be read from the vocabulary and the folders is."""

import textwrap
from collections.abc import Iterable

from llmft import __version__
from llmft.config.folders import groups, options, recipes
from llmft.front.vocabulary import vocabulary
from llmft.schema.command import AT_ONCE, COMMANDS

WIDTH = 100
EXIT_CODES = {
    "0": "done",
    "1": "failed",
    "2": "the configuration or the data are wrong; every problem is printed, with its place",
    "75": "stopped by a signal, with a checkpoint; resume=true goes on",
    "130": "interrupted without a checkpoint",
}
ENVIRONMENT = {
    "LLMFT_CACHE": "the folder of prepared data; ~/.cache/llmft",
    "LLMFT_CACHE_GB": "how much it may hold; 20",
}
RUN = {
    "config.yaml": "what ran, as a recipe",
    "metrics.json": "scores and times",
    "predictions/": "every answer, a line a row",
    "model/": "weights, tokenizer, task.json; of finetune and pretrain",
    "report.html": "the same to look at; README.md is the model card",
}


def overview() -> str:
    """`llmft --help`."""
    commands = {name: command.what for name, command in (COMMANDS | AT_ONCE).items()}
    return f"""llmft {__version__}: train, adapt and ship models; every choice is a line of YAML.

usage: llmft COMMAND [+recipe=NAME] [GROUP=OPTION ...] [KEY=VALUE ...]

commands
{_pairs(commands)}

recipes
{filled(", ".join(recipes()))}

examples
  llmft finetune +recipe=bert_textcls
  llmft finetune +recipe=bert_textcls dataset=csv dataset.train=mine.csv optimizer.lr=3e-5
  llmft finetune +recipe=bert_textcls smoke=true      a tiny model for a few steps: does it run?
  llmft finetune +recipe=bert_textcls --cfg job       print every choice, run nothing
  llmft finetune -m +recipe=bert_textcls optimizer.lr=1e-5,3e-5 seed=0,1,2      six runs and a table
  llmft finetune +recipe=tabular_mlp dataset.folds=5                            cross-validation
  llmft finetune +recipe=tabular_mlp search=tpe 'optimizer.lr=log(1e-5,1e-1)'   a search
  llmft pretrain +recipe=gpt_clm            a language model from nothing, on raw text
  llmft eval outputs/bert_textcls/RUN
  llmft eval RUN RUN RUN ensemble=mean      several runs answer together
  llmft predict outputs/bert_textcls/RUN predict.text='Lovely. It broke.'
  llmft export outputs/bert_textcls/RUN export.precision=int8

`llmft COMMAND --help` explains a command, its groups and its keys; docs/config.md lists every key."""


def page(name: str) -> str:
    """`llmft COMMAND --help`, in the order of a man page."""
    command = (COMMANDS | AT_ONCE)[name]
    parts = [("NAME", filled(f"llmft {name} - {command.what}")), ("SYNOPSIS", filled(_synopsis(name)))]
    if command.about:
        parts.append(("DESCRIPTION", filled(command.about)))
    if name in COMMANDS:
        if not command.of_a_run or "dataset" in command.keys:
            chosen = [group for group in groups(name) if not command.of_a_run or group in command.keys]
            parts.append(("GROUPS AND THEIR OPTIONS", _pairs({group: ", ".join(options(group)) for group in chosen})))
        if command.used:
            parts.append(("KEYS", _keys(command.used)))
        if not command.of_a_run:
            parts.append(("RECIPES", filled(", ".join(recipes(name)))))
        parts.append(("FLAGS", _pairs(_flags(name))))
    if command.examples:
        parts.append(("EXAMPLES", "\n".join(f"  {example}" for example in command.examples)))
    if name in COMMANDS:
        if not command.of_a_run or "run.dir" in command.keys:
            parts.append(("FILES OF A RUN", _pairs(RUN)))
        if not command.of_a_run:
            parts.append(("ENVIRONMENT", _pairs(ENVIRONMENT)))
        codes = {code: text for code, text in EXIT_CODES.items() if code != "75" or not command.of_a_run}
        parts.append(("EXIT CODES", _pairs(codes)))
    return "\n\n".join(f"{title}\n{text}" for title, text in parts)


def _synopsis(name: str) -> str:
    usage = {"recipes": "[show NAME | copy NAME [TO]]", "completion": "bash | zsh | fish"}
    if name in usage:
        return f"llmft {name} {usage[name]}"
    if not COMMANDS[name].of_a_run:
        return f"llmft {name} [-m] [+recipe=NAME | FILE.yaml] [GROUP=OPTION ...] [KEY=VALUE ...] [--cfg job]"
    chosen = "[dataset=OPTION] " if "dataset" in COMMANDS[name].keys else ""
    return f"llmft {name} RUN {chosen}[KEY=VALUE ...] [--cfg job]"


def _flags(name: str) -> dict[str, str]:
    sweep = "sweep: every combination of the values in KEY=A,B  KEY=range(3)  +recipe=glob(*)"
    return ({} if COMMANDS[name].of_a_run else {"-m": sweep}) | {
        "--cfg job": "print the whole checked configuration, run nothing",
        "--help": "this page",
    }


def _keys(names: Iterable[str]) -> str:
    """Each key with its default, its values and its text."""
    known, lines = vocabulary(), []
    for name in names:
        key = known[name]
        values = "|".join(key.values) or "VALUE"
        lines.append(f"  {name}={values}" + (f"  [{key.default}]" if key.default else ""))
        lines.append(filled(key.text, 6))
    return "\n".join(lines)


def _pairs(pairs: dict[str, str]) -> str:
    width = max(map(len, pairs)) + 2
    return "\n".join(filled(f"{name:<{width}}{text}", 2, width) for name, text in pairs.items())


def filled(text: str, indent: int = 2, hanging: int = 0) -> str:
    """`text` in lines of at most WIDTH, the later ones `hanging` further in."""
    kept = textwrap.TextWrapper(
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return kept.fill(text)
