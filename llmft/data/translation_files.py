"""Reads translations: two files aligned line by line, and gettext's .po files, by polib."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from llmft.data.encodings import lines_of, open_text, strip_line_end
from llmft.data.source import CHUNK, START, FileGroup, Mark, Table
from llmft.schema.problem import Problem, UserError, missing_package, plural

NAMES = ("source", "target")
"""The columns of the two files, in order."""


@dataclass(frozen=True)
class AlignedFiles(FileGroup):
    """Two aligned files. The ids of rows have the lines of the first."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is. Lines that are empty in both files are left out.

        Raises:
            UserError: after the last chunk, if one file has more lines than the other.
        """
        table = Table({name: [] for name in NAMES})
        counts = [0, 0]
        with (
            open_text(self.files[0], self.names[0], self.encoding) as one,
            open_text(self.files[1], self.names[1], self.encoding) as other,
        ):
            streams = (lines_of(one, self.names[0], 1), lines_of(other, self.names[1], 1))
            for number, pair in enumerate(zip_longest(*streams), 1):
                if None in pair:
                    counts = [count + (line is not None) for count, line in zip(counts, pair, strict=True)]
                    continue
                counts = [number, number]
                if not any(map(str.strip, pair)):
                    table.left_out["empty lines were left out"] += 1
                    continue
                for name, line in zip(NAMES, pair, strict=True):
                    table.columns[name].append(strip_line_end(line))
                table.ids.append(f"{self.names[0]}:{number}")
                if len(table) == CHUNK:
                    yield START, table
                    table = Table({name: [] for name in NAMES})
        yield START, table
        if counts[0] != counts[1]:
            what = f"has {plural(counts[0], 'lines')}, and {self.names[1]} has {counts[1]:,}"
            hint = "Each line must be the translation of the same line in the other file."
            raise UserError(Problem(self.names[0], what, hint=hint), "the data")


@dataclass(frozen=True)
class PoFile:
    """A .po file, as one chunk: messages as `source`, translations as `target`; of several plural forms, the first."""

    file: Path
    name: str
    encoding: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Obsolete, fuzzy, and untranslated messages are left out and counted."""
        if problems := missing_package("dataset.format", "po", "polib", "text"):
            raise UserError(problems, "the data")
        import polib

        with open_text(self.file, self.name, self.encoding) as stream:
            text = "".join(lines_of(stream, self.name, 1))
        try:
            # polib takes a string that is the path of a file for that file. With a leading newline it never is.
            entries = polib.pofile(_Lines("\n" + text))
        except OSError as error:
            raise UserError(_broken(str(error), self.name), "the data") from error
        table = Table({"source": [], "target": []})
        for entry in entries:
            if entry.obsolete:
                table.left_out["obsolete messages were left out"] += 1
            elif entry.fuzzy:
                table.left_out["fuzzy messages were left out"] += 1
            elif not (translation := entry.msgstr or entry.msgstr_plural.get(0, "")):
                table.left_out["messages without a translation were left out"] += 1
            else:
                table.columns["source"].append(entry.msgid)
                table.columns["target"].append(translation)
                table.ids.append(f"{self.name}:{max(entry.linenum - 1, 1)}")
        yield START, table


class _Lines(str):
    """A text whose `splitlines` splits only at `\\n`; str's own would split a message at a U+2028 or `\\r` in it."""

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self.split("\n")


def _broken(why: str, name: str) -> Problem:
    """The problem of a file that polib cannot read, with its line as `FILE:LINE`."""
    line = re.search(r"\(line (\d+)\)", why)
    reason = why.rpartition(": ")[2].strip() if ": " in why else "is not a gettext file"
    place = f"{name}:{int(line[1]) - 1}" if line else name
    return Problem(place, f"is not a gettext file: {reason}" if reason != "is not a gettext file" else reason)
