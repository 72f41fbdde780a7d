"""The words of the command line: what Hydra's grammar refuses is quoted, so that a value may be in any script."""

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from llmft.config.secrets import HINT, is_secret
from llmft.schema.problem import Problem, UserError


def quoted(value: str) -> str:
    """`value` in Hydra's quotes."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"\\+$", lambda m: m.group() * 2, value)) + "'"


def split(text: str) -> list[str]:
    """The parts of `a,[b,c],'d,e'`: split at the commas that stand outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for place, char in enumerate(text):
        if quote:
            quote = "" if char == quote and text[place - 1] != "\\" else quote
        elif char in "'\"" and not parts[-1].strip() and char in text[place + 1 :]:
            quote = char  # the apostrophe of `it's` is none
        else:
            depth = max(0, depth + (char in "[{(") - (char in "]})"))
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _parse(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:  # OverrideParseException from the grammar, its parent from the lexer
        return None


def _plain(word: str) -> bool:
    """Whether Hydra reads the word as one value that means what it shows."""
    override = _parse(word)
    return override is not None and not override.is_sweep_override()


def as_hydra_reads(word: str) -> str:
    """The word, with its value quoted where Hydra would refuse it, split it at commas or drop leading zeros."""
    if "=" not in word:
        return word
    key, value = word.split("=", 1)
    # Hydra makes the number 7 of 007, and takes a backslash before a sign for an escape.
    # Nor is `str(1)`, which would be a call, anything but a file name.
    literal = bool(re.fullmatch(r"[-+]?0\d+|\w+\(.*\)", value)) or ("\\" in value and value[0] not in "'\"[{")
    if not literal and _plain(word):
        return word
    if value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(map(_value, split(value[1:-1])))}]"
    pairs = [element.partition(":") for element in split(value[1:-1])]
    if value.startswith("{") and value.endswith("}") and all(colon for _, colon, _ in pairs):
        return f"{key}={{{','.join(f'{name}:{_value(item.strip())}' for name, _, item in pairs)}}}"
    return f"{key}={quoted(value)}"


def _value(text: str) -> str:
    return as_hydra_reads(f"x={text}").split("=", 1)[1]


def parse(words: list[str]) -> list[Override]:
    """The overrides that the words mean.

    Raises:
        UserError: naming every word that is none. The value of a secret is never repeated.
    """
    problems, overrides = [], []
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if is_secret(key, value):
            problems.append(Problem(key, "looks like a secret, and configurations are saved", "command line", HINT))
        elif (override := _parse(as_hydra_reads(word))) is None:
            problems.append(Problem(word, "is no KEY=VALUE", "command line"))
        else:
            overrides.append(override)
    if problems:
        raise UserError(problems)
    return overrides
