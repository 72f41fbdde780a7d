"""Where options, recipes, and docs are: those of llmft and the user's own. Imports nothing slow, because `llmft --help`
lists them.

The user's files come from `--config-dir DIR`, `./configs`, and `./recipes`. A file only counts if it lies inside its
folder after links are resolved; config/sources.py then checks that it is only data.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

from llmft.schema.problem import Problem, UserError

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(name: Literal["configs", "recipes", "docs"]) -> Path:
    """A folder of llmft: next to the package in a checkout, inside it in a wheel.

    The checkout comes first, because an editable install leaves a copy in site-packages that becomes outdated.
    """
    checkout = PACKAGE.parent / name
    return checkout if (PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else PACKAGE / name


def groups(command: str) -> list[str]:
    """The groups of a command, in the order of its defaults list."""
    return re.findall(
        r"^  - (\w+):", (shipped("configs") / f"{command}.yaml").read_text(encoding="utf-8"), re.MULTILINE
    )


FLAGS = ("--config-dir", "-cd")
CODE = {".py", ".pyc", ".pyd", ".so", ".dll", ".sh", ".bat", ".ps1", ".pkl", ".pickle", ".pt", ".pth", ".ipynb"}

_named: list[Path] = []
"""The folder of `--config-dir`."""


@contextmanager
def config_dir(words: list[str]) -> Iterator[list[str]]:
    """Search the folder of `--config-dir DIR` before all others; gives the arguments without it.

    Raises:
        UserError: if the folder does not exist or contains code.
    """
    rest, folders = [], []
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if flag in FLAGS:
            folders.append(value if equals else next(remaining, ""))
        else:
            rest.append(word)
    before = list(_named)
    if folders:
        _named[:] = [_checked(folders[-1])]
    try:
        yield rest
    finally:
        _named[:] = before


def config_dir_words() -> list[str]:
    """`--config-dir DIR` as it was typed, for a suggested command."""
    return [word for folder in _named for word in (FLAGS[0], str(folder))]


@contextmanager
def no_config_dir() -> Iterator[None]:
    """Ignore the folder of `--config-dir`, as for another person who receives a recipe."""
    before = list(_named)
    _named.clear()
    try:
        yield
    finally:
        _named[:] = before


def _checked(name: str) -> Path:
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        hint = "Write --config-dir DIR; DIR/GROUP/NAME.yaml is an option, DIR/recipe/NAME.yaml a recipe."
        raise UserError(Problem(f"{FLAGS[0]} {name}".strip(), "no such folder", "command line", hint))
    code = [file for group in (*all_groups(), "recipe") for file in _files(folder / group) if file.suffix in CODE]
    if code:
        what = f"contains code, {code[0].relative_to(folder)}; options and recipes must be data"
        raise UserError(Problem(f"{FLAGS[0]} {name}", what, "command line", "Move it to another folder."))
    return folder.absolute()


@cache
def all_groups() -> list[str]:
    """The groups of all commands."""
    return sorted(folder.name for folder in shipped("configs").iterdir() if folder.is_dir())


def user_configs() -> list[Path]:
    """The user's folders of options, GROUP/NAME.yaml: `--config-dir`, then ./configs. They come before llmft's."""
    folders = [folder.resolve() for folder in (*_named, Path("configs")) if folder.is_dir()]
    return [folder for folder in dict.fromkeys(folders) if folder != shipped("configs").resolve()]


def recipe_folders() -> list[Path]:
    """Folders of recipes, searched in this order; subfolders count."""
    own = [*(folder / "recipe" for folder in _named), Path("recipes"), Path("configs/recipe")]
    return [*(folder for folder in own if folder.is_dir()), shipped("recipes")]


def inside(file: Path, folder: Path) -> bool:
    """Whether a file exists and lies inside a folder after links are resolved."""
    return file.is_file() and file.resolve().is_relative_to(folder.resolve())


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, without links to folders and hidden folders."""
    for parent, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(parent, name) for name in names)


def names_in(folder: Path) -> list[str]:
    """The names of the recipes in a folder, `team/exp1` for one in a subfolder."""
    files = (file for file in _files(folder) if file.name.endswith(".yaml") and not file.name.startswith("."))
    # Only a link to a file can lead out of the folder, because links to folders are not followed.
    own = (file for file in files if not file.is_symlink() or inside(file, folder))
    return [file.relative_to(folder).with_suffix("").as_posix() for file in own]


def options(group: str) -> list[str]:
    """The options of a group: llmft's and the user's."""
    found = {file.stem for file in (shipped("configs") / group).glob("*.yaml")}
    if found:  # it is a group
        found |= {
            file.stem for folder in user_configs() for file in (folder / group).glob("*.yaml") if inside(file, folder)
        }
    return sorted(found)


def option_file(group: str, name: str) -> Path:
    """The file of an option: the user's, else llmft's."""
    files = [
        folder / group / f"{name}.yaml" for folder in user_configs() if inside(folder / group / f"{name}.yaml", folder)
    ]
    return files[0] if files else shipped("configs") / group / f"{name}.yaml"


def recipes(command: str | None = None) -> list[str]:
    """The names of all recipes: llmft's and the user's.

    Args:
        command: only recipes for this command, and those that leave it to the recipe that they include.
    """
    found = {name: folder for folder in reversed(recipe_folders()) for name in names_in(folder)}
    return sorted(
        name
        for name, folder in found.items()
        if command is None or _command_of(folder / f"{name}.yaml") in (None, command)
    )


def recipe_file(name: str) -> Path:
    """The file of a recipe, from the first folder that has it."""
    for folder in recipe_folders():
        if inside(file := folder / f"{name}.yaml", folder):
            return file
    return shipped("recipes") / f"{name}.yaml"


def refusal(group: str, name: str) -> str | None:
    """Why a file that `GROUP=NAME` may mean is not used: it lies outside its folder, or is code."""
    if name.startswith(("/", "~")) or ".." in name.split("/"):
        return f"leads out of the folder of {group}"
    folders = recipe_folders() if group == "recipe" else user_configs()
    for folder in folders:
        base = folder if group == "recipe" else folder / group
        file = base / f"{name}.yaml"
        if file.is_file() and not inside(file, folder):
            return f"is reached by a link that leads out of {folder.name}"
        if code := next((suffix for suffix in sorted(CODE) if (base / f"{name}{suffix}").is_file()), None):
            return f"is code, {name}{code}; options and recipes must be data"
    return None


def _command_of(file: Path) -> str | None:
    match = re.search(rb"^command: *(\w+)", file.read_bytes(), re.MULTILINE)
    return match[1].decode() if match else None
