"""Two files of texts, line by line: what is on a line of one is what is on the same line of the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from llmft.data.encodings import lines_of, opened, without_end
from llmft.data.source import CHUNK, START, FileGroup, Mark
from llmft.data.table import Table
from llmft.schema.problem import Problem, UserError, plural

NAMES = ("source", "target")
"""The columns that the two files become, in their order."""


@dataclass(frozen=True)
class AlignedFiles(FileGroup):
    """Two aligned files; rows are named by the lines of the first."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`; all rows, whatever `start` is. Lines that are empty in both files part others, and are no rows.

        Raises:
            UserError: after the last chunk, where one file has more lines than the other.
        """
        table = Table({name: [] for name in NAMES})
        counts = [0, 0]
        with (
            opened(self.files[0], self.names[0], self.encoding) as one,
            opened(self.files[1], self.names[1], self.encoding) as other,
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
                    table.columns[name].append(without_end(line))
                table.ids.append(f"{self.names[0]}:{number}")
                if len(table) == CHUNK:
                    yield START, table
                    table = Table({name: [] for name in NAMES})
        yield START, table
        if counts[0] != counts[1]:
            what = f"has {plural(counts[0], 'lines')}, and {self.names[1]} has {counts[1]:,}"
            hint = "A line of one must say what the same line of the other says."
            raise UserError(Problem(self.names[0], what, hint=hint), "the data")
