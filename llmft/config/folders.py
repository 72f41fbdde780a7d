"""Where `configs/`, `recipes/` and `docs/` are. Imports nothing heavy: `llmft --help` lists them."""

import re
from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(name: Literal["configs", "recipes", "docs"]) -> Path:
    """The folder: beside the package in a checkout, inside it in a wheel.

    The checkout comes first: an editable install leaves a copy inside site-packages that goes stale.
    """
    checkout = PACKAGE.parent / name
    return checkout if (PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else PACKAGE / name


def groups(command: str) -> list[str]:
    """The groups that a command composes, in the order of its defaults."""
    return re.findall(
        r"^  - (\w+):", (shipped("configs") / f"{command}.yaml").read_text(encoding="utf-8"), re.MULTILINE
    )


def options(group: str) -> list[str]:
    """The options of a config group, by the files of its folder."""
    return sorted(file.stem for file in (shipped("configs") / group).glob("*.yaml"))


def recipes(command: str | None = None) -> list[str]:
    """All recipes by name: ours, and those in ./recipes.

    Args:
        command: only those for this command, and those that leave it to the recipe that they start from.
    """
    files = [file for folder in (Path("recipes"), shipped("recipes")) for file in folder.glob("*.yaml")]
    return sorted({file.stem for file in files if command is None or _command_of(file) in (None, command)})


def _command_of(file: Path) -> str | None:
    said = re.search(rb"^command: *(\w+)", file.read_bytes(), re.MULTILINE)
    return said[1].decode() if said else None
