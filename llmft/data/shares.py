"""Shares of a corpus that is too large to hold: its documents in the order of a draw, the first ones for each share."""

from array import array
from collections.abc import Iterator
from hashlib import blake2b
from math import ceil
from pathlib import Path

import numpy
import pyarrow

from llmft.data.arrow import TableWriter, read_table


class Shares:
    """Which split each document of `train` goes to. A document's place in the order depends on its text and the seed.

    So equal texts are drawn alike and go together. Memory holds about 20 bytes a document.
    """

    def __init__(self, shares: dict[str, float], seed: int) -> None:
        """`shares`: split -> share of `train`."""
        self.shares, self.key = shares, str(seed).encode()
        self.draws = array("Q")

    def needed(self, most: int | None) -> int | None:
        """How many documents give each split `most` of them; None for all."""
        least = min(*self.shares.values(), 1 - sum(self.shares.values()))
        return None if most is None else ceil(most / least)

    def add(self, digest: int) -> None:
        """The next document, by the digest of its text."""
        self.draws.append(int.from_bytes(blake2b(digest.to_bytes(8), digest_size=8, key=self.key).digest()))

    def parts(self) -> numpy.ndarray:
        """For each document 0, for train, or the number of its share from 1 on.

        A share gets as many as it says, rounded, but at least one, and leaves one to each split after it; documents of
        one text that stand at its end all go to it. Where there are too few texts for that, all stay in train.
        """
        draws = numpy.frombuffer(self.draws, dtype=numpy.uint64) if self.draws else numpy.zeros(0, numpy.uint64)
        order, found = numpy.sort(draws), numpy.zeros(len(draws), dtype=numpy.int8)
        if numpy.count_nonzero(order[1:] != order[:-1]) < len(self.shares):
            return found
        start = 0
        for number, share in enumerate(self.shares.values(), 1):
            left = len(self.shares) - number + 1
            stop = max(start + 1, min(start + round(share * len(order)), len(order) - left))
            if start < len(order):
                last = order[stop - 1]
                found[(draws <= last) & (found == 0)] = number
                start = int(numpy.searchsorted(order, last, "right"))
        return found

    def share_out(self, whole: Path, files: list[Path], most: int | None) -> list[int]:
        """Move the rows of `whole` into a file for train and one for each share; at most so many documents each.

        Returns:
            How many documents each file has.
        """
        parts = self.parts()
        for number in range(len(files) if most else 0):
            parts[numpy.flatnonzero(parts == number)[most:]] = -1
        writers = [TableWriter(file, read_table(whole).schema) for file in files]
        for batch, rows in _of_documents(whole):
            goes = parts[rows]
            for number, writer in enumerate(writers):
                if (mine := goes == number).any():
                    writer.write(pyarrow.Table.from_batches([batch]).filter(pyarrow.array(mine)))
        for writer in writers:
            writer.close()
        whole.unlink()
        return [int((parts == number).sum()) for number in range(len(files))]


def _of_documents(file: Path) -> Iterator[tuple[pyarrow.RecordBatch, list[int]]]:
    """The rows of a file part by part, and of each the number of its document."""
    number, last = -1, ""
    for batch in read_table(file).to_batches():
        rows = []
        for document in batch["document"].to_pylist():
            if document != last:
                number, last = number + 1, document
            rows.append(number)
        yield batch, rows
