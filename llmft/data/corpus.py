"""Raw text for language models: read in chunks, cleaned, split, and kept on disk instead of in memory."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy
import pyarrow
import pyarrow.compute
from datasets import Dataset
from tqdm import tqdm

from llmft.data import checks, clean
from llmft.data.arrow import TableWriter, read_dataset, read_table, rows_sha256, to_arrow
from llmft.data.documents import BATCH
from llmft.data.files import digest
from llmft.data.formats import FORMATS
from llmft.data.pipeline import Data, HasRows, same_bytes, synthetic, unread_note
from llmft.data.read import chunks, files_of, read_split
from llmft.data.roles import assign
from llmft.data.sieve import Sieve, digest_of
from llmft.data.source import CHUNK, Table
from llmft.data.splitting import SPLITS
from llmft.schema.column import CORPUS_COLUMNS
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError, plural

SCHEMA = pyarrow.schema([(name, pyarrow.string()) for name in ("id", "text", "document")])
LEARNT = 200_000_000  # bytes of text for training a tokenizer, which holds all distinct words in memory
READ = ("validation", "test", "train")  # the order of reading: train last, since it leaves out what the others have


class SplitWriter:
    """Writes the rows of a split to disk, CHUNK rows or BATCH characters at a time."""

    def __init__(self, file: Path, most: int | None) -> None:
        self.writer = TableWriter(file, SCHEMA)
        self.most = most  # maximum number of documents, or None
        self.rows, self.documents, self.document = 0, 0, ""
        self._clear()

    def _clear(self) -> None:
        self.held, self.characters = Table({"text": [], "document": []}), 0

    @property
    def full(self) -> bool:
        """Whether the maximum number of documents is reached."""
        return self.most is not None and self.documents >= self.most

    def add(self, text: str, id: str, document: str) -> None:
        """Add a row, unless it begins a document beyond the maximum."""
        if document != self.document:
            if self.full:
                return
            self.document = document
            self.documents += 1
        self.held.columns["text"].append(text)
        self.held.columns["document"].append(document)
        self.held.ids.append(id)
        self.rows += 1
        self.characters += len(text)
        if len(self.held) == CHUNK or self.characters >= BATCH:
            self._write()

    def _write(self) -> None:
        self.writer.write(to_arrow(self.held, SCHEMA))
        self._clear()

    def close(self) -> None:
        """Write the remaining rows, and close the file."""
        if len(self.held):
            self._write()
        self.writer.close()


def load_corpus(config: DatasetConfig, task: HasRows, folder: Path, splits: tuple[str, ...] = SPLITS) -> Data:
    """The splits of a corpus, each a Dataset over a memory-mapped file `SPLIT.rows.arrow` in `folder`.

    A row has a `text` of at most 1 MB and the `document` that it belongs to. Memory holds a few MB of text, 8 bytes per
    document to find duplicates, about 20 bytes per document to split, and the index of near duplicates.

    Args:
        splits: those to return, as for `pipeline.load`.

    Raises:
        UserError: with everything that cannot be read, by file and line, or why a split has no text.
    """
    clean.libraries(config)
    files, digests = _files(config)
    made_up = synthetic(config, task) if config.format == "synthetic" else {}
    named = [name for name in READ if name in files or name in made_up]
    shares = {name: getattr(config.split, name) for name in SPLITS[1:] if name not in named}
    shares = {name: share for name, share in shares.items() if share and "train" in named}
    # With shares, train is first written as a whole: how many documents a share gets is known only at the end.
    shared = Shares(shares, config.split.seed) if shares else None
    kept = {name: SplitWriter(folder / f"{name}.rows.arrow", config.max_rows) for name in named}
    whole = folder / "shared.rows.arrow"
    if shared:
        kept["train"] = SplitWriter(whole, shared.needed(config.max_rows))
    notes: list[str] = []
    inputs: dict[str, set[int]] = {name: set() for name in named}  # digests; of train, only those that others have too
    with Sieve(config.clean) as sieve:
        for name in named:
            last, first, counts, columns = "", 0, Counter[str](), dict[str, None]()
            for row in _rows(config, task, name, made_up.get(name), files.get(name, []), counts, columns):
                # Parts of a long document follow each other: only the first one counts as a document.
                further, last = row.document == last, row.document
                if not further:
                    if kept[name].full:
                        break
                    first = row.digest
                if name != "train":
                    sieve.tell(row.text, row.id, row.digest)
                    inputs[name].add(row.digest)
                elif not sieve.stays(row.text, row.id, row.digest, further):
                    continue
                elif any(row.digest in inputs[other] for other in named[:-1]):
                    inputs[name].add(row.digest)
                kept[name].add(row.text, row.id, row.document)
                # A document is drawn once it is written: the sieve may have left out its first part.
                if name == "train" and shared and len(shared.draws) < kept[name].documents:
                    shared.add(first)
            notes += clean.change_notes(name, counts) + unread_note(name, columns, config, task.columns)
        notes += sieve.notes()
    for split in kept.values():
        split.close()
    documents = {name: split.documents for name, split in kept.items()}
    if shared:
        parts = ["train", *shares]
        places = [folder / f"{name}.rows.arrow" for name in parts]
        documents |= zip(parts, shared.share_out(whole, places, config.max_rows), strict=True)
    documents = {name: documents[name] for name in SPLITS if name in documents}
    if problems := _empty(config, documents, shares, notes):
        raise UserError(problems, "the data")
    sizes = {name: kept[name].rows for name in SPLITS if name in inputs}
    # Digests as keys: the texts themselves would not fit into memory.
    keys = {name: list(map(str, inputs[name])) for name in sizes}
    found, problems = checks.overlaps(keys, sizes, config.max_overlap)
    if problems:
        raise UserError(problems, "the data")
    wanted = {name: read_dataset(folder / f"{name}.rows.arrow") for name in documents if name in splits}
    sha256 = {name: rows_sha256(rows, CORPUS_COLUMNS) for name, rows in wanted.items()}
    return Data(wanted, notes + found, digests, rows_sha256=sha256)


def tokenizer_texts(rows: Dataset) -> Iterator[str]:
    """The texts for training a tokenizer: all, or every n-th row so that they have about LEARNT bytes."""
    texts = rows.data.column("text")
    # Rounded up, so that at most LEARNT bytes remain; spread evenly, since a file often starts with one kind of text.
    step = -(-int(pyarrow.compute.sum(pyarrow.compute.binary_length(texts)).as_py()) // LEARNT)
    return (text.as_py() for number, text in enumerate(texts) if number % step == 0)


class Row(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    id: str
    document: str
    digest: int
    """A 64-bit hash of the text without case and extra space."""


def _rows(
    config: DatasetConfig,
    task: HasRows,
    split: str,
    made_up: Table | None,
    files: list[Path],
    counts: Counter[str],
    columns: dict[str, None],
) -> Iterator[Row]:
    """The repaired rows of a split that have text. Adds to `counts` what was done to them, to `columns` their names."""
    if made_up is not None:
        tables: Iterable[Table] = [made_up]
    elif config.format in FORMATS:
        tables = (table for _, _, table in chunks(config, files))
    else:
        tables = [read_split(config, split, getattr(config, split))[0]]
    for part in tqdm(tables, f"reading {split}", unit=" chunks", disable=None, leave=False):
        table = Table({name: [] for name in columns})
        table.extend(part)
        columns |= dict.fromkeys(table.columns)
        table, mended = clean.repair(assign(table, config, task.columns, split), task.columns, config.clean)
        whole, _ = checks.without_empty(table, task.columns, split, drop=True)
        counts += mended
        if empty := len(table) - len(whole):
            counts["rows without text were left out"] += empty
        keys = checks.input_keys(whole, task.columns)
        documents = whole.columns.get("document", [None] * len(whole))
        for id, text, document, key in zip(whole.ids, whole.columns["text"], documents, keys, strict=True):
            yield Row(text, id, document or id, digest_of(key))


def _files(config: DatasetConfig) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """The files of each configured split, and their sha256 by path.

    Raises:
        UserError: naming entries that match no file, and files that are in two splits.
    """
    files: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    for name in SPLITS:
        if config.format == "synthetic" or not (source := getattr(config, name)):
            continue
        try:
            files[name] = files_of(config, name, source)
        except UserError as error:
            problems += error.problems
    digests = {str(file): digest(file) for own in files.values() for file in own}
    problems += same_bytes(files, digests)
    if problems:
        raise UserError(problems, "the data")
    return files, digests


def _empty(
    config: DatasetConfig, documents: dict[str, int], shares: dict[str, float], notes: list[str]
) -> list[Problem]:
    """A problem for each split without text, with the reasons why its text was left out."""
    found = sum(documents.values())
    empty = [name for name, count in documents.items() if not count]
    lost = [name for name in empty if shares and found and (name in shares or name == "train")]
    problems = []
    for name in empty:
        if name not in shares and name not in lost:
            why = [note.removeprefix(f"{name}: ") for note in notes if note.startswith(f"{name}: ")]
            problems.append(Problem(f"dataset.{name}", "holds no text" + (f": {'; '.join(why)}" if why else "")))
    if lost:
        have = f"there {'is' if found == 1 else 'are'} {plural(found, 'documents')}"
        hint = "Name files for validation and test, or write dataset.split.validation=0 and dataset.split.test=0."
        if config.format == "text" and config.unit == "file":
            hint = f"Each file is one: write dataset.unit=paragraph for smaller ones. {hint}"
        problems.append(Problem("dataset.split", f"leaves {' and '.join(lost)} without text: {have}", hint=hint))
    return problems


class Shares:
    """Assigns each document of train to a split, by a keyed hash of its text: the seed is the key.

    So equal texts go to the same split, and a document keeps its split when others are added. Takes about 20 bytes of
    memory per document.
    """

    def __init__(self, shares: dict[str, float], seed: int) -> None:
        """`shares`: the share of each split in the documents of train."""
        self.shares, self.key = shares, str(seed).encode()
        self.draws = array("Q")

    def needed(self, most: int | None) -> int | None:
        """How many documents must be read so that each split gets `most`; None for all."""
        least = min(*self.shares.values(), 1 - sum(self.shares.values()))  # the last one is train's own share
        return None if most is None else ceil(most / least)

    def add(self, digest: int) -> None:
        """Add the next document, by the digest of its text."""
        self.draws.append(int.from_bytes(blake2b(digest.to_bytes(8), digest_size=8, key=self.key).digest()))

    def parts(self) -> numpy.ndarray:
        """The split of each document, (documents,) int8: 0 for train, or the number of its share from 1.

        A share gets its number of documents, rounded, but at least one, and leaves at least one to each split after it.
        Documents with equal texts at its boundary all go to it. With too few texts for that, all stay in train.
        """
        draws = numpy.frombuffer(self.draws, dtype=numpy.uint64) if self.draws else numpy.zeros(0, numpy.uint64)
        # A split is a range of hashes: sorting them gives the boundaries for exact numbers of documents.
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
        """Move the rows of `whole` into one file for train and one for each share, with at most `most` documents each.

        Returns:
            the number of documents in each file.
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
    """The rows of a file, batch by batch, with the index of each row's document."""
    number, last = -1, ""
    for batch in read_table(file).to_batches():
        rows = []
        for document in batch["document"].to_pylist():
            if document != last:
                number, last = number + 1, document
            rows.append(number)
        yield batch, rows
