"""The training text of a language model: all tokens in one file, read block by block, cut elsewhere in each epoch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy
from datasets import Dataset

from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.language_models.language_model import Example, LanguageModel, token_counts
from llmft.training.features import portions

FILE = "train.tokens"


@dataclass
class Blocks:
    """The blocks of an epoch, in the place of a FeatureSet. What a block is depends on (seed, epoch, number) alone."""

    tokens: numpy.ndarray
    """All of them, mapped into memory."""
    task: LanguageModel
    seed: int = 0
    epoch: int = 0
    lengths = None
    """A block is as long as any other."""
    cut = 0

    def __post_init__(self) -> None:
        self.task = self.task.trained_on(self.tokens)
        self.stride = self.task.stride()
        self.set_epoch(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose an epoch, counting from 0: the first block of each begins somewhere else."""
        self.epoch = epoch
        self.offset = int(numpy.random.default_rng((self.seed, epoch)).integers(self.stride))

    def of(self, seed: int) -> Self:
        """The blocks of a run."""
        return replace(self, seed=seed)

    @property
    def mean_length(self) -> float:
        """Tokens of the text in a block."""
        return float(self.stride)

    def about(self) -> str:
        """How much text there is, and how much of it the tokenizer does not know."""
        told = f"{plural(len(self.tokens), 'tokens')}, {plural(len(self), 'blocks')} of {self.stride:,}"
        unknown = self.task.state.tokenizer.unk_token_id
        if unknown is None or unknown == self.task.state.end:  # GPT-2 has one token for all that is special
            return told
        count = token_counts(self.tokens, len(self.task.state.tokenizer))[unknown]
        return f"{told}, {count / len(self.tokens):.2%} {self.task.state.tokenizer.unk_token}" if count else told

    def __len__(self) -> int:
        return len(self.tokens) // self.stride

    def __getitem__(self, number: int) -> Example:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[Example]:
        """Blocks by number, as the task makes examples of them."""
        return [self._example(number) for number in numbers]

    def _example(self, number: int) -> Example:
        key, other = (self.seed, self.epoch, number), None
        if self.task.paired and len(self) > 1:
            further = 1 + int(numpy.random.default_rng((*key, 1)).integers(len(self) - 1))
            other = self._block((number + further) % len(self))
        return self.task.example(self._block(number), key, other)

    def _block(self, number: int) -> numpy.ndarray:
        """The tokens of a block; the last one goes on at the beginning of the file, which is a document's."""
        first = self.offset + number * self.stride
        length = self.stride + self.task.context
        if first + length <= len(self.tokens):
            return self.tokens[first : first + length].astype(numpy.int64)
        return self.tokens[numpy.arange(first, first + length) % len(self.tokens)].astype(numpy.int64)


def join(task: LanguageModel, rows: Dataset, folder: Path) -> Blocks:
    """Write the tokens of all documents into `folder`, an end after each, part by part, and map them into memory.

    Raises:
        UserError: if they don't fill a block.
    """
    kind = numpy.uint16 if len(task.state.tokenizer) <= 2**16 else numpy.uint32
    with (folder / FILE).open("wb") as stream:
        for tokens in _pieces(task, rows):
            numpy.asarray(tokens, dtype=kind).tofile(stream)
    count, stride = (folder / FILE).stat().st_size // kind().itemsize, task.stride()
    if count < stride:
        what = f"has {plural(count, 'tokens')}, and a block of task.block={task.state.block} takes {stride:,}"
        raise UserError(Problem("dataset.train", what, hint="Give more text, or a smaller task.block."), "the data")
    return load(task, folder)


def load(task: LanguageModel, folder: Path) -> Blocks:
    """Map what `join` wrote into memory."""
    kind = numpy.uint16 if len(task.state.tokenizer) <= 2**16 else numpy.uint32
    return Blocks(numpy.memmap(folder / FILE, dtype=kind, mode="r"), task)


def _pieces(task: LanguageModel, rows: Dataset) -> Iterator[list[int]]:
    """The tokens of each row, and an end where no row goes on with the document."""
    last: Any = None
    before: list[int] = [] if task.state.start == task.state.end else [task.state.start]
    for number, (_, portion) in enumerate(portions(rows)):
        documents = portion.get("document") or [None] * len(portion["text"])
        for row, (tokens, document) in enumerate(zip(task.tokens(portion["text"]), documents, strict=True)):
            begins = document is None or document != last
            if begins and (number or row):
                yield [task.state.end]
            yield [*before, *tokens] if begins else tokens
            last = document
    yield [task.state.end]
