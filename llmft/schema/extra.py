"""Packages that only some choices need: the extras of pyproject.toml."""

from importlib.util import find_spec

from llmft.schema.problem import Problem


def lacking(key: str, choice: str, package: str, extra: str) -> list[Problem]:
    """A problem if `choice`, a value of `key`, needs a package that is not installed."""
    if find_spec(package) is not None:
        return []
    what = f"{choice} needs the package {package}, which is not installed"
    return [Problem(key, what, hint=f"Install it: pip install 'llmft[{extra}]'")]
