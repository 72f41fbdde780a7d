"""Passages found for questions by their words (BM25), or by an embedding run: what question answering reads.

The index of BM25 holds no weights. It is made again of the passages whenever a run is loaded: 0.4 ms for a
passage of 120 words.
"""

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy
import regex

from llmft.data.passages import FILE, Passages
from llmft.schema.problem import Problem, UserError

RETRIEVER = "retriever.json"
"""Beside it, if an embedding run finds the passages."""
PREFIX = 4
"""Letters that words share where they count as related: `building` and `built` do not, `invaded` and `invasion` do.

Of the 3,939 questions of SQuAD's training articles, the right one of 920 passages is among the first five for 88.1% by
whole words alone, and with prefixes of 4, 5, and 6 letters beside them for 90.6%, 89.7%, and 88.9%.
"""
WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
# Scripts without spaces between words. Two neighboring characters stand for a word there.
UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]+")


class Search(Protocol):
    """Finds passages for questions."""

    @property
    def passages(self) -> Passages:
        """The corpus."""

    def search(self, questions: list[str], count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The best passages for each question, the best first; of equal scores the one that comes first in the corpus.

        Returns:
            places in the corpus, (questions, count) int64, and their scores, float32; `count` is at most the size of
            the corpus.
        """

    def save(self, folder: Path) -> None:
        """Write what `load` reads to RUN/model."""


def terms(text: str) -> list[str]:
    """What BM25 counts of a text: words in lower case, and the prefixes of longer ones; pairs of characters in scripts
    without spaces, such as Chinese."""
    found: list[str] = []
    for match in WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        start, word = 0, match[0]
        for part in UNSPACED.finditer(word):
            found += _of_word(word[start : part.start()])
            run = part[0]
            found += [run[at : at + 2] for at in range(max(len(run) - 1, 1))]
            start = part.end()
        found += _of_word(word[start:])
    return found


def _of_word(word: str) -> list[str]:
    return [word, f"{word[:PREFIX]}*"] if len(word) > PREFIX else [word] if word else []


@dataclass
class Bm25:
    """Okapi BM25 with the idf of Lucene (Robertson & Zaragoza 2009), by bm25s, over titles and texts."""

    passages: Passages
    vocabulary: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index the passages; UserError if bm25s is not installed."""
        try:
            import bm25s
        except ModuleNotFoundError as error:
            hint = "Write: pip install 'llmft[retrieval]'"
            raise UserError(Problem("dataset.corpus", "needs the package bm25s", hint=hint)) from error
        known = self.vocabulary
        tokens = [[known.setdefault(term, len(known)) for term in terms(text)] for text in self.passages.full_texts()]
        self.index = bm25s.BM25(k1=1.5, b=0.75)
        self.index.index((tokens, known), show_progress=False)

    def search(self, questions: list[str], count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """See `Search`."""
        index, count = self.index, min(count, len(self.passages))
        places = numpy.zeros((len(questions), count), dtype=numpy.int64)
        scores = numpy.zeros((len(questions), count), dtype=numpy.float32)
        for row, question in enumerate(questions):
            tokens = [self.vocabulary[term] for term in terms(question) if term in self.vocabulary]
            found = index.get_scores_from_ids(tokens) if tokens else numpy.zeros(len(self.passages), numpy.float32)
            # Of equal scores the first passage, whatever `count` is: bm25s' own top k has no such rule. All with the
            # score of the last one are sorted, since a partition alone takes any of them.
            among = numpy.flatnonzero(found >= numpy.partition(found, -count)[-count])
            best = among[numpy.argsort(-found[among], kind="stable")][:count]
            places[row], scores[row] = best, found[best]
        return places, scores

    def save(self, folder: Path) -> None:
        """See `Search`."""
        self.passages.save(folder / FILE)


def open_search(retriever: str, passages: Passages) -> Search:
    """The search that `task.retriever` names: `bm25`, or an embedding run.

    Raises:
        UserError: if bm25s is not installed, or there is no such run.
    """
    if retriever == "bm25":
        return Bm25(passages)
    from llmft.tasks.retrieval.embedding_search import EmbeddingSearch  # imports torch

    return EmbeddingSearch.of_run(retriever, passages)


def load_search(folder: Path) -> Search | None:
    """The search that was saved in a folder, or None."""
    if (folder / RETRIEVER).is_file():
        from llmft.tasks.retrieval.embedding_search import EmbeddingSearch

        return EmbeddingSearch.load(folder)
    return Bm25(Passages.load(folder / FILE)) if (folder / FILE).is_file() else None
