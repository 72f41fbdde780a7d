"""`llmft recipes`: list the recipes with their measured results; `show` one, `copy` one to edit."""

import re
from pathlib import Path
from typing import Any

import yaml

from llmft.config.folders import option_file, recipe_file, recipes
from llmft.config.nearest import nearest
from llmft.front.help import filled
from llmft.schema.problem import Problem, UserError

OWN = Path("recipes")


def run(words: list[str]) -> None:
    """List all recipes, or show or copy one.

    Raises:
        UserError: for wrong arguments, an unknown recipe, or a file that exists already.
    """
    match words:
        case []:
            for name in recipes():
                print(_summary(name))
            print("\nllmft recipes show NAME    llmft recipes copy NAME    llmft COMMAND +recipe=NAME")
        case [name] if name not in ("show", "copy"):
            print(explain(name))
        case ["show", name]:
            print(_file(name).read_text(encoding="utf-8-sig"), end="")
        case ["copy", name]:
            copy(name, name)
        case ["copy", name, to]:
            copy(name, to)
        case _:
            hint = "Write llmft recipes, llmft recipes show NAME, or llmft recipes copy NAME [TO]."
            raise UserError(Problem(" ".join(words), "no such request", "command line", hint), "this command")


def explain(name: str) -> str:
    """What a recipe does, how to run it, and its file."""
    text = _file(name).read_text(encoding="utf-8-sig").rstrip()
    return f"{_summary(name)}\n    llmft {command_of(name)} +recipe={name}\n\n{text}"


def copy(name: str, to: str) -> None:
    """Copy a recipe to ./recipes/TO.yaml, or to TO if that is a .yaml file.

    Raises:
        UserError: if the file exists already, or cannot be written.
    """
    source = _file(name)
    file = Path(to) if to.endswith(".yaml") else OWN / f"{to}.yaml"
    if file.exists():
        hint = f"Write another name: llmft recipes copy {name} mine."
        raise UserError(Problem(str(file), "exists already", "command line", hint), "this command")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(Problem(str(file), str(error.strerror), "command line"), "this command") from error
    argument = f"+recipe={file.relative_to(OWN).with_suffix('').as_posix()}" if OWN in file.parents else file
    print(f"copied to {file}; edit it and run it with")
    print(f"  llmft {command_of(name)} {argument}")


def command_of(name: str) -> str:
    """The command that a recipe is for."""
    return str(_lookup(name, lambda tree: tree.get("command")) or "finetune")


def _file(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: if there is none.
    """
    if name in recipes():
        return recipe_file(name)
    raise UserError(Problem(name, "no such recipe", "command line", nearest(name, recipes())), "this command")


def _summary(name: str) -> str:
    """What a recipe does, the result that it promises, and its model."""
    text = _file(name).read_text(encoding="utf-8-sig", errors="replace")
    comments = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    what = next((line for line in comments if line and not line.startswith(("@package", "llmft "))), "")
    model = _lookup(name, lambda tree: _option(tree, "model"))
    expect = _lookup(name, _expected_result)
    promise = ""
    if isinstance(expect, dict):
        promise = "{metric} {at_least} on {data}, in {minutes} min on {hardware}; ".format(**{**NOTHING, **expect})
    command = "" if command_of(name) == "finetune" else f"llmft {command_of(name)}; "
    facts = f"{command}{promise}model {model}{_size(str(model))}" if model else (command + promise).removesuffix("; ")
    return "\n".join([name, *(filled(line, 4) for line in (what, facts) if line)])


# libyaml, where PyYAML was built with it: a tenth of the time. Both are safe loaders.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NOTHING = dict.fromkeys(("metric", "at_least", "data", "minutes", "hardware"), "?")


def _lookup(name: str, find: Any, depth: int = 0) -> Any:
    """What `find` returns for a recipe, or for one that it includes."""
    try:
        tree = yaml.load(_file(name).read_text(encoding="utf-8-sig"), LOADER)
    except (yaml.YAMLError, UnicodeError, UserError):
        return None  # `llmft finetune +recipe=NAME` reports what is wrong with it
    if not isinstance(tree, dict) or depth > 10:
        return None
    if found := find(tree):
        return found
    parents = [entry for entry in tree.get("defaults") or [] if isinstance(entry, str) and entry != "_self_"]
    return next((found for parent in reversed(parents) if (found := _lookup(parent, find, depth + 1))), None)


def _option(tree: dict[str, Any], group: str) -> str | None:
    """The option of a group in a recipe's defaults list."""
    entries = [entry for entry in tree.get("defaults") or [] if isinstance(entry, dict)]
    return next((entry[key] for entry in entries for key in entry if key.split("/")[-1].split()[-1] == group), None)


def _expected_result(tree: dict[str, Any]) -> Any:
    """The result that a recipe promises; `other data` if it, or a recipe that includes it, uses other data."""
    own = tree.get("dataset")
    data = own if isinstance(own, dict) else {}
    option = _option(tree, "dataset")
    file = option_file("dataset", str(option))
    named = yaml.load(file.read_text(encoding="utf-8"), LOADER).get("name") if file.is_file() else option
    name, expect = data.get("name") or data.get("train") or named, tree.get("expect")
    return expect if isinstance(expect, dict) and name in (None, expect.get("data")) else name and "other data"


def _size(model: str) -> str:
    """The size of a model, from the comment in its option."""
    file = option_file("model", model)
    first = file.read_text(encoding="utf-8").splitlines()[0] if file.is_file() else ""
    size = re.search(r"[\d.]+ [MB] parameters", first)
    return f", {size[0]}" if size else ""
