"""Filters raw text while it is read: each text by itself, and against all texts before it."""

import tempfile
from array import array
from collections import Counter
from hashlib import blake2b
from types import TracebackType
from typing import Self

import numpy

from llmft.data.clean import flaw_of_row
from llmft.data.duplicates import MinHashIndex
from llmft.schema.dataset import CleanConfig
from llmft.schema.problem import plural

RECENT = 100_000  # digests held in a set, which takes ten times the memory of an array, before they are merged into one


class Spool:
    """Texts in a temporary file, read back by index. Each takes 8 bytes of memory."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, number: int) -> str:
        self.file.seek(self.ends[number])
        return self.file.read(self.ends[number + 1] - self.ends[number]).decode("utf-8", "surrogatepass")

    def add(self, text: str) -> None:
        """Append a text; its index is the number of texts before it."""
        self.file.seek(self.ends[-1])
        self.file.write(text.encode("utf-8", "surrogatepass"))
        self.ends.append(self.file.tell())


class Sieve:
    """Decides for each text of train, in order, whether it stays. The texts of other splits are added first."""

    def __init__(self, clean: CleanConfig) -> None:
        self.clean = clean
        # The last row of a long document may be short; min_characters is for whole documents.
        self.further = clean.model_copy(update={"min_characters": None})
        self.counts: Counter[str] = Counter()
        """How many texts were left out, by reason."""
        self.examples: dict[str, str] = {}
        """A pair of ids for each reason that compares two texts."""
        self.others, self.seen = Digests(), Digests()
        self.texts, self.ids = Spool(), Spool()
        self.first = 0  # index of the first text of train
        self.near = MinHashIndex(clean.near_duplicates, self.texts.__getitem__) if clean.near_duplicates else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.texts.file.close()
        self.ids.file.close()

    def tell(self, text: str, id: str, digest: int) -> None:
        """Add a text of another split, so that texts of train which repeat it are left out."""
        if self.clean.leaks:
            self.others.add(digest)
            if self.near:
                self._remember(text, id, self.near.minhash(text))
                self.first = len(self.texts)

    def stays(self, text: str, id: str, digest: int, further: bool) -> bool:
        """Whether a text of train stays.

        Args:
            digest: of the text without case and extra space.
            further: whether it continues a document, and is not its first row.
        """
        limits = self.further if further else self.clean
        why = flaw_of_row([text], limits) or self._repeated(digest) or self._near(text, id)
        if why:
            self.counts[why] += 1
        return not why

    def notes(self) -> list[str]:
        """A line for each reason, with an example for near duplicates."""
        found = []
        for why, count in self.counts.items():
            found.append(f"train: {plural(count, why)}")
            found += [f"train: such as {self.examples[why]}"] if why in self.examples else []
        return found

    def _repeated(self, digest: int) -> str:
        if digest in self.others:
            return "rows that are also in other splits were left out"
        if self.clean.duplicates != "keep" and not self.seen.add(digest):
            return "exact duplicates were left out"
        return ""

    def _near(self, text: str, id: str) -> str:
        if not self.near:
            return ""
        hashed = self.near.minhash(text)
        if (twin := self.near.match(text, hashed)) is None:
            self._remember(text, id, hashed)
            return ""
        what = "rows that are nearly in other splits" if twin < self.first else "near duplicates"
        self.examples.setdefault(f"{what} were left out", f"{id}, which is like {self.ids[twin]}")
        return f"{what} were left out"

    def _remember(self, text: str, id: str, hashed: object) -> None:
        assert self.near
        self.near.add(len(self.texts), hashed)
        self.texts.add(text)
        self.ids.add(id)


def digest_of(text: str) -> int:
    """A 64-bit hash of a text. Among ten million texts, the chance that any two collide is 3 in a million."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class Digests:
    """A set of 64-bit integers that only grows: a sorted array of 8 bytes each, and a small set of recent ones."""

    def __init__(self) -> None:
        self.old = numpy.empty(0, numpy.uint64)  # sorted
        self.recent: set[int] = set()

    def __len__(self) -> int:
        return len(self.old) + len(self.recent)

    def __contains__(self, number: int) -> bool:
        if number in self.recent:
            return True
        place = int(numpy.searchsorted(self.old, numpy.uint64(number)))
        return place < len(self.old) and int(self.old[place]) == number

    def add(self, number: int) -> bool:
        """Add a number. Returns whether it is new."""
        if number in self:
            return False
        self.recent.add(number)
        if len(self.recent) == RECENT:
            self.old = numpy.concatenate([self.old, numpy.fromiter(self.recent, numpy.uint64, RECENT)])
            self.old.sort(kind="stable")
            self.recent = set()
        return True
