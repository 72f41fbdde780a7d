"""A sample of rows that come a chunk at a time."""

import random
from typing import Any

from llmft.data.strata import classes
from llmft.data.table import Table

Row = tuple[int, str, dict[str, Any]]  # its number, its id, its values


class Sample:
    """Rows drawn at random, as many as were asked for or all there are; and besides them the first of each label."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.random = random.Random(seed)
        self.seen = 0
        self.drawn: list[Row] = []
        self.first: dict[str, Row] = {}

    def add(self, table: Table) -> None:
        """Draw from some more rows. After each, every row so far has had the same chance (Vitter's algorithm R)."""
        for place in range(len(table)):
            where = self.seen if self.seen < self.size else self.random.randrange(self.seen + 1)
            found = classes(table.columns["label"][place]) if "label" in table.columns else []
            new = [name for name in found if name not in self.first]
            if where < self.size or new:
                row = (self.seen, table.ids[place], {name: values[place] for name, values in table.columns.items()})
                if where < self.size:
                    self.drawn[where : where + 1] = [row]
                self.first |= dict.fromkeys(new, row)
            self.seen += 1

    def table(self) -> Table:
        """The rows that were drawn, in the order in which they came."""
        rows = {row[0]: row for row in (*self.drawn, *self.first.values())}
        found = [rows[number] for number in sorted(rows)]
        names = list(found[0][2]) if found else []
        return Table({name: [row[2][name] for row in found] for name in names}, [row[1] for row in found])
