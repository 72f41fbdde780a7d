"""What is measured of a row and its answer, so that drift can be noticed: numbers and labels, no text of a row.

Measured are the words of a text, the pixels of an image, or the columns of a table (`Measures` in optional.py), and the
answer by its form. The same code measures the rows of the reference after training, those that a service answers, and
the file of `llmft monitor`.
"""

import base64
import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy
from PIL import Image

from llmft.data.images import Cell, content
from llmft.data.source import Rows
from llmft.metrics.drift import Reference, Value
from llmft.tasks.optional import Measures
from llmft.tasks.task import Answer, Task
from llmft.tasks.text.sentences import WORD

MOST = 5000  # characters of a text whose words are looked at, in 1 ms
WORDS = 50_000  # words that are kept, 200 kB
IN_ROWS = 5  # a word of fewer rows may be a name of a person, and whoever guesses it could look it up
CACHED = 10_000  # words whose hashes are remembered, 2 MB: those of a text are mostly frequent ones
TEXTS = ("text", "texts", "words", "json")


class Vocabulary:
    """The words of training, as salted hashes of four bytes: a word that is not among them is new."""

    def __init__(self, salt: str, hashes: Iterable[int]) -> None:
        self.salt = salt
        self.hashes = frozenset(hashes)
        self._known: dict[str, bool] = {}

    @classmethod
    def learn(cls, texts: Iterable[str], salt: str) -> "Vocabulary | None":
        """The words of at least IN_ROWS texts; None if there are none."""
        rows: Counter[str] = Counter()
        for text in texts:
            rows.update(set(words(tokens(text))))
        frequent = [word for word, count in rows.most_common(WORDS) if count >= IN_ROWS]
        return cls(salt, (_hash(salt, word) for word in frequent)) if frequent else None

    def facts(self) -> dict[str, str]:
        """The vocabulary as JSON holds it: the salt, and the sorted hashes in base64."""
        packed = numpy.sort(numpy.fromiter(self.hashes, dtype="<u4")).tobytes()
        return {"salt": self.salt, "hashes": base64.b64encode(packed).decode()}

    @classmethod
    def of_facts(cls, facts: dict[str, str]) -> "Vocabulary | None":
        """What `facts` gave; None for an empty one."""
        if not facts:
            return None
        return cls(facts["salt"], numpy.frombuffer(base64.b64decode(facts["hashes"]), dtype="<u4").tolist())

    def new_share(self, found: Sequence[str]) -> float | None:
        """The share of words that are new; None if there is no word."""
        if not found:
            return None
        if len(self._known) > CACHED:
            self._known.clear()
        new = 0
        for word in found:
            known = self._known.get(word)
            if known is None:
                known = self._known[word] = _hash(self.salt, word) in self.hashes
            new += not known
        return new / len(found)


def _hash(salt: str, word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4, key=salt.encode()).digest(), "little")


def tokens(text: str) -> list[str]:
    """The words and marks in the first MOST characters, in lower case; of a script without spaces its characters."""
    return WORD.findall(text[:MOST].lower())


def words(found: Iterable[str]) -> list[str]:
    """Those of some tokens that are words or numbers, not marks."""
    return [token for token in found if token[0].isalnum()]


class Meter:
    """Measures rows of a task beside a vocabulary."""

    def __init__(self, task: Task[Any], vocabulary: Vocabulary | None) -> None:
        self.task = task
        self.vocabulary = vocabulary
        kinds = {spec.kind for spec in task.columns.values() if spec.is_input}
        self._image = next(
            (role for role, spec in task.columns.items() if spec.is_input and spec.kind == "image"), None
        )
        self._own = task.measure_inputs if isinstance(task, Measures) else None
        self.reads_text = bool(kinds & {*TEXTS}) and not self._own

    @classmethod
    def of_reference(cls, task: Task[Any], reference: Reference) -> "Meter":
        """The meter that made a reference, for other rows."""
        return cls(task, Vocabulary.of_facts(reference.words))

    def measure(
        self, rows: Rows, answers: Sequence[Answer], pixels: Sequence[bytes] | None = None
    ) -> dict[str, list[Value]]:
        """The measurements of some rows and their answers, by name.

        Args:
            answers: one for each of the rows, which have columns by role.
            pixels: of images, what `Task.encode` gave as `pixels`.
        """
        return self.measure_inputs(rows, pixels) | of_answers(answers)

    def measure_inputs(self, rows: Rows, pixels: Sequence[bytes] | None = None) -> dict[str, list[Value]]:
        """Those of the rows alone."""
        found: dict[str, list[Value]] = {}
        if self._own:
            found |= self._own(rows)
        if self.reads_text:
            found |= self._of_texts([self.task.format_input(row) for row in rows])
        if self._image:
            sizes = [_size(cell) for cell in rows[self._image][:]]
            found["width"] = [size[0] for size in sizes]
            found["height"] = [size[1] for size in sizes]
            if pixels is not None:
                found["brightness"] = [float(numpy.frombuffer(each, numpy.uint8).mean()) / 255 for each in pixels]
        return found

    def _of_texts(self, texts: list[str]) -> dict[str, list[Value]]:
        found = list(map(tokens, texts))
        # With marks, so that texts without punctuation are noticed too; of longer texts as many as in their beginning.
        lengths = [len(each) * max(len(text) / MOST, 1) for each, text in zip(found, texts, strict=True)]
        measured: dict[str, list[Value]] = {"length": [*lengths]}
        if self.vocabulary:
            measured["new words"] = [self.vocabulary.new_share(words(each)) for each in found]
        return measured


def _size(cell: Cell) -> tuple[int, int]:
    """Width and height of an image, from its header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(BytesIO(content(cell))).size


def of_answers(answers: Sequence[Answer]) -> dict[str, list[Value]]:
    """The measurements of answers. What there is of one depends on its form, and other forms have other names."""
    one = [_of_answer(answer) for answer in answers]
    names = dict.fromkeys(name for each in one for name in each)
    return {name: [each.get(name) for each in one] for name in names}


def _of_answer(answer: Answer) -> dict[str, Value]:
    """A class with its score, a number, the words of a text, or how many parts and of which labels."""
    given, scores = answer.get("answer"), answer.get("scores")
    if not isinstance(scores, dict):  # a masked language model has a list, of the tokens for each mask
        scores = None
    found: dict[str, Value] = {}
    if (isinstance(given, list) and given and isinstance(given[0], dict)) or (given == [] and scores is None):
        labels = [str(part.get("label", "")) for part in given]
        sure = [part["score"] for part in given if "score" in part]
        found = {"parts": len(given), "answer": ", ".join(sorted({*labels})) or "none"}
        return found | {"confidence": sum(sure) / len(sure) if sure else None}
    if isinstance(given, dict):
        return {"answer": max(given, key=given.__getitem__), "confidence": max(given.values())} if given else {}
    if isinstance(given, list) and given and isinstance(given[0], float):  # the ratings of several items
        return {"number": sum(given) / len(given)}
    if isinstance(given, list) and isinstance(answer.get("scores"), list):  # of a ranked list, what is first
        return {"answer": given[0] if given else "none"}
    if isinstance(given, list):
        found = {"answer": ", ".join(sorted(given)) or "none"}
        sure = [max(score, 1 - score) for score in (scores or {}).values()]
        return found | {"confidence": sum(sure) / len(sure) if sure else None}
    if isinstance(given, str) and scores and given in scores:
        return {"answer": given, "confidence": float(scores[given])}
    if isinstance(given, str):
        found = {"answer length": len(tokens(given))}
        return found | ({"confidence": float(answer["score"])} if "score" in answer else {})
    return {"number": float(given)} if isinstance(given, int | float) and math.isfinite(given) else found
