"""What training reads: the features of a split as one Arrow table, or the tokens of raw text as blocks.

Rows are encoded once and read a batch at a time. Pixels are written to a file chunk by chunk, and read from there.
Blocks begin at another token in each epoch.
"""

import json
import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy
import pyarrow
import pyarrow.compute
from datasets import Dataset

from llmft.data.arrow import read_table, to_dataset, write_table
from llmft.data.source import Rows, Table
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.task import Task

if TYPE_CHECKING:
    from llmft.tasks.language_models.language_model import Example
    from llmft.tasks.optional import ReadsBlocks

CHUNK = 1000  # rows encoded at once: the tokenizer reaches full speed at a few hundred, and memory stays small
BYTES = 4_000_000  # of text encoded at once: fewer rows where texts are long
PIXELS = {"pixels", "mask"}  # keys whose values are bytes of one width, which go to files
IMAGES = 64  # rows encoded at once: of 224 x 224 x 3 pixels they take 10 MB
TOKENS = "train.tokens"  # the file with all tokens of a language model's training text


class BytesFile:
    """A file with values of one width, such as the pixels of images of one size, that are read by their index.

    Read, not memory-mapped: pages of a mapping count as memory of the process until the system takes them back. Several
    processes can read at once, forked ones by the same open file.
    """

    def __init__(self, file: Path | None = None, width: int = 0) -> None:
        """`file`: None for a temporary one, which goes with the object."""
        self.width = width
        if file is None:
            handle, name = mkstemp(prefix="llmft-")
            os.close(handle)
            file = Path(name)
            weakref.finalize(self, file.unlink, missing_ok=True)
        self.file = file
        self.stream: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"stream": None}  # a process that is not forked opens it again

    def open(self) -> BinaryIO:
        """Open the file, so that it can be read even when its name is gone."""
        if self.stream is None:
            self.stream = self.file.open("rb", buffering=0)
        return self.stream

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """The values with these indices."""
        stream = self.open()
        if hasattr(os, "pread"):  # without the position of the file, which forked processes share
            number = stream.fileno()
            return [os.pread(number, self.width, index * self.width) for index in indices]
        found = []
        for index in indices:
            stream.seek(index * self.width)
            found.append(stream.read(self.width))
        return found


@dataclass(frozen=True)
class FeatureSet:
    """The features of one split."""

    table: pyarrow.Table
    """The collator's input: a row for each feature, a column for each key."""
    rows: list[int]
    """The index of each feature's row. A row may have several features, such as the windows of a long text."""
    lengths: list[int] | None
    """Tokens of each feature; None if all have the same length."""
    cut: int
    """How many features were truncated."""
    asides: pyarrow.Array | None = None
    """What the task keeps of each feature to decode its output, such as where tokens begin in the text."""
    pixels: dict[str, BytesFile] = field(default_factory=dict)
    """The keys PIXELS of the collator's input."""

    @property
    def mean_length(self) -> float | None:
        """Mean tokens per feature; None if all have the same length."""
        return sum(self.lengths) / len(self) if self.lengths else None

    @cached_property
    def _matrices(self) -> dict[str, numpy.ndarray]:
        """The keys that have one length in all rows, (rows, width) each; see `Codec.fixed`."""
        found = {}
        for name in self.table.column_names:
            kind = self.table[name].type
            if pyarrow.types.is_fixed_size_list(kind):
                values = self.table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                found[name] = values.reshape(-1, kind.list_size)
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Features by index. torch's DataLoader calls this once a batch, 30 times faster than one call a feature."""
        rest = self.table.drop_columns(list(self._matrices))
        found = rest.take(indices).to_pylist() if rest.num_columns else [{} for _ in indices]
        for name, matrix in self._matrices.items():
            for feature, row in zip(found, matrix[indices], strict=True):
                feature[name] = row
        for name, values in self.pixels.items():
            for feature, value in zip(found, values.read(indices), strict=True):
                feature[name] = value
        return found

    def with_column(self, name: str, values: pyarrow.Array) -> Self:
        """These features with one more value each for the collator."""
        return replace(self, table=self.table.append_column(name, values))

    def with_asides(self, outputs: list[Any], numbers: Sequence[int]) -> list[Any]:
        """Outputs of some features as `Task.decode` takes them: pairs (output, aside) if the task has asides."""
        if self.asides is None:
            return outputs
        return [(output, self.asides[number].as_py()) for output, number in zip(outputs, numbers, strict=True)]

    def hold(self) -> None:
        """Open all files, so that features can be read even when the folder that they are in goes."""
        for values in self.pixels.values():
            values.open()

    def save(self, file: Path) -> None:
        """Write all of it to one Arrow file, and a file beside it for each key of pixels."""
        table = self.table.append_column("row", pyarrow.array(self.rows, pyarrow.int64()))
        if self.lengths is not None:
            table = table.append_column("length", pyarrow.array(self.lengths, pyarrow.int64()))
        if self.asides is not None:
            table = table.append_column("aside", self.asides)
        for name, values in self.pixels.items():
            if values.file != (place := _bytes_file(file, name)):  # it is where `encode` was told to write it
                shutil.copyfile(values.file, place)
        widths = {name: values.width for name, values in self.pixels.items()}
        write_table(table.replace_schema_metadata({"cut": str(self.cut), "widths": json.dumps(widths)}), file)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Memory-map the file that `save` wrote: pages are read when needed, and shared between processes."""
        table = read_table(file)
        cut = int(table.schema.metadata[b"cut"])
        rows = table["row"].to_pylist()
        lengths = table["length"].to_pylist() if "length" in table.column_names else None
        asides = table["aside"].combine_chunks() if "aside" in table.column_names else None
        kept = [name for name in table.column_names if name not in ("row", "length", "aside")]
        widths = json.loads(table.schema.metadata.get(b"widths", b"{}"))
        pixels = {name: BytesFile(_bytes_file(file, name), width) for name, width in widths.items()}
        return cls(table.select(kept), rows, lengths, cut, asides, pixels)


def encode(task: Task[Any], rows: Rows, file: Path | None = None) -> FeatureSet:
    """Encode all rows of a split, a chunk at a time.

    Args:
        file: where the features will be saved. Pixels are written beside it at once; with None
            to temporary files.

    Raises:
        UserError: from `Task.encode`, for rows that cannot be encoded.
    """
    rows = to_dataset(rows) if isinstance(rows, Table) else rows
    tables, lengths, cut = [], [], 0
    pixels: dict[str, BytesFile] = {}
    for start, portion in chunks(rows):
        features = task.encode(portion)
        features["row"] = [start + row for row in features["row"]]
        lengths += features.pop("length", [])
        cut += sum(features.pop("cut", []))
        for key in PIXELS & features.keys():
            values = features.pop(key)
            if key not in pixels:
                pixels[key] = BytesFile(file and _bytes_file(file, key), len(values[0]))
            assert {pixels[key].width} == set(map(len, values)), f"{key}: values of different lengths"
            with pixels[key].file.open("ab") as stream:
                stream.writelines(values)
        tables.append(pyarrow.table(features))
    table = pyarrow.concat_tables(tables).combine_chunks()
    for place, name in enumerate(table.column_names):
        if name in task.fixed:
            table = table.set_column(place, name, _as_matrix(table[name]))
    owners = table["row"].to_pylist()
    table = table.drop_columns("row")
    asides = None
    if "aside" in table.column_names:
        asides = table["aside"].combine_chunks()
        table = table.drop_columns("aside")
    return FeatureSet(table, owners, lengths or None, cut, asides, pixels)


def _as_matrix(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Lists of one length as Arrow keeps a matrix; without any values as they are."""
    lists = column.combine_chunks()
    values = lists.flatten()
    if not len(values):
        return column
    return pyarrow.chunked_array([pyarrow.FixedSizeListArray.from_arrays(values, len(values) // len(lists))])


def _bytes_file(file: Path, key: str) -> Path:
    """The file with the values of a key: train.features.pixels beside train.features.arrow."""
    return file.with_suffix(f".{key}")


def chunks(rows: Dataset) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """All rows in order, each part with the index of its first row.

    A part has at most CHUNK rows, of images IMAGES, and about BYTES of text.
    """
    start = 0
    images = any(
        pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 for kind in rows.data.table.schema.types
    )
    most = IMAGES if images else CHUNK
    while start < len(rows):
        table = rows.data.table.slice(start, most)
        sizes = numpy.add.reduce([_byte_lengths(column) for column in table.columns])  # (rows,), over all columns
        # The rows whose texts together stay within BYTES, and at least one: a text may be longer than that.
        count = max(1, int(numpy.searchsorted(numpy.cumsum(sizes), BYTES, side="right")))
        yield start, rows[start : start + min(count, most)]
        start += min(count, most)


def _byte_lengths(column: pyarrow.ChunkedArray) -> numpy.ndarray:
    """The bytes of each text of a column; zeros for a column of another type."""
    kind = column.type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        return numpy.zeros(len(column), dtype=numpy.int64)
    return pyarrow.compute.binary_length(column).fill_null(0).to_numpy().astype(numpy.int64)


@dataclass
class Blocks:
    """The blocks of an epoch of raw text, used like a FeatureSet.

    A block, its masks included, depends on (seed, epoch, index) only, so a resumed run makes the same ones.
    """

    tokens: numpy.ndarray
    """All tokens, (N,), memory-mapped: a corpus may be larger than memory."""
    task: "ReadsBlocks"
    seed: int = 0
    epoch: int = 0
    lengths = None
    """None, since all blocks have the same length."""
    cut = 0

    def __post_init__(self) -> None:
        self.task = self.task.for_training(self.tokens)
        self.stride = self.task.stride()
        self.set_epoch(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose an epoch, counting from 0. Each begins at another token, so blocks are cut at other places."""
        self.epoch = epoch
        self.offset = int(numpy.random.default_rng((self.seed, epoch)).integers(self.stride))

    def with_seed(self, seed: int) -> Self:
        """The blocks of a run with this seed."""
        return replace(self, seed=seed)

    @property
    def mean_length(self) -> float:
        """Tokens of text in a block."""
        return float(self.stride)

    def describe(self) -> str:
        """A line on the number of tokens and blocks, and the share of tokens that are unknown to the tokenizer."""
        text = f"{plural(len(self.tokens), 'tokens')}, {plural(len(self), 'blocks')} of {self.stride:,}"
        unknown = self.task.state.tokenizer.unk_token_id
        if unknown is None or unknown == self.task.state.end:  # GPT-2 has one special token for every purpose
            return text
        from llmft.tasks.language_models.language_model import token_counts  # imports tokenizers, which tables lack

        count = token_counts(self.tokens, len(self.task.state.tokenizer))[unknown]
        return f"{text}, {count / len(self.tokens):.2%} {self.task.state.tokenizer.unk_token}" if count else text

    def __len__(self) -> int:
        return len(self.tokens) // self.stride

    def __getitem__(self, number: int) -> "Example":
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> "list[Example]":
        """The task's examples of the blocks with these indices."""
        return [self._example(number) for number in numbers]

    def _example(self, number: int) -> "Example":
        key, other = (self.seed, self.epoch, number), None
        if self.task.paired and len(self) > 1:
            further = 1 + int(numpy.random.default_rng((*key, 1)).integers(len(self) - 1))
            other = self._block((number + further) % len(self))
        return self.task.example(self._block(number), key, other)

    def _block(self, number: int) -> numpy.ndarray:
        """The tokens of a block, (length,), int64. The last block continues at the start of the file."""
        first = self.offset + number * self.stride
        length = self.stride + self.task.context
        if first + length <= len(self.tokens):
            return self.tokens[first : first + length].astype(numpy.int64)
        return self.tokens[numpy.arange(first, first + length) % len(self.tokens)].astype(numpy.int64)


def join_documents(task: "ReadsBlocks", rows: Dataset, folder: Path) -> Blocks:
    """Write the tokens of all documents to one file in `folder`, an end token after each, and memory-map it.

    Raises:
        UserError: if there are fewer tokens than a block takes.
    """
    # Half the disk and memory of 32 bits for nearly all vocabularies: BERT has 30,522 tokens, GPT-2 50,257.
    kind = numpy.uint16 if len(task.state.tokenizer) <= 2**16 else numpy.uint32
    with (folder / TOKENS).open("wb") as stream:
        for tokens in _document_tokens(task, rows):
            numpy.asarray(tokens, dtype=kind).tofile(stream)
    count, stride = (folder / TOKENS).stat().st_size // kind().itemsize, task.stride()
    if count < stride:
        what = f"must have {stride:,} tokens for a block of task.block={task.state.block}, got {count:,}"
        raise UserError(Problem("dataset.train", what, hint="Give more text, or a smaller task.block."), "the data")
    return load_blocks(task, folder)


def load_blocks(task: "ReadsBlocks", folder: Path) -> Blocks:
    """Memory-map the file that `join_documents` wrote."""
    kind = numpy.uint16 if len(task.state.tokenizer) <= 2**16 else numpy.uint32
    return Blocks(numpy.memmap(folder / TOKENS, dtype=kind, mode="r"), task)


def _document_tokens(task: "ReadsBlocks", rows: Dataset) -> Iterator[list[int]]:
    """The tokens of each row, with an end token where a document ends. A long document may span several rows."""
    last: Any = None
    # GPT-2 uses one token for start and end: the end of the document before is the start already.
    before: list[int] = [] if task.state.start == task.state.end else [task.state.start]
    for number, (_, portion) in enumerate(chunks(rows)):
        documents = portion.get("document") or [None] * len(portion["text"])
        for row, (tokens, document) in enumerate(zip(task.tokens(portion["text"]), documents, strict=True)):
            begins = document is None or document != last
            if begins and (number or row):
                yield [task.state.end]
            yield [*before, *tokens] if begins else tokens
            last = document
    yield [task.state.end]
