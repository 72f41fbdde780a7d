"""Reads the overrides of the command line: quotes what Hydra's grammar refuses, so that values may be in any script.

Two things cannot be quoted in Hydra: a literal `${` in a text, and names in a table that are not ASCII. They are
encoded before Hydra reads them, and `restore` decodes them.

Values of keys that hold texts are taken literally. Hydra and OmegaConf give `null`, `true`, `1e3`, `1_000`, and
`${key}` a meaning in every value. That is right for a number, but a file called `2024`, a label `no`, or the text `I
paid ${price}` must arrive as typed.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from llmft.config.references import HINT, is_secret
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError
from llmft.schema.section import AS_TYPED, section_of
from llmft.schema.tasks import task_types


class TextFormat(NamedTuple):
    """How the value of a key that holds texts may be written."""

    lists: bool
    """`[a,b]` is a list of texts, not a text."""
    tables: bool
    """`{a: b}` is a table of texts."""
    null: bool
    """`null` means unset."""
    cells: bool
    """They are cells of rows, which may contain lists and tables."""

    @property
    def inside(self) -> "TextFormat":
        """The format of texts inside a list or a table."""
        return self if self.cells else TextFormat(self.lists and self.tables, tables=False, null=False, cells=False)


@cache
def text_format(key: str) -> TextFormat | None:
    """How the texts of a dotted key are written; None for a key that holds something else, or is unknown."""
    first, *rest = key.split(".")
    annotations = _fields([Config], first)
    for name in rest:
        sections = [section for annotation in annotations if (section := section_of(annotation))]
        if sections and first == "task":
            annotations = _fields(list(task_types().values()), name)
        elif sections:
            annotations = _fields(sections, name)
        else:  # below a table: dataset.columns.text, predict.row.age
            members = [member for annotation in annotations for member in _members(annotation)]
            annotations = [get_args(member)[1] for member in members if get_origin(member) is dict]
    return next((found for found in map(_text_format, annotations) if found), None)


def _fields(sections: list[Any], name: str) -> list[Any]:
    """The types of a key in the sections that have it."""
    return [section.model_fields[name].annotation for section in sections if name in section.model_fields]


def _text_format(annotation: Any) -> TextFormat | None:
    members = list(_members(annotation))
    parts = set(_below(annotation))
    plain = {part for part in parts if not get_origin(part)}
    if not plain & {str, AS_TYPED} or plain - {str, Any, NoneType, AS_TYPED}:
        return None
    several, cells = {get_origin(part) for part in parts}, Any in plain
    null = cells if AS_TYPED in plain else NoneType in members or str not in members
    return TextFormat(cells or list in several, cells or dict in several, null, cells)


def _below(annotation: Any) -> Iterator[Any]:
    """The members of a type, and of the types inside its lists and tables."""
    for member in _members(annotation):
        yield member
        if get_origin(member) in (list, dict):
            yield from _below(get_args(member)[-1])


def _members(annotation: Any) -> Iterator[Any]:
    """The types in a union, and the marker AS_TYPED."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _members(part)
    elif get_origin(annotation) is Annotated:
        yield from [AS_TYPED] if AS_TYPED in annotation.__metadata__ else []
        yield from _members(annotation.__origin__)
    elif get_origin(annotation) is not Literal:
        yield annotation


DOLLAR = "\ufdd0"  # for the $ of a literal ${; a code point that Unicode keeps free for use inside programs
CODED = "utf8_"
PLAIN_NAME = re.compile(r"(?!(?:true|false|null|nan|inf)$|utf8_)[A-Za-z_][\w/@$-]*", re.ASCII | re.IGNORECASE)
PAIR = re.compile(r"""\s*("[^"]*"|'[^']*'|[^:]*?)\s*:\s*(.*)""", re.DOTALL)


def quote(value: str) -> str:
    """`value` in the quotes of Hydra's grammar."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"\\+$", lambda m: m.group() * 2, value)) + "'"


def split(text: str) -> list[str]:
    """The parts of `a,[b,c],'d,e'`, split at commas outside of brackets and quotes."""
    parts, depth, open_quote = [""], 0, ""
    for place, char in enumerate(text):
        if open_quote:
            open_quote = "" if char == open_quote and text[place - 1] != "\\" else open_quote
        elif char in "'\"" and not parts[-1].strip() and char in text[place + 1 :]:
            open_quote = char  # not for the apostrophe of `it's`
        else:
            depth = max(0, depth + (char in "[{(") - (char in "]})"))
        if char == "," and depth == 0 and not open_quote:
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
    """Whether Hydra reads the override as a single value, the one that is shown."""
    override = _parse(word)
    return override is not None and not override.is_sweep_override()


def to_hydra(word: str) -> str:
    """The override, with its value in quotes if Hydra would refuse it, split it at commas, or drop leading zeros."""
    if "=" not in word:
        return word
    key, value = word.split("=", 1)
    if (found := _json(value)) is not None:
        return f"{key}={_json_to_hydra(found)}"
    pairs = _table(value)
    # Hydra reads 007 as the number 7, and a backslash before a punctuation mark as an escape.
    # `str(1)` would be a function call, but is a file name here.
    literal = bool(re.fullmatch(r"[-+]?0\d+|\w+\(.*\)", value)) or ("\\" in value and value[0] not in "'\"[{")
    if not literal and _plain(word) and all(PLAIN_NAME.fullmatch(name) for name, _ in pairs or ()):
        return word
    if value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(map(_value, split(value[1:-1])))}]"
    if pairs is not None:
        return f"{key}={{{','.join(f'{_name(name)}:{_value(item)}' for name, item in pairs)}}}"
    return f"{key}={quote(value)}"


def _value(text: str) -> str:
    return to_hydra(f"x={text}").split("=", 1)[1]


def _as_texts(value: str, kind: TextFormat) -> str:
    """The value of a key that holds texts, in Hydra's grammar. Quotes around the whole text are not part of it."""
    if kind.null and value == "null":
        return value
    if kind.lists and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_as_texts(part, kind.inside) for part in split(value[1:-1]) if part)}]"
    if kind.tables and (found := _json(value)) is not None:
        return _json_to_hydra(found)
    if kind.tables and (pairs := _table(value)) is not None:
        return f"{{{','.join(f'{_name(name)}:{_as_texts(item, kind.inside)}' for name, item in pairs)}}}"
    read = _parse(f"x={value}") if value[:1] in ("'", '"') else None
    text = read._value.text if read and isinstance(read._value, QuotedString) else value
    return quote(text.replace("${", f"{DOLLAR}{{"))


def _json(value: str) -> Any:
    """The value parsed as a JSON object; None for anything else."""
    if not (value.startswith("{") and '"' in value):
        return None
    try:
        return json.loads(value)
    except ValueError:
        return None


def _json_to_hydra(value: Any) -> str:
    """A JSON value in Hydra's grammar."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{_name(name)}:{_json_to_hydra(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_json_to_hydra, value))}]"
    return quote(value.replace("${", f"{DOLLAR}{{")) if isinstance(value, str) else json.dumps(value)


def _table(value: str) -> list[tuple[str, str]] | None:
    """The names and values in `{a: b, c: d}`; None for anything else."""
    if not (value.startswith("{") and value.endswith("}")):
        return None
    pairs = [PAIR.fullmatch(part) for part in split(value[1:-1]) if part]
    if not all(pairs):
        return None
    return [(re.sub(r"""^(["'])(.*)\1$""", r"\2", pair[1], flags=re.DOTALL), pair[2]) for pair in pairs if pair]


def _name(name: str) -> str:
    """A name in a table, encoded if Hydra would refuse it."""
    return name if PLAIN_NAME.fullmatch(name) else f"{CODED}{name.encode().hex()}"


def restore(value: Any, dollar: str = "$") -> Any:
    """A composed value, with texts and names as they were typed."""
    if isinstance(value, dict):
        return {restore_name(name): restore(item, dollar) for name, item in value.items()}
    if isinstance(value, list):
        return [restore(item, dollar) for item in value]
    return value.replace(DOLLAR, dollar) if isinstance(value, str) else value


def restore_name(name: Any) -> Any:
    """A name or dotted key as it was typed."""
    if not isinstance(name, str) or CODED not in name:
        return name
    return re.sub(rf"(?<![^.]){CODED}((?:[0-9a-f]{{2}})+)", lambda m: bytes.fromhex(m[1]).decode(), name)


def parse(words: list[str]) -> list[Override]:
    """Parse overrides.

    Raises:
        UserError: naming every invalid one. The value of a secret is never repeated.
    """
    problems, overrides = [], []
    for word in words:
        typed, equals, value = word.partition("=")
        key = typed.lstrip("+~")
        kind = None if typed.startswith("~") else text_format(key)
        coded = typed.removesuffix(key) + ".".join(_name(part) if part else part for part in key.split("."))
        if is_secret(key, value):
            problems.append(Problem(key, "looks like a secret, and configurations are saved", "command line", HINT))
            continue
        if not equals and typed[:1] != "~":
            problems.append(Problem(word, "is not KEY=VALUE", "command line"))
        elif override := _parse(f"{coded}={_as_texts(value, kind)}" if kind else to_hydra(coded + equals + value)):
            values = {"key_or_group": restore_name(override.key_or_group), "_value": restore(override.value())}
            overrides.append(replace(override, **values))
        else:
            problems.append(Problem(word, "is not KEY=VALUE", "command line"))
    if problems:
        raise UserError(problems)
    return overrides
