"""Checks of the images of all splits before training: each is decoded once, and what is wrong or odd comes together.

Images that are nearly the same are found by a perceptual hash: the signs of differences between neighbors in a
image of 9 x 8 gray pixels, 64 bits, which saving an image again hardly changes.
"""

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy
from PIL import Image
from tqdm import tqdm

from llmft.data.images import ONE_PIXEL, BadImage, Cell, as_array, oddities, open_image, problem
from llmft.data.source import Table, listed
from llmft.schema.column import Column
from llmft.schema.problem import Problem, plural

THUMB = 16  # side of the gray images that confirm a match of hashes
APART = 3  # bits in which the hashes of two copies may differ: one of four parts of 16 bits is then equal
ALIKE = 4.0  # mean difference of two copies as thumbnails, in levels of 255: JPEG of quality 50 makes about 2
BUCKET = 50  # images with one part of the hash in common; more say nothing, such as digits on black
SHOWN = 3
BROKEN = "rows with an image that cannot be read were left out"
DROP_BROKEN = Problem("dataset.drop_broken", "set it to true to leave such rows out", mistakes=0)


@dataclass(frozen=True)
class Seen:
    """What decoding an image has shown."""

    flaw: str = ""
    """Why it cannot be used, in words that follow its name."""
    odd: tuple[str, ...] = ()
    """What was done to it, such as turning it; see `oddities`."""
    thumb: bytes = b""
    """Its gray thumbnail, THUMB x THUMB."""
    hash: int = 0
    """The perceptual hash, 64 bits; 0 for an image of one color, which is like all others of one."""


def look(cell: Cell) -> Seen:
    """Decode an image as encoding will."""
    try:
        image = open_image(cell)
        if image.size == (1, 1):
            return Seen(ONE_PIXEL)
        gray = as_array(image, channels=1)
    except BadImage as error:
        return Seen(str(error))
    thumb = gray.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes()
    # int16, since differences of uint8 wrap around.
    small = numpy.asarray(gray.resize((9, 8), Image.Resampling.BOX)).astype(numpy.int16)
    bits = numpy.packbits(small[:, 1:] > small[:, :-1])
    return Seen("", oddities(cell), thumb, int.from_bytes(bits.tobytes(), "big"))


def look_at_all(cells: list[Cell]) -> list[Seen]:
    """Decode all images, in threads: Pillow works without the lock of Python."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        found = threads.map(look, cells)
        return list(tqdm(found, "checking images", len(cells), leave=False, disable=None, delay=2))


def check_images(
    tables: dict[str, Table], roles: dict[str, Column], drop: bool
) -> tuple[dict[str, Table], list[Problem], list[str]]:
    """The splits without rows whose images cannot be read, the problems of those unless `drop`, and notes.

    Problems come by file and reason. Notes say what decoding will change, and which images of two splits are alike.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    kept = dict(tables)
    hashed: dict[str, list[Seen]] = {}
    for split, table in tables.items():
        bad: dict[int, list[Problem]] = {}
        for role, spec in roles.items():
            if spec.kind != "image" or role not in table.columns:
                continue
            cells = table.columns[role]
            # An optional role may be empty.
            rows = [row for row, cell in enumerate(cells) if cell is not None]
            # Decoded here and once more by `encode`: pixels of all images at once would not fit in memory.
            seen = dict(zip(rows, look_at_all([cells[row] for row in rows]), strict=True))
            for row in range(len(table)):
                if row in seen and seen[row].flaw:
                    bad.setdefault(row, []).append(problem(table.ids[row], cells[row], seen[row].flaw, split))
                elif row not in seen and spec.required:
                    bad.setdefault(row, []).append(Problem(table.ids[row], f"has no {role} ({split})"))
            notes += _notes(split, table.ids, seen)
            # Masks are not hashed: those of different images may well be alike.
            if spec.is_input:
                hashed[split] = [seen.get(row, Seen("none")) for row in range(len(table))]
        if bad:
            gone = [found for row in sorted(bad) for found in bad[row]]
            problems += [] if drop else listed(gone)
            notes += [f"{split}: {plural(len(bad), BROKEN)}, such as {gone[0].key}: {gone[0].what}"] if drop else []
            stay = [row for row in range(len(table)) if row not in bad]
            kept[split] = table.take(stay)
            if split in hashed:
                hashed[split] = [hashed[split][row] for row in stay]
    if problems:
        problems.append(DROP_BROKEN)
    return kept, problems, notes + alike({name: kept[name].ids for name in hashed}, hashed)


def _notes(split: str, ids: list[str], seen: dict[int, Seen]) -> list[str]:
    """A line for each thing that decoding changes, with the number of images and the first of them."""
    counts = Counter(what for found in seen.values() for what in found.odd)
    first = {what: ids[row] for row, found in reversed(seen.items()) for what in found.odd}
    return [f"{split}: {plural(count, what)}, such as {first[what]}" for what, count in counts.items()]


def alike(ids: dict[str, list[str]], seen: dict[str, list[Seen]]) -> list[str]:
    """A note for two splits with images that look the same, but are other files."""
    notes = []
    names = list(seen)
    for place, one in enumerate(names):
        buckets = _buckets(seen[one])
        for other in names[place + 1 :]:
            matches = ((row, _match(found, seen[one], buckets)) for row, found in enumerate(seen[other]))
            pairs = [(ids[other][row], ids[one][match]) for row, match in matches if match is not None]
            if pairs:
                shown = ", ".join(f"{copy} ({original})" for copy, original in pairs[:SHOWN])
                what = plural(len(pairs), f"images of {other} are like one of {one}")
                notes.append(f"{what}, such as {shown}: if they are copies, metrics are too good")
    return notes


def _parts(value: int) -> Iterable[tuple[int, int]]:
    return ((part, value >> 16 * part & 0xFFFF) for part in range(4))


def _buckets(seen: list[Seen]) -> dict[tuple[int, int], list[int]]:
    """The images by each part of their hash; without parts that many have in common."""
    found: dict[tuple[int, int], list[int]] = {}
    for row, one in enumerate(seen):
        for part in _parts(one.hash) if one.hash else ():
            found.setdefault(part, []).append(row)
    return {part: rows for part, rows in found.items() if len(rows) <= BUCKET}


def _match(one: Seen, others: list[Seen], buckets: dict[tuple[int, int], list[int]]) -> int | None:
    """The first of `others` that looks like `one`."""
    candidates = {row for part in _parts(one.hash) for row in buckets.get(part, ())} if one.hash else set()
    for row in sorted(candidates):
        if (one.hash ^ others[row].hash).bit_count() <= APART and _difference(one.thumb, others[row].thumb) <= ALIKE:
            return row
    return None


def _difference(one: bytes, other: bytes) -> Any:
    """The mean difference of two thumbnails, in levels."""
    pair = (numpy.frombuffer(values, numpy.uint8).astype(numpy.int16) for values in (one, other))
    first, second = pair
    return numpy.abs(first - second).mean()
