"""RUN/model/reference.json: what rows that were not trained on are like, by which a service notices drift."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from llmft.metrics.drift import LEAST, Reference, Value
from llmft.tasks.measurements import Meter, Vocabulary
from llmft.tasks.task import Answer, Task
from llmft.training.evaluation import Split

ROWS = 2000  # of the reference: the limits of 10,000 would be 6% narrower, for five times the work
TRAIN = 10_000  # training rows whose words are learned, in half a second; the share of new words hardly changes beyond
CHARACTERS = 2000  # of a training row: documents of a corpus may be long
PART = 500  # rows read at once


def write_reference(
    task: Task[Any], splits: Mapping[str, Split], name: str, answers: Sequence[Answer], salt: str, folder: Path
) -> None:
    """Write reference.json to `folder`, unless the split has fewer than LEAST rows.

    Args:
        name: the split that is the reference.
        answers: to all its rows.
        salt: of the hashes of words, such as a digest of the data, so that a repeated run writes the same file.
    """
    split = splits[name]
    if len(split.rows) < LEAST:
        return
    vocabulary = None
    if Meter(task, None).reads_text and "train" in splits:
        vocabulary = Vocabulary.learn(_texts(task, splits["train"].rows), salt[:16])
    measured = measure(Meter(task, vocabulary), split, answers, ROWS)
    Reference.of(measured, name, vocabulary.facts() if vocabulary else {}).save(folder)


def measure(meter: Meter, split: Split, answers: Sequence[Answer], most: int | None = None) -> dict[str, list[Value]]:
    """The measurements of a split, or of `most` of its rows, evenly spread.

    Args:
        answers: to all rows of the split.
    """
    found: dict[str, list[Value]] = {}
    for numbers in _parts(_spread(len(split.rows), most or len(split.rows))):
        # Images have one feature each, whose pixels lie decoded in a file.
        pixels = split.features.pixels.get("pixels")
        rows, own = split.rows.select(numbers), [answers[number] for number in numbers]
        part = meter.measure(rows, own, pixels.read(numbers) if pixels else None)
        for key, values in part.items():
            found.setdefault(key, []).extend(values)
    return found


def _texts(task: Task[Any], rows: Dataset) -> Iterator[str]:
    """The inputs of training rows as texts."""
    for numbers in _parts(_spread(len(rows), TRAIN)):
        yield from (task.format_input(row)[:CHARACTERS] for row in rows.select(numbers))


def _spread(rows: int, most: int) -> list[int]:
    """At most `most` of the indices below `rows`, evenly spread."""
    count = min(rows, most)
    return [number * rows // count for number in range(count)]


def _parts(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), PART):
        yield numbers[start : start + PART]
