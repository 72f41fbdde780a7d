"""What a request to predict may hold: rows with the columns of a task, within limits, checked before anything runs."""

import base64
import binascii
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import (
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    create_model,
)

from llmft.data.cell_values import joined_name
from llmft.predictions.inputs import WHAT, Row
from llmft.schema.dataset import DatasetConfig
from llmft.schema.serving import ServeConfig
from llmft.serving.http import Refused
from llmft.tasks.optional import DescribesCells, Draws, Explains, HasExample
from llmft.tasks.task import Task
from llmft.tasks.text.sentences import split
from llmft.tasks.text.words import MOST

DEPTH = 32  # levels of lists and objects in a row
NUMBER = StrictInt | StrictFloat
CELL = StrictStr | NUMBER | StrictBool | None
TYPES: dict[str, Any] = {
    "text": StrictStr,
    "texts": list[StrictStr] | StrictStr,
    "text of ids": StrictStr | StrictInt,
    "texts of ids": list[StrictStr | StrictInt] | StrictStr,
    "words": list[StrictStr] | StrictStr,
    "json": Any,
    "image": StrictStr,
    "features": Any,
    "number": NUMBER | StrictStr | None,
    "category": CELL,
    "date": StrictStr | None,
}
"""The type of a column in JSON. A cell of a table has one of the kinds `number`, `category`, `date`, and `text`."""
WRONG = {
    "missing": "is missing",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "int_type": "must be a number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}
"""What is wrong by the type of pydantic's error, whose own messages are of strings and arrays."""
ABOUT = {"image": "an image file in base64, or a data URI", "json": "any value of JSON, such as a list of messages"}
BODY = {"text": 1 << 20, "image": 14 << 20}  # bytes; 10 MiB of an image are 14 in base64


@dataclass(frozen=True)
class InputColumn:
    """A column of a row, as `llmft predict` would find it in a file."""

    name: str
    role: str
    kind: str
    required: bool
    values: list[str] = field(default_factory=list)
    """Known categories."""
    ids: bool = False
    """Whether whole numbers are texts, too."""

    def in_json(self) -> dict[str, Any]:
        """As `/info` tells it."""
        return {
            "name": self.name,
            "role": self.role,
            "kind": self.kind,
            "required": self.required,
            "values": self.values[:50],
        }


def input_columns(task: Task[Any], dataset: DatasetConfig) -> list[InputColumn]:
    """The columns that a model reads; for a table one for each of its cells."""
    found = []
    known = task.example_row() if isinstance(task, HasExample) else {}
    for role, spec in task.columns.items():
        if not spec.is_input or (known and role not in known and not spec.required and not spec.unless):
            continue  # such as the second text of a model that reads one
        if spec.kind == "features" and isinstance(task, DescribesCells):
            cells = task.describe_cells()
            found += [InputColumn(name, role, kind, False, values) for name, (kind, values) in cells.items()]
        else:
            required, name = spec.required and not spec.unless, joined_name(dataset, role)
            found.append(InputColumn(name, role, spec.kind, required, ids=spec.ids))
    return found


class Reader:
    """Turns the JSON of a body into rows of one model."""

    def __init__(self, task: Task[Any], dataset: DatasetConfig, limits: ServeConfig) -> None:
        self.columns = input_columns(task, dataset)
        self.limits = limits
        self.images = {column.name for column in self.columns if column.kind == "image"}
        by_role = {column.role: column for column in self.columns}
        self.default = by_role.get(task.default_input_role)
        """The column that a text or an image alone fills; None for a task without one."""
        self.one, self.many = ("image", "images") if self.images else ("text", "texts")
        self.explains, self.draws = isinstance(task, Explains), isinstance(task, Draws)
        self.row: Any = self._row_model()

    def _row_model(self) -> Any:
        fields: dict[str, Any] = {}
        for number, column in enumerate(self.columns):
            kind, name = TYPES[f"{column.kind} of ids" if column.ids else column.kind], column.name
            if "." in name and column.role != "features":  # nested in an object, whose other keys may be anything
                name, kind = name.partition(".")[0], Any
            if any(name == other.alias for _, other in fields.values()):
                continue
            default = ... if column.required else None
            fields[f"column_{number}"] = (
                kind if column.required else kind | None if kind is not Any else Any,
                Field(default, alias=name, description=ABOUT.get(column.kind)),
            )
        return create_model("Row", __config__=ConfigDict(extra="allow", title="Row"), **fields)

    def rows(self, body: Any) -> list[Row]:
        """The rows of a body: `rows`, `row`, `text`, or `texts`; of tasks on images `image` or `images`.

        Raises:
            Refused: with a path for each mistake. The values themselves are never repeated.
        """
        if not isinstance(body, dict):
            raise Refused(422, "the body must be an object, such as " + self.example())
        known = ["rows", "row", *((self.one, self.many) if self.default else ())]
        given = [name for name in known if body.get(name) is not None]
        if len(given) != 1:
            which = f"exactly one of {', '.join(known)}"
            raise Refused(422, f"the body must have {which}, such as {self.example()}")
        if strange := sorted(body.keys() - {*known, "model", "explain", "draw"}):
            raise invalid([(strange[0], f"is not known here; a body has {', '.join(known)}, explain, draw")])
        (name,) = given
        whole = name in ("rows", self.many)
        values = body[name] if whole else [body[name]]
        if not isinstance(values, list) or not values:
            raise invalid([(name, "must be a list with at least one row")])
        if len(values) > self.limits.max_rows:
            what = f"a request must have at most {self.limits.max_rows} rows, got {len(values)}"
            raise Refused(422, what, [{"path": name, "detail": what}], reason="rows")
        places = [f"{name}.{number}" if whole else name for number in range(len(values))]
        return [self.read(value, place, name) for value, place in zip(values, places, strict=True)]

    def read(self, value: Any, place: str, name: str = "rows") -> Row:
        """A row: an object, or the text or image alone.

        Raises:
            Refused: for a value of a wrong type, a text that is too long, or an image that is none or is too large.
        """
        bare = name in (self.one, self.many) or (isinstance(value, str | bytes) and self.default is not None)
        if bare and self.default is not None:
            if not isinstance(value, str | bytes):
                raise invalid([(place, f"must be {'an image in base64' if self.images else 'a text'}")])
            value = {self.default.name: value}
        if not isinstance(value, dict):
            raise invalid([(place, "must be an object with a value for each column")])
        for column in self.images:
            value = lifted(value, column)
        for column in self.images & value.keys() if not bare or self.images else ():
            if isinstance(value[column], bytes):
                continue
            if not isinstance(value[column], str):
                raise invalid([(place if bare else f"{place}.{column}", "must be an image in base64")])
        try:
            self.row.model_validate({k: "" if isinstance(v, bytes) else v for k, v in value.items()})
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            lines = {
                _path([*([] if bare else [place]), *_known(each["loc"])]) or place: WRONG.get(
                    each["type"], f"{each['msg'][0].lower()}{each['msg'][1:]}"
                )
                for each in reversed(found)  # of a union the first is kept: what the column should be
            }
            raise invalid(list(lines.items())) from None
        self._check_size(value, place, bare)
        images = {
            name: self._image(value[name], place if bare else f"{place}.{name}") for name in self.images & value.keys()
        }
        return Row(place, value | images)

    def _check_size(self, value: dict[str, Any], place: str, bare: bool) -> None:
        for path, text, depth in leaves({key: cell for key, cell in value.items() if key not in self.images}):
            at = place if bare else f"{place}.{path}"
            if depth > DEPTH:
                raise invalid([(place, f"must have at most {DEPTH} levels of lists and objects")])
            if isinstance(text, str) and len(text) > self.limits.max_text:
                what = f"a text must have at most {self.limits.max_text:,} characters, got {len(text):,}"
                raise Refused(422, what, [{"path": at, "detail": what}], reason="text")

    def _image(self, value: str | bytes, place: str) -> dict[str, Any]:
        """The cell of an image: its bytes, whose header says that it is not too large. Never a path."""
        from PIL import Image

        if isinstance(value, str):
            head, comma, rest = value.partition(",")
            text = rest if comma and head.startswith("data:image/") and head.endswith(";base64") else value
            try:
                value = base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError):
                raise invalid([(place, "must be an image in base64")]) from None
        if not value:
            raise invalid([(place, "is empty")])
        try:
            with Image.open(io.BytesIO(value)) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            width, height = self.limits.max_pixels + 1, 1
        except Exception:  # Pillow's readers raise their own classes for broken headers
            raise invalid([(place, "is not an image that can be read")]) from None
        if width * height > self.limits.max_pixels:
            what = f"an image must have at most {self.limits.max_pixels:,} pixels, by its header"
            raise Refused(422, what, [{"path": place, "detail": what}], reason="image")
        return {"path": None, "bytes": value}

    def passes(self, row: Row) -> int:
        """At most how many rows the model is asked to explain the answer to a row."""
        names = [column for column in self.columns if row.values.get(column.name.partition(".")[0]) is not None]
        if any(column.role == "features" for column in names):
            return 1 + 3 * len(names)  # typical values of each column, see tables/columns.py
        if self.images:
            from llmft.tasks.images.occlusion import GRID  # Pillow, which a service of texts does without

            return 1 + GRID**2
        texts = [value for _, value, _ in leaves(row.values) if isinstance(value, str)]
        return min(1 + sum(len(split(text[: 50 * MOST])) for text in texts), MOST)

    @property
    def max_body(self) -> int:
        """The largest body in bytes."""
        return self.limits.max_body or BODY["image" if self.images else "text"]

    def example(self) -> str:
        """A body in short."""
        if self.default:
            return f'{{"{self.one}": "..."}}'
        row = {column.name: "..." for column in self.columns[:5]}
        return json.dumps({"row": row}, ensure_ascii=False)[:500]

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of a body."""
        row = self.row.model_json_schema(by_alias=True)
        rows = {"type": "array", "items": row, "minItems": 1, "maxItems": self.limits.max_rows}
        known: dict[str, Any] = {"rows": rows, "row": row}
        if self.default:
            text = {"type": "string", "maxLength": self.limits.max_text}
            alone: dict[str, Any] = {"type": "string", "description": ABOUT["image"]} if self.images else text
            known[self.one] = alone
            known[self.many] = {"type": "array", "items": alone, "minItems": 1, "maxItems": self.limits.max_rows}
        more: dict[str, Any] = {"model": {"type": "string", "description": "where several models are served"}}
        if self.explains:
            more["explain"] = {"type": "boolean", "description": "say which parts of an input speak for its answer"}
        if self.draws:
            more["draw"] = {"type": "boolean", "description": "draw the answer on the image"}
        return {
            "type": "object",
            "properties": known | more,
            "additionalProperties": False,
            "oneOf": [{"required": [name]} for name in known],
        }


def lifted(value: dict[str, Any], name: str) -> dict[str, Any]:
    """A row with the value that is nested at `name`, such as `photo.data`, as a column of that name; else unchanged."""
    head, dot, rest = name.partition(".")
    if not dot or name in value or not isinstance(inner := value.get(head), dict):
        return value
    inner = lifted(inner, rest)
    if rest not in inner:
        return value
    return value | {head: {key: cell for key, cell in inner.items() if key != rest}, name: inner[rest]}


def flag(body: dict[str, Any], name: str, able: bool) -> bool:
    """Whether a body asks for `explain` or `draw`.

    Raises:
        Refused: if it is not a boolean, or the task cannot do it.
    """
    wanted = body.get(name)
    if wanted is None or wanted is False:
        return False
    if wanted is not True:
        raise invalid([(name, "must be true or false")])
    if not able:
        raise invalid([(name, "must be left out: the task of this model cannot do it")])
    return True


def invalid(errors: Sequence[tuple[str, str]]) -> Refused:
    """The refusal of rows with mistakes at some paths."""
    path, what = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    lines = [{"path": path[:200], "detail": what[:500]} for path, what in errors[:10]]
    return Refused(422, f"{path[:200]}: {what[:500]}{more}", lines)


KEY = re.compile(r"\b(?:dataset|task|model|export|predict|serve|trainer|generation)\.[a-z_]+|\bllmft \w+|--\w")
"""What only whoever runs the service can write: keys of the configuration, and commands."""


def told(text: str, row: Row, columns: Sequence[InputColumn]) -> str:
    """The reason why a row is bad, for a client: without the values that were sent, and without advice on commands.

    Args:
        text: as `llmft predict` would say it, a sentence, and others on what to write.
        columns: those that a row may have, which take the place of such advice.
    """
    first, *hints = re.split(r"\. (?=[A-Z])", text)
    first = first.removesuffix(".").replace(f" ({WHAT})", "").replace(f"{WHAT} has", "the row has")
    kept = [hint for hint in hints if not KEY.search(hint)]
    if len(kept) < len(hints) and columns:
        names = ", ".join(repr(column.name) for column in columns[:10])
        kept.append(f"The model reads {names}{', ...' if len(columns) > 10 else ''}")
    return ". ".join([without_values(first, row), *(hint.removesuffix(".") for hint in kept)])


def without_values(text: str, row: Row) -> str:
    """A reason why a row is bad, without the values of the row: an answer never repeats what was sent."""
    for _, value, _ in leaves(row.values):
        if isinstance(value, str | float) or type(value) is int:
            forms = [repr(value), *([value] if isinstance(value, str) and len(value) > 20 else [])]
            for form in forms:
                text = text.replace(form, "…") if len(form) > 2 else text
    return text


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any, int]]:
    """The values in lists and objects, each with its path and its level. Ends below DEPTH."""
    waiting = [(value, path, depth)]
    while waiting:
        value, path, depth = waiting.pop()
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if parts is None or depth > DEPTH:
            yield path, value, depth
            continue
        for name, part in parts:
            waiting.append((part, _path([path, name]), depth + 1))


def _path(parts: Sequence[Any]) -> str:
    return ".".join(str(part) for part in parts if str(part))[:200]


def _known(loc: tuple[Any, ...]) -> list[Any]:
    """A location of pydantic without the branches of unions, which follow the name of a column."""
    return [part for number, part in enumerate(loc) if number == 0 or isinstance(part, int)]
