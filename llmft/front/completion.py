"""`llmft completion bash|zsh|fish`: a script for the shell, which calls `llmft completion words ...` at each Tab."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from llmft.config.folders import FLAGS as DIR_FLAGS
from llmft.config.folders import config_dir, groups, options, recipes
from llmft.front.vocabulary import vocabulary
from llmft.schema.command import COMMANDS, WITHOUT_CONFIG
from llmft.schema.metric import METRICS
from llmft.schema.problem import Problem, UserError

# The scripts pass the words typed so far, the last one unfinished, and receive complete words, one per line.
BASH = r"""_llmft() {
    local line=${COMP_LINE:0:COMP_POINT} found
    local typed=${line##* } IFS=$'\n'
    local -a before
    IFS=' ' read -r -a before <<< "$line"
    [[ $line == *' ' ]] && before+=('')
    COMPREPLY=($(llmft completion words "${before[@]:1}" 2>/dev/null))
    # bash splits words at `=` and `:`, so only the part after them is completed.
    [[ $typed == *[=:]* ]] && COMPREPLY=("${COMPREPLY[@]#"${typed%"${typed##*[=:]}"}"}")
    for found in "${COMPREPLY[@]}"; do
        [[ $found == *[=./] ]] && compopt -o nospace 2>/dev/null
    done
}
complete -F _llmft llmft
"""
ZSH = r"""#compdef llmft
_llmft() {
    local -a found
    found=("${(@f)$(llmft completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -S '' -- ${(M)found:#*[=./]}
    compadd -- ${found:#*[=./]}
}
compdef _llmft llmft
"""
FISH = r"""function __llmft
    set -l before (commandline -opc)
    set -l last (commandline -ct)
    llmft completion words $before[2..-1] "$last" 2>/dev/null
end
complete -c llmft -f -a '(__llmft)'
"""
SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
FILES = {
    "dataset.train",
    "dataset.validation",
    "dataset.test",
    "dataset.path",
    "model.path",
    "model.tokenizer",
    "model.tokenizer.path",
    "predict.input",
    "predict.image",
    "predict.output",
    "run.dir",
}


def run(words: list[str]) -> None:
    """Print the script for a shell, or the words that can complete the last of `words`.

    Raises:
        UserError: for an unknown shell.
    """
    match words:
        case ["words", *typed]:
            for word in complete(typed):
                print(word)
        case [shell] if shell in SHELLS:
            print(SHELLS[shell], end="")
        case _:
            hint = f"Write llmft completion {' or '.join(SHELLS)}."
            raise UserError(
                Problem(" ".join(words) or "completion", "must be a shell", "command line", hint), "this command"
            )


def complete(typed: list[str]) -> list[str]:
    """The words that complete the last of `typed`; those that can be continued end in `=`, `.`, or `/`."""
    last = typed[-1] if typed else ""
    if typed[-2:-1] and typed[-2] in DIR_FLAGS:
        return [path for path in _paths(last) if path.endswith("/") and path.startswith(last)]
    with suppress(UserError), config_dir(typed[:-1]) as before:
        return _complete(before, last)
    return []  # --config-dir names no folder


def _complete(typed: list[str], last: str) -> list[str]:
    command, *before = typed or [""]
    if not command:
        found: Iterable[str] = [*COMMANDS, *WITHOUT_CONFIG, "help", "--help", "--version"]
    elif command == "help":
        found = [*COMMANDS, *WITHOUT_CONFIG, "docs", *recipes(), *groups("finetune"), *vocabulary()]
    elif command == "explain":
        found = [*vocabulary(), *COMMANDS, "+recipe=", *_runs(last), *_words("finetune", before, last)]
    elif command == "recipes":
        found = ["show", "copy"] if not before else recipes() if len(before) == 1 else []
    elif command == "runs":
        found = [*(["compare", "reproduce", "remove", "clean"] if not before else []), *_runs(last)]
    elif command == "push":
        found = [*(_runs(last) if not before else []), "to=", "private=false"]
    elif command == "completion":
        found = SHELLS if not before else []
    elif command in COMMANDS:
        found = _words(command, before, last)
    else:
        found = []
    return list(dict.fromkeys(word for word in found if word.startswith(last)))


def _words(command: str, before: list[str], last: str) -> Iterator[str]:
    """What may follow a command that has a config."""
    wanted = COMMANDS[command]
    key, equals, _ = last.partition("=")
    if wanted.needs_run and not before and not equals:
        yield from _runs(last)
    elif equals:
        yield from (f"{key}={value}" for value in _values(command, key, last.removeprefix(f"{key}=")))
    elif last.startswith("-"):
        yield from ["--help", "--cfg", "--config-dir", "--json", *([] if wanted.needs_run else ["-m", "--multirun"])]
    elif before[-1:] in (["--cfg"], ["-c"]):
        yield from ["job", "diff"]
    else:
        if not wanted.needs_run:
            yield "+recipe="
            yield from _paths(last, ".yaml") if last else []
        yield from _keys(command, last)


def _keys(command: str, last: str) -> Iterator[str]:
    """Groups and keys, one level deeper than `last`: first `optimizer=` and `optimizer.`, then `optimizer.lr=`."""
    allowed, chosen = COMMANDS[command].keys, groups(command)
    yield from (f"{group}=" for group in chosen if not allowed or group in allowed)
    # A section that is not a group, such as `predict`, belongs to the command that lists it.
    others = {key for other in COMMANDS.values() for key in other.keys} - {"name", "seed", *chosen}
    for key in vocabulary():
        if key in ("command", "run.source") or key.startswith("expect."):
            continue
        sections = {key, key.partition(".")[0], key.rpartition(".")[0]}
        if (allowed and not sections & set(allowed)) or (not allowed and key.partition(".")[0] in others):
            continue
        step = key.find(".", len(last))
        yield f"{key}=" if step < 0 else key[: step + 1]


def _values(command: str, key: str, value: str) -> Iterable[str]:
    if key == "+recipe":
        return recipes(command)
    if key in FILES:
        return _paths(value)
    if key.endswith(("metric", "metric_for_best")):
        return METRICS
    known = vocabulary().get(key)
    return options(key) if known is None and key.isidentifier() else known.values if known else ()


def _runs(last: str) -> Iterator[str]:
    """Folders of finished runs, newest first, names of runs, and other folders to descend into."""
    for folder in sorted(Path("outputs").glob("*/*"), reverse=True):
        if (folder / "model").is_dir():
            yield str(folder)
    yield from sorted({folder.parent.parent.name for folder in Path("outputs").glob("*/*/model")})
    yield from (path for path in _paths(last) if path.endswith("/"))


def _paths(start: str, suffix: str = "") -> Iterator[str]:
    """Files that end in `suffix`, and folders, whose path starts with `start`."""
    head = start[: start.rfind("/") + 1]
    try:
        found = sorted(Path(head or ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        return
    for path in found:
        if path.name.startswith(".") and not start[len(head) :].startswith("."):
            continue
        if path.is_dir():
            yield f"{head}{path.name}/"
        elif path.name.endswith(suffix):
            yield f"{head}{path.name}"
