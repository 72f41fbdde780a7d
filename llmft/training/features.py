"""What training reads: the features of a split as one Arrow table, or the tokens of raw text as blocks.

Rows are encoded once and read a whole batch at a time. Blocks are cut elsewhere in each epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy
import pyarrow
import pyarrow.compute
from datasets import Dataset

from llmft.data.arrow import read_table, write_table
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.task import Task

if TYPE_CHECKING:
    from llmft.tasks.language_models.language_model import Example, LanguageModel

CHUNK = 1000  # rows that are encoded at a time: the tokenizer is fast from a few hundred on, and memory stays small
BYTES = 4_000_000  # or fewer rows, where they are long texts
TOKENS = "train.tokens"  # the file of all tokens of a language model's training text


@dataclass(frozen=True)
class FeatureSet:
    """The features of one split."""

    table: pyarrow.Table
    """What the collator gets, a column a key."""
    rows: list[int]
    """The row of each feature."""
    lengths: list[int] | None
    """The length of each feature, where lengths differ."""
    cut: int
    """Features that lost some of their row."""
    asides: pyarrow.Array | None = None
    """What the task keeps of each feature to decode its output."""

    @property
    def mean_length(self) -> float | None:
        """The mean of the lengths."""
        return sum(self.lengths) / len(self) if self.lengths else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Features by number. torch's DataLoader calls this once a batch: 30 times faster than one by one."""
        return self.table.take(indices).to_pylist()

    def with_column(self, name: str, values: pyarrow.Array) -> Self:
        """The same features, each with one value more for the collator."""
        return replace(self, table=self.table.append_column(name, values))

    def with_asides(self, outputs: list[Any], numbers: Sequence[int]) -> list[Any]:
        """The outputs of some features as `Task.decode` takes them: in pairs with what was kept aside, if anything."""
        if self.asides is None:
            return outputs
        return [(output, self.asides[number].as_py()) for output, number in zip(outputs, numbers, strict=True)]

    def save(self, file: Path) -> None:
        """Write everything into an Arrow file."""
        table = self.table.append_column("row", pyarrow.array(self.rows, pyarrow.int64()))
        if self.lengths is not None:
            table = table.append_column("length", pyarrow.array(self.lengths, pyarrow.int64()))
        if self.asides is not None:
            table = table.append_column("aside", self.asides)
        write_table(table.replace_schema_metadata({"cut": str(self.cut)}), file)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Map what `save` wrote into memory: pages are read as they are needed, and shared between processes."""
        table = read_table(file)
        cut = int(table.schema.metadata[b"cut"])
        rows = table["row"].to_pylist()
        lengths = table["length"].to_pylist() if "length" in table.column_names else None
        asides = table["aside"].combine_chunks() if "aside" in table.column_names else None
        kept = [name for name in table.column_names if name not in ("row", "length", "aside")]
        return cls(table.select(kept), rows, lengths, cut, asides)


def encode(task: Task[Any], rows: Dataset) -> FeatureSet:
    """Encode all rows of a split."""
    tables, owners, lengths, cut = [], [], [], 0
    for start, portion in portions(rows):
        features = task.encode(portion)
        owners += [start + row for row in features.pop("row")]
        lengths += features.pop("length", [])
        cut += sum(features.pop("cut", []))
        tables.append(pyarrow.table(features))
    table = pyarrow.concat_tables(tables).combine_chunks()
    asides = None
    if "aside" in table.column_names:
        asides = table["aside"].combine_chunks()
        table = table.drop_columns("aside")
    return FeatureSet(table, owners, lengths or None, cut, asides)


def portions(rows: Dataset) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """All rows in their order, at most CHUNK and about BYTES at a time, with the number of the first of them."""
    start = 0
    while start < len(rows):
        table = rows.data.table.slice(start, CHUNK)
        sizes = numpy.add.reduce([_sizes(column) for column in table.columns])
        count = max(1, int(numpy.searchsorted(numpy.cumsum(sizes), BYTES, side="right")))
        yield start, rows[start : start + min(count, CHUNK)]
        start += min(count, CHUNK)


def _sizes(column: pyarrow.ChunkedArray) -> numpy.ndarray:
    """The bytes of each text of a column; nothing for other kinds."""
    kind = column.type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        return numpy.zeros(len(column), dtype=numpy.int64)
    return pyarrow.compute.binary_length(column).fill_null(0).to_numpy().astype(numpy.int64)


@dataclass
class Blocks:
    """The blocks of an epoch, in the place of a FeatureSet. What a block is depends on (seed, epoch, number) alone."""

    tokens: numpy.ndarray
    """All of them, mapped into memory."""
    task: "LanguageModel"
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
        from llmft.tasks.language_models.language_model import token_counts  # with tokenizers, which tables do without

        count = token_counts(self.tokens, len(self.task.state.tokenizer))[unknown]
        return f"{told}, {count / len(self.tokens):.2%} {self.task.state.tokenizer.unk_token}" if count else told

    def __len__(self) -> int:
        return len(self.tokens) // self.stride

    def __getitem__(self, number: int) -> "Example":
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> "list[Example]":
        """Blocks by number, as the task makes examples of them."""
        return [self._example(number) for number in numbers]

    def _example(self, number: int) -> "Example":
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


def join_documents(task: "LanguageModel", rows: Dataset, folder: Path) -> Blocks:
    """Write the tokens of all documents into `folder`, an end after each, part by part, and map them into memory.

    Raises:
        UserError: if they don't fill a block.
    """
    kind = numpy.uint16 if len(task.state.tokenizer) <= 2**16 else numpy.uint32
    with (folder / TOKENS).open("wb") as stream:
        for tokens in _pieces(task, rows):
            numpy.asarray(tokens, dtype=kind).tofile(stream)
    count, stride = (folder / TOKENS).stat().st_size // kind().itemsize, task.stride()
    if count < stride:
        what = f"has {plural(count, 'tokens')}, and a block of task.block={task.state.block} takes {stride:,}"
        raise UserError(Problem("dataset.train", what, hint="Give more text, or a smaller task.block."), "the data")
    return load_blocks(task, folder)


def load_blocks(task: "LanguageModel", folder: Path) -> Blocks:
    """Map what `join_documents` wrote into memory."""
    kind = numpy.uint16 if len(task.state.tokenizer) <= 2**16 else numpy.uint32
    return Blocks(numpy.memmap(folder / TOKENS, dtype=kind, mode="r"), task)


def _pieces(task: "LanguageModel", rows: Dataset) -> Iterator[list[int]]:
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
