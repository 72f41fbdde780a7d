"""Which texts were seen before, in 8 bytes a text."""

from hashlib import blake2b

import numpy

RECENT = 100_000  # numbers in a set, which takes ten times as much memory as an array does


def digest_of(text: str) -> int:
    """64 bits of a text. Of ten million texts, two different ones have the same with a chance of 3 in a million."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class Digests:
    """A set of numbers below 2**64 that only grows."""

    def __init__(self) -> None:
        self.old = numpy.empty(0, numpy.uint64)  # in order
        self.recent: set[int] = set()

    def __len__(self) -> int:
        return len(self.old) + len(self.recent)

    def __contains__(self, number: int) -> bool:
        if number in self.recent:
            return True
        place = int(numpy.searchsorted(self.old, numpy.uint64(number)))
        return place < len(self.old) and int(self.old[place]) == number

    def add(self, number: int) -> bool:
        """Take a number in; whether it is new."""
        if number in self:
            return False
        self.recent.add(number)
        if len(self.recent) == RECENT:
            self.old = numpy.concatenate([self.old, numpy.fromiter(self.recent, numpy.uint64, RECENT)])
            self.old.sort(kind="stable")
            self.recent = set()
        return True
