"""Files of interactions between users and items: RecBole's atomic files, `u.data`, MovieLens' `::`, and pairs.

Every cell stays text. Columns have the names of the roles `user`, `item`, `rating`, `time`, and `text`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmft.data.encodings import lines_of, open_text
from llmft.data.source import CHUNK, MANY, START, Mark, Table, listed
from llmft.schema.problem import Problem, UserError, plural

ROLES = {"user_id": "user", "item_id": "item", "rating": "rating", "timestamp": "time"}
"""Names that RecBole's default configuration gives to its fields, and the roles that they play."""
TYPES = ("token", "float", "token_seq", "float_seq")
PLAIN = ("user", "item", "rating", "time")
"""The columns of a file without a header; the first two, or three, of a file that has fewer."""
SEPARATORS = ("::", "\t", "|", ";", ",")


@dataclass(frozen=True)
class InteractionFile:
    """A file with a line for each interaction."""

    file: Path
    name: str
    """The file as row ids name it."""
    encoding: str
    separator: str | None
    """None: any number of spaces."""
    header: tuple[str, ...]
    body: Mark = START
    """Where the first row begins."""
    texts: dict[str, str] | None = None
    """What the .item file beside an .inter file says of each item."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`."""
        mark = first = start or self.body
        rows: list[list[str]] = []
        ids: list[str] = []
        problems: list[Problem] = []
        with open_text(self.file, self.name, self.encoding, first.position) as stream:
            for number, line in enumerate(lines_of(stream, self.name, first.line), first.line):
                cells = line.rstrip("\r\n").split(self.separator)
                if len(cells) == len(self.header):
                    rows.append(cells)
                    ids.append(f"{self.name}:{number}")
                elif line.strip():
                    wanted = plural(len(self.header), "cells")
                    problems.append(Problem(f"{self.name}:{number}", f"must have {wanted}, got {len(cells)}"))
                if len(rows) == CHUNK:
                    yield mark, self._table(rows, ids)
                    mark, rows, ids = Mark(stream.tell(), number + 1), [], []
                if len(problems) == MANY:
                    break
        if rows:
            yield mark, self._table(rows, ids)
        if problems:
            raise UserError(listed(problems), "the data")

    def _table(self, rows: list[list[str]], ids: list[str]) -> Table:
        columns = dict(zip(self.header, map(list, zip(*rows, strict=True)), strict=True))
        if self.texts is not None:
            columns["text"] = [self.texts.get(item, "") for item in columns["item"]]
        return Table(columns, ids)


def open_atomic(file: Path, name: str, encoding: str) -> InteractionFile:
    """An .inter file of RecBole, whose header says the type of each field: `user_id:token`, `rating:float`.

    `user_id`, `item_id`, `rating`, and `timestamp` play the roles of users, items, ratings, and times. If there is an
    .item file beside it, each row has the fields of its item, joined, as `text`.

    Raises:
        UserError: for a header without types, or without users and items.
    """
    header, body = _header(file, name, encoding)
    if missing := [field for field in ("user_id", "item_id") if ROLES[field] not in header]:
        what = f"must have the fields user_id:token and item_id:token, got {', '.join(header)}"
        raise UserError(Problem(f"{name}:1", what, hint=f"It has no {missing[0]}."), "the data")
    beside = file.with_name(file.name.replace(".inter", ".item"))
    texts = _texts(beside, encoding) if beside != file and beside.is_file() else None
    return InteractionFile(file, name, encoding, "\t", header, body, texts)


def items_beside(files: Sequence[Path]) -> list[Path]:
    """The .item files that are read with .inter files."""
    found = [file.with_name(file.name.replace(".inter", ".item")) for file in files]
    return [file for file, own in zip(found, files, strict=True) if file != own and file.is_file()]


def open_pairs(file: Path, name: str, encoding: str) -> InteractionFile:
    """A file without a header: `u.data` (tabs), `ratings.dat` (`::`), or `user item` in each line.

    Two columns are users and items; a third has ratings, a fourth times.

    Raises:
        UserError: for another number of columns.
    """
    with open_text(file, name, encoding) as stream:
        first = next((line for line in lines_of(stream, name, 1) if line.strip()), "")
    separator = next((mark for mark in SEPARATORS if mark in first), None)
    cells = first.rstrip("\r\n").split(separator)
    if first and not 2 <= len(cells) <= 4:
        what = f"must have a user and an item, and perhaps a rating and a time, got {plural(len(cells), 'cells')}"
        hint = "Write dataset=csv with dataset.header=[...] for other columns."
        raise UserError(Problem(f"{name}:1", what, hint=hint), "the data")
    return InteractionFile(file, name, encoding, separator, PLAIN[: len(cells)])


def _header(file: Path, name: str, encoding: str) -> tuple[tuple[str, ...], Mark]:
    with open_text(file, name, encoding) as stream:
        first = next(lines_of(stream, name, 1), "")
        body = Mark(stream.tell(), 2)
    fields = [cell.rpartition(":") for cell in first.rstrip("\r\n").split("\t")]
    for field, _, kind in fields:
        if not field or kind not in TYPES:
            what = f"must name fields with types, such as user_id:token, got {first.strip()[:60]!r}"
            hint = "For a file without a header, write dataset=ratings."
            raise UserError(Problem(f"{name}:1", what, hint=hint), "the data")
    return tuple(ROLES.get(field, field) for field, _, _ in fields), body


def _texts(file: Path, encoding: str) -> dict[str, str]:
    """What an .item file says of each item: its other fields, joined by commas."""
    header, body = _header(file, file.name, encoding)
    found = {}
    for _, table in InteractionFile(file, file.name, encoding, "\t", header, body).chunks():
        others = [values for name, values in table.columns.items() if name != "item"]
        for item, *cells in zip(table.columns["item"], *others, strict=True):
            found[item] = ", ".join(cell for cell in cells if cell)
    return found
