"""Reads JSON: rows as objects, one per line or in a list, and the exports of spaCy, Label Studio, and doccano."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.data.encodings import inner_name, lines_of, nul_problem, open_text
from llmft.data.source import CHUNK, MANY, START, Mark, Table, listed
from llmft.schema.problem import Problem, UserError

OBJECT = 'Write {"text": ..., "label": ...}.'
FIELD = "Write dataset.field=NAME for the list of rows."
COCO = "It is COCO's: write dataset=coco for boxes, or dataset=coco_masks for masks."


@dataclass(frozen=True)
class JsonLines:
    """A file of JSON lines, one object per line."""

    file: Path
    name: str
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Each chunk has the keys of its own rows."""
        mark = start or START
        rows: list[tuple[int, Any]] = []
        problems: list[Problem] = []
        with open_text(self.file, self.name, self.encoding, mark.position) as stream:
            for number, line in enumerate(lines_of(stream, self.name, mark.line), mark.line):
                if not line.strip():
                    continue
                row = json_object(line, f"{self.name}:{number}")
                if isinstance(row, Problem):
                    problems.append(row)
                else:
                    rows.append((number, row))
                if len(rows) == CHUNK:
                    yield mark, _objects(rows, self.name)
                    mark, rows = Mark(stream.tell(), number + 1), []
                if len(problems) == MANY:
                    break
        if rows:
            yield mark, _objects(rows, self.name)
        if problems:
            raise UserError(listed(problems), "the data")


@dataclass(frozen=True)
class JsonList:
    """A file with one JSON value: a list of objects, or an object around one. It is one chunk, whatever its size."""

    file: Path
    name: str
    encoding: str
    field: str | None = None
    """The dotted key of the list in the object, `dataset.field`; None to find it."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. The id of a row has its number in the list, from 1."""
        with open_text(self.file, self.name, self.encoding) as stream:
            try:
                text = stream.read().removeprefix("\ufeff")
                # json.loads would only say "control character". NUL means UTF-16 that was not recognized, or no text.
                if "\0" in text:
                    line = text.count("\n", 0, text.index("\0")) + 1
                    raise UserError(nul_problem(self.file, f"{self.name}:{line}"), "the data")
                value = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(
                    Problem(f"{self.name}:{error.lineno}", f"is not JSON: {error.msg}"), "the data"
                ) from error
        found, unread = rows_in(value, self.field, self.name)
        rows = [(number, row_of(row, f"{self.name}:{number}")) for number, row in enumerate(found, 1)]
        if problems := [row for _, row in rows if isinstance(row, Problem)]:
            raise UserError(listed(problems), "the data")
        table = _objects(rows, self.name)
        if unread:
            keys = ", ".join(map(str, unread))
            table.left_out[f"keys beside the rows of {self.name} were not read: {keys}"] = len(unread)
        yield START, table


def open_json(file: Path, name: str, encoding: str, field: str | None = None) -> JsonLines | JsonList:
    """A JSON file as lines or as one value, decided by its first two lines.

    A file named .json with a single object is read as one value too, since its rows may be a list inside.

    Args:
        field: `dataset.field`; with it, the file is always one value.
    """
    if field is not None:
        return JsonList(file, name, encoding, field)
    with open_text(file, name, encoding) as stream:
        lines = (found for line in iter(stream.readline, "") if (found := line.strip("\ufeff \t\r\n")))
        first, second = next(lines, ""), next(lines, "")
    try:
        value = json.loads(first)
    except ValueError:
        # Not a value by itself. Broken after a comma or a bracket, it is pretty-printed and continues on the next line;
        # broken elsewhere, it is one damaged line of many, and the lines reader can name it.
        whole = first.startswith("[") or (first.startswith("{") and first.endswith(("{", "[", ",")))
    except RecursionError:
        whole = False
    else:
        single = not second and inner_name(file).lower().endswith(".json")
        # A list as first line is the whole file, unless it is spaCy's row of text and entities, one per line.
        whole = (isinstance(value, list) and not is_of_spacy(value)) or (single and isinstance(value, dict))
    return (JsonList if whole else JsonLines)(file, name, encoding)


def json_object(line: str, place: str) -> dict[str, Any] | Problem:
    """The row in a line, or what is wrong with the line."""
    try:
        row = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        return Problem(place, f"is not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:  # lists nested 1,000 deep, or a number of more than 4,300 digits
        return Problem(place, f"is not JSON that can be read: {error}")
    return row_of(row, place)


def _objects(rows: list[tuple[int, Any]], name: str) -> Table:
    keys = list(dict.fromkeys(key for _, row in rows for key in row))  # in the order of their first row
    return Table({key: [row.get(key) for _, row in rows] for key in keys}, [f"{name}:{number}" for number, _ in rows])


def row_of(value: Any, place: str) -> dict[str, Any] | Problem:
    """A value as a row, or what is wrong with it. Exports get the columns `text`, `spans`, and `label`."""
    try:
        if is_of_spacy(value):
            return _of_spacy(*value)
        if isinstance(value, dict) and isinstance(value.get("data"), dict) and _annotations(value) is not None:
            return _of_label_studio(value)
    except ValueError as error:
        return Problem(place, str(error))
    return value if isinstance(value, dict) else Problem(place, "is not a JSON object", hint=OBJECT)


def rows_in(value: Any, field: str | None, name: str) -> tuple[list[Any], list[str]]:
    """The rows of a file with one JSON value, and the keys beside them that are not read.

    Args:
        value: a list of rows, or an object with them under `field`, or in its only list of objects.

    Raises:
        UserError: if several lists may be the rows, or the value has columns instead of rows.
    """
    if field is not None:
        return _field(value, field, name)
    if isinstance(value, list):
        return value, []
    found = {key: part for key, part in value.items() if _is_rows(part)}
    if len(found) == 1:
        ((key, rows),) = found.items()
        return rows, [other for other in value if other != key]
    if found:
        what = f"is one object, with lists of objects under {' and '.join(map(repr, found))}"
        hint = COCO if {"images", "annotations", "categories"} <= value.keys() else FIELD
        raise UserError(Problem(name, what, hint=hint), "the data")
    parts = list(value.values())
    # pandas' df.to_json writes columns by default: {"text": {"0": ..., "1": ...}, "label": {...}}, or lists of one
    # length with orient="list". Read as one row, that would be a data set of size 1.
    if len(parts) > 1 and all(isinstance(part, dict | list) and len(part) == len(parts[0]) for part in parts):
        numbered = all(isinstance(part, dict) and "0" in part for part in parts)
        if numbered or all(isinstance(part, list) and len(part) > 1 for part in parts):
            what, hint = "holds columns, not rows", "Write it by df.to_json(NAME, orient='records', lines=True)."
            raise UserError(Problem(name, what, hint=hint), "the data")
    return [value], []


def _field(value: Any, field: str, name: str) -> tuple[list[Any], list[str]]:
    """The list at a dotted key, and the keys beside its path."""
    unread: list[str] = []
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            has = f"; it has {', '.join(map(str, value))}" if isinstance(value, dict) else ""
            raise UserError(Problem(name, f"has no {part!r} as dataset.field={field} says{has}"), "the data")
        unread += [key for key in value if key != part]
        value = value[part]
    if not isinstance(value, list):
        raise UserError(Problem(name, f"has no list under dataset.field={field}", hint=FIELD), "the data")
    return value, unread


def _is_rows(value: Any) -> bool:
    """Whether a value is a list of rows. Turns of a conversation are not: the object around them is the row."""
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(part, dict) for part in value):
        # "role" in OpenAI's form of messages, "from" in ShareGPT's.
        return not all("role" in part or "from" in part for part in value)
    return all(map(is_of_spacy, value))


def is_of_spacy(value: Any) -> bool:
    """Whether a value is `[text, {"entities": [[start, end, label]]}]`."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], dict)
        and isinstance(value[1].get("entities"), list)
    )


def _of_spacy(text: str, annotation: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": text,
        "spans": annotation["entities"],
        **{key: part for key, part in annotation.items() if key != "entities"},
    }


def _annotations(row: dict[str, Any]) -> list[Any] | None:
    """The annotations of a row in the form of Label Studio; None if it is not in that form."""
    found = row.get("annotations")
    whole = isinstance(found, list) and all(isinstance(one, dict) for one in found)
    whole = whole and all(isinstance(one.get("result"), list) for one in found or ())
    return found if whole else None


def _of_label_studio(row: dict[str, Any]) -> dict[str, Any]:
    """The data of a Label Studio task, with the `spans` or `label` of its one annotation that was not skipped.

    Raises:
        ValueError: for several annotations, other types of them, and spans that do not match the text.
    """
    data = dict(row["data"])
    kept = [one for one in _annotations(row) or () if not one.get("was_cancelled")]
    if len(kept) > 1:
        raise ValueError(f"must have one annotation, got {len(kept)}: export one of each task")
    results = kept[0]["result"] if kept else []
    spans = [_span(one, data) for one in results if one.get("type") == "labels"]
    choices = [label for one in results if one.get("type") == "choices" for label in one["value"]["choices"]]
    others = {str(one.get("type")) for one in results} - {"labels", "choices"}
    if others - {"relation"}:
        kinds = ", ".join(sorted(others))
        raise ValueError(f"must have annotations of the types labels, choices, or relation, got {kinds}")
    if others:  # kept, so that a task for relations may read them
        data["relations"] = [one for one in results if one["type"] == "relation"]
    if choices:
        return data | {"label": choices[0] if len(choices) == 1 else choices}
    return data | {"spans": spans} if kept else data


def _span(result: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """A span with offsets in characters.

    A browser counts UTF-16 units, two for an emoji; exports made elsewhere count characters. The span's own copy of
    its text tells which.

    Raises:
        ValueError: if neither way of counting gives that text.
    """
    value = result["value"]
    start, end, labels, shown = (value.get(key) for key in ("start", "end", "labels", "text"))
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(labels, list) or len(labels) != 1:
        raise ValueError(f"has the span {value}, which has no start, end and one label")
    texts = [text for text in data.values() if isinstance(text, str)]
    # `to_name` is the name of the annotated field in the labeling interface, most often that of the data, too.
    named = [data.get(str(key)) for key in (result.get("to_name"), "text")]
    for text in [text for text in named if isinstance(text, str)] + texts:
        for first, after in _ways(text, start, end):
            if shown is None or text[first:after] == str(shown).replace("\\n", "\n"):
                return {"start": first, "end": after, "label": labels[0]}
    raise ValueError(f"has the span {start} to {end} of {shown!r}, and its text has something else there")


def _ways(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span as counted in characters, then as counted in units of UTF-16, 2 bytes each."""
    yield start, end
    units = text.encode("utf-16-le", "surrogatepass")
    try:
        yield tuple(len(units[: 2 * place].decode("utf-16-le")) for place in (start, end))  # type: ignore[misc]
    except UnicodeDecodeError:  # within a character
        return
