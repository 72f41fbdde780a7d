"""`llmft --help`, and a page for each command. Everything that can be is read from the schema and the config
folders."""

import textwrap
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from llmft import __version__
from llmft.config.folders import groups, option_file, options, recipes, shipped
from llmft.config.nearest import KEYS_ELSEWHERE
from llmft.front.vocabulary import Key, keys, vocabulary
from llmft.schema.command import COMMANDS, WITHOUT_CONFIG

WIDTH = 100
EXIT_CODES = {
    "0": "done",
    "1": "failed",
    "2": "wrong config or data; every problem is printed with its place",
    "75": "stopped by a signal after saving a checkpoint; continue with resume=true",
    "130": "interrupted without a checkpoint",
}
ENVIRONMENT = {
    "LLMFT_CACHE": "folder for prepared data  [~/.cache/llmft]",
    "LLMFT_CACHE_GB": "its largest size in GB  [20]",
}
RUN = {
    "config.yaml": "the whole config, as a recipe that repeats the run",
    "metrics.json": "metrics and times",
    "predictions/": "every answer, one line per row",
    "model/": "weights, tokenizer, task.json (finetune and pretrain)",
    "report.html": "metrics, mistakes, and curves in a page; README.md is the model card",
}


def overview() -> str:
    """`llmft --help`."""
    commands = {name: command.what for name, command in (COMMANDS | WITHOUT_CONFIG).items()}
    return f"""llmft {__version__}: train, evaluate, and export Hugging Face models; every key is a line of YAML.

usage: llmft COMMAND [+recipe=NAME] [GROUP=OPTION ...] [KEY=VALUE ...]

commands
{_pairs(commands)}

recipes
{filled(", ".join(recipes()))}

examples
  llmft finetune +recipe=bert_textcls
  llmft finetune +recipe=bert_textcls dataset.train=mine.csv optimizer.lr=3e-5
  llmft finetune +recipe=bert_textcls smoke=true      a tiny model for a few steps: a test
  llmft finetune +recipe=bert_textcls --cfg job       print the whole config, run nothing
  llmft finetune -m +recipe=bert_textcls optimizer.lr=1e-5,3e-5 seed=0,1,2      six runs and a table
  llmft finetune +recipe=tabular_mlp dataset.folds=5                            cross-validation
  llmft finetune +recipe=tabular_mlp search=tpe 'optimizer.lr=log(1e-5,1e-1)'   a search
  llmft pretrain +recipe=gpt_clm            a language model from scratch, on raw text
  llmft eval outputs/bert_textcls/RUN
  llmft eval RUN RUN RUN ensemble=mean      several runs answer together
  llmft predict outputs/bert_textcls/RUN predict.text='Lovely. It broke.'
  llmft export outputs/bert_textcls/RUN export.precision=int8

more help
  llmft COMMAND --help         a command, with its keys and examples
  llmft help optimizer.lr      a key: what it does, its default, which options set it
  llmft help dataset           a group: its options and keys
  llmft help bert_textcls      a recipe
  llmft help docs              the pages of the documentation
  llmft explain optimizer.lr +recipe=bert_textcls      every place that set a key, and why one won"""


def topic(name: str) -> str | None:
    """`llmft help NAME`, for a command, key, section, option, recipe, or page of the docs; None for anything else."""
    if name in COMMANDS | WITHOUT_CONFIG:
        return page(name)
    if name == "docs":
        return _pages()
    if name.startswith("docs/") and (file := shipped("docs") / f"{name[5:].removesuffix('.md')}.md").is_file():
        return file.read_text(encoding="utf-8").rstrip()
    if found := [key for key in keys() if key.name == name]:
        return "\n".join(_key_lines(name, found))
    group, _, option = name.partition("=")
    if option in options(group):
        return option_file(group, option).read_text(encoding="utf-8-sig").rstrip()
    if below := [key for key in keys() if key.name.startswith(f"{name}.")]:
        return _section(name, below)
    if name.removeprefix("+recipe=") in recipes():
        from llmft.front.recipes import explain

        return explain(name.removeprefix("+recipe="))
    full_names = [key.name for key in keys() if key.name.rpartition(".")[2] == name] or [KEYS_ELSEWHERE.get(name, "")]
    # `lr` is that of the optimizer: keys of a section inside a section are named with it.
    least = min(key.count(".") for key in full_names)
    full_names = [key for key in full_names if key.count(".") == least]
    return "\n".join(text for key in dict.fromkeys(full_names) if key and (text := topic(key))) or None


def topic_like(name: str) -> str:
    """A suggestion for an unknown topic."""
    groups = {key.name.rpartition(".")[0] for key in keys()} - {""}
    leaves = {key.name.rpartition(".")[2]: key.name for key in keys()}
    if found := get_close_matches(
        name, {key.name for key in keys()} | groups | {*COMMANDS, *WITHOUT_CONFIG, *recipes(), *leaves}, 3, 0.6
    ):
        return f"Did you mean {' or '.join(dict.fromkeys(leaves.get(word, word) for word in found))}?"
    return "Write a command, a key such as optimizer.lr, a group such as dataset, or a recipe."


def _key_lines(name: str, found: list[Key]) -> Iterator[str]:
    """The text of a key, and the options that set it."""
    yield from _variants(name, found)
    group, _, below = name.partition(".")
    values = {name: value for name in options(group) if (value := _option_value(group, name, below)) is not None}
    if values and below != "name":
        yield "set by options"
        yield _pairs({f"{group}={option}": str(value) for option, value in values.items()})


def _variants(name: str, found: list[Key]) -> Iterator[str]:
    """A key with its values, default, and text; once for all tasks that share them."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    of_task = {key.task: key for key in found}  # a task's own text comes after the inherited one, and replaces it
    for key in [of_task[task] for task in of_task if task or len(of_task) == 1]:
        alike.setdefault((key.text, key.default, _choices(key)), []).append(key.task)
    for (text, default, choices), tasks in alike.items():
        yield f"{name}={choices}" + (f"  [{default}]" if default else "")
        if tasks != [""]:
            yield filled(f"task: {', '.join(tasks)}")
        yield filled(text, 4)


def _option_value(group: str, option: str, below: str) -> object:
    """The value of a key in an option's file."""
    import yaml

    try:
        value = yaml.safe_load(option_file(group, option).read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeError):
        return None  # the command that uses the option reports what is wrong with it
    for name in below.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _section(name: str, below: list[Key]) -> str:
    """The options of a group with their descriptions, and all keys of a section."""
    parts = []
    if known := options(name):
        about = {option: _description(name, option) for option in known}
        parts.append(("OPTIONS", _pairs({f"{name}={option}": text for option, text in about.items()})))
    names = dict.fromkeys(key.name for key in below)
    lines = [line for key in names for line in _variants(key, [found for found in below if found.name == key])]
    parts.append(("KEYS", "\n".join(lines)))
    return "\n\n".join(f"{title}\n{text}" for title, text in parts)


def _description(group: str, option: str) -> str:
    """The description of an option: the first line of its file."""
    text = option_file(group, option).read_text(encoding="utf-8-sig", errors="replace")
    first = text.partition("\n")[0]
    comment = first.removeprefix("#").strip() if first.startswith("#") else ""
    return comment.partition(": ")[2] or comment


def _pages() -> str:
    """The pages of the documentation, and their folder."""
    folder = shipped("docs")
    titles = {
        f"docs/{file.stem}": file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for file in sorted(folder.glob("*.md"))
    }
    return f"PAGES\n{_pairs(titles)}\n\nThe pages are in {folder}; llmft help docs/tables prints one."


def page(name: str) -> str:
    """`llmft COMMAND --help`, in the order of a man page."""
    command = (COMMANDS | WITHOUT_CONFIG)[name]
    parts = [("NAME", filled(f"llmft {name} - {command.what}")), ("SYNOPSIS", filled(_synopsis(name)))]
    if command.about:
        parts.append(("DESCRIPTION", filled(command.about)))
    if name in COMMANDS:
        if not command.needs_run or "dataset" in command.keys:
            chosen = [group for group in groups(name) if not command.needs_run or group in command.keys]
            parts.append(("GROUPS AND THEIR OPTIONS", _pairs({group: ", ".join(options(group)) for group in chosen})))
        if command.used:
            parts.append(("KEYS", _keys(command.used)))
        if not command.needs_run:
            parts.append(("RECIPES", filled(", ".join(recipes(name)))))
        parts.append(("FLAGS", _pairs(_flags(name))))
    if command.examples:
        parts.append(("EXAMPLES", "\n".join(f"  {example}" for example in command.examples)))
    if name in COMMANDS:
        if not command.needs_run or "run.dir" in command.keys:
            parts.append(("FILES OF A RUN", _pairs(RUN)))
        if not command.needs_run:
            parts.append(("ENVIRONMENT", _pairs(ENVIRONMENT)))
        codes = {code: text for code, text in EXIT_CODES.items() if code != "75" or not command.needs_run}
        parts.append(("EXIT CODES", _pairs(codes)))
    return "\n\n".join(f"{title}\n{text}" for title, text in parts)


def _synopsis(name: str) -> str:
    usage = {
        "runs": "[WORD ...] | compare RUN RUN ... | reproduce RUN | remove RUN ... | clean",
        "recipes": "[show NAME | copy NAME [TO]]",
        "completion": "bash | zsh | fish",
        "explain": "KEY ... [COMMAND] [WORD ...] | KEY ... RUN [WORD ...]",
        "push": "RUN to=OWNER/NAME [private=false]",
    }
    if name in usage:
        return f"llmft {name} {usage[name]}"
    if not COMMANDS[name].needs_run:
        return f"llmft {name} [-m] [+recipe=NAME | FILE.yaml] [GROUP=OPTION ...] [KEY=VALUE ...] [--cfg job]"
    chosen = "[dataset=OPTION] " if "dataset" in COMMANDS[name].keys else ""
    return f"llmft {name} RUN {chosen}[KEY=VALUE ...] [--cfg job]"


def _flags(name: str) -> dict[str, str]:
    sweep = "sweep: a run for each combination of the values in KEY=A,B  KEY=range(3)  +recipe=glob(*)"
    return ({} if COMMANDS[name].needs_run else {"-m": sweep}) | {
        "--cfg job": "print the whole checked config, run nothing; --cfg job=SECTION prints one section",
        "--cfg diff": "print the keys that are not defaults, and where each was set",
        "--config-dir DIR": "use options DIR/GROUP/NAME.yaml and recipes DIR/recipe/NAME.yaml first; short -cd",
        "--json": "print one JSON object at the end, with results or problems; all else goes to stderr",
        "--help": "this page; --help KEY explains a key",
    }


def _keys(names: Iterable[str]) -> str:
    """Each key with its default, values, and text."""
    known, lines = vocabulary(), []
    for name in names:
        key = known[name]
        lines.append(f"  {name}={_choices(key)}" + (f"  [{key.default}]" if key.default else ""))
        lines.append(filled(key.text, 6))
    return "\n".join(lines)


def _choices(key: Key) -> str:
    """The values of a key as in a synopsis: `true|false`, `VALUE|all`, `VALUE`."""
    return "|".join([*(["VALUE"] if key.is_open or not key.values else []), *key.values])


def _pairs(pairs: dict[str, str]) -> str:
    width = max(map(len, pairs)) + 2
    return "\n".join(filled(f"{name:<{width}}{text}", 2, width) for name, text in pairs.items())


def filled(text: str, indent: int = 2, hanging: int = 0) -> str:
    """`text` in lines of at most WIDTH characters; all but the first are indented by `hanging` more.

    The backticks of Markdown are dropped: in a terminal, names of keys stand bare.
    """
    kept = textwrap.TextWrapper(
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return kept.fill(text.replace("`", ""))
