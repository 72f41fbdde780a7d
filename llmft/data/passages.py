"""The passages of a corpus, `dataset.corpus`: texts that answer questions, and that queries are compared with."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmft.data.encodings import open_text
from llmft.data.files import PACKAGE, check_is_file, digest, expand, first_letter, inner_ending, kind_of, resolve
from llmft.data.source import Table, listed
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError, plural

KEY = "dataset.corpus"
FILE = "passages.jsonl"
"""In RUN/model: the corpus of a run."""
FORMATS_READ = ("csv", "json", "parquet", "text", "excel", "sqlite", "arrow")
TEXT = ("text", "passage", "context", "contents", "content", "body", "document")
"""Names of the column with the passage; the first that is there. BEIR has `text`, Pyserini `contents`."""
ID = ("id", "_id", "docid", "doc_id", "passage_id")


@dataclass
class Passages:
    """Passages in the order of their files, each text once. The lists have one entry for each."""

    ids: list[str] = field(default_factory=list)
    """The column `id`, or `FILE:LINE`."""
    texts: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    """Empty where a passage has none."""
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of each file, by path."""

    def __len__(self) -> int:
        return len(self.ids)

    def full_texts(self) -> list[str]:
        """Each text after its title, as a search reads it."""
        return [f"{title} {text}" if title else text for title, text in zip(self.titles, self.texts, strict=True)]

    def save(self, file: Path) -> None:
        """Write them as JSON lines, which `load` and `dataset.corpus` read."""
        with file.open("w", encoding="utf-8") as stream:
            for own, title, text in zip(self.ids, self.titles, self.texts, strict=True):
                stream.write(json.dumps({"id": own, "title": title, "text": text}, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, file: Path) -> "Passages":
        """Read what `save` wrote."""
        found = cls()
        with file.open(encoding="utf-8") as stream:
            for row in map(json.loads, stream):
                found.ids.append(row["id"])
                found.titles.append(row["title"])
                found.texts.append(row["text"])
        return found


def corpus_files(dataset: DatasetConfig) -> list[Path]:
    """The files of `dataset.corpus`, which may be of other formats than the rows; none if it is unset.

    Raises:
        UserError: naming each entry that matches no file.
    """
    from llmft.data.formats import FORMATS  # all readers, which a service that has loaded its passages need not import

    suffixes = tuple(suffix for name in FORMATS_READ for suffix in FORMATS[name].suffixes)
    names = [dataset.corpus] if isinstance(dataset.corpus, str) else dataset.corpus or []
    # An option that brings its rows points dataset.path into a package. The user's corpus is not there.
    own = dataset.path if dataset.path and not dataset.path.startswith(PACKAGE) and dataset.format != "hub" else None
    folder = resolve(own, "dataset.path") if own else Path()
    return expand([str(resolve(name, KEY)) for name in names], folder, suffixes, KEY)


def read_passages(dataset: DatasetConfig) -> Passages:
    """The passages of `dataset.corpus`, each text once; spaces around texts are removed.

    Tables and JSON have them in one of the columns TEXT, beside them `title` and one of ID if there are such. Of a text
    file, `dataset.unit` says what a passage is. Of a file of SQuAD all contexts are read.

    Raises:
        UserError: for files that cannot be read, an id of two passages, or a corpus without any.
    """
    files = corpus_files(dataset)
    found = Passages(digests={str(file): digest(file) for file in files})
    seen: set[str] = set()
    owners: dict[str, str] = {}
    problems: list[Problem] = []
    empty = repeated = 0
    for file in files:
        try:
            table = contexts if (contexts := _squad(file, dataset.encoding)) is not None else _table(file, dataset)
            rows = zip(*_columns(table, file), table.ids, strict=True)
        except UserError as error:
            problems += error.problems
            continue
        for own, title, text, place in rows:
            if not (text := str(text or "").strip()):
                empty += 1
            elif text in seen:
                repeated += 1
            else:
                seen.add(text)
                name = place if own is None else str(own)
                if name in owners:
                    what = f"has the id {name!r} of the passage at {owners[name]}, which has another text"
                    problems.append(Problem(place, what))
                owners[name] = place
                found.ids.append(name)
                found.titles.append(str(title or "").strip())
                found.texts.append(text)
    if not problems and not len(found):
        problems.append(Problem(KEY, "must hold passages, got 0", hint="Name a file with texts."))
    if problems:
        raise UserError(listed(problems), "the corpus")
    left = [f"{plural(count, 'passages')} {why}" for count, why in ((repeated, "twice"), (empty, "empty")) if count]
    found.notes.append(f"corpus: {plural(len(found), 'passages')}" + "".join(f"; left out: {each}" for each in left))
    return found


def named_passages(config: Config, source: Path) -> Passages | None:
    """The passages that a command names for the run at `source`, with `dataset.corpus`, or those of the run if it names
    another `task.retriever`; None if the run finds its own passages as before.

    Raises:
        UserError: see `read_passages`.
    """
    before, dataset = Run(source).config(), config.dataset
    if dataset.corpus and dataset.corpus != before.dataset.corpus:
        return read_passages(dataset)
    same = getattr(config.task, "retriever", "") == getattr(before.task, "retriever", "")
    kept = source / "model" / FILE
    return Passages.load(kept) if not same and kept.is_file() else None


def _table(file: Path, dataset: DatasetConfig) -> Table:
    """The rows of a file, whose first bytes or ending say its format."""
    from llmft.data.formats import FORMATS
    from llmft.data.read import chunks

    kind, ending = kind_of(file), inner_ending(file)
    format = kind.format if kind else next((name for name in FORMATS_READ if ending in FORMATS[name].suffixes), "")
    if format not in FORMATS_READ:
        what = f"must be a file of passages, got {kind.what if kind else f'the ending {ending!r}'}"
        hint = f"Name files of {', '.join(FORMATS_READ)}."
        raise UserError(Problem(str(file), what, hint=hint), "the corpus")
    # What is said of the rows' own files, such as a separator, holds for a corpus of the same format alone.
    kept = {"encoding": dataset.encoding, "unit": dataset.unit}
    if format == dataset.format:
        kept |= {key: getattr(dataset, key) for key in FORMATS[format].keys}
    table = Table()
    for _, _, part in chunks(DatasetConfig(format=format, **kept), [file]):
        table.extend(part)
    return table


def _squad(file: Path, encoding: str) -> Table | None:
    """The contexts of a file of SQuAD, with and without questions; None for another file."""
    check_is_file(str(file), KEY)
    if inner_ending(file) != ".json" or kind_of(file) or first_letter(file) != "{":
        return None
    with open_text(file, file.name, encoding) as stream:
        try:
            tree = json.loads(stream.read())
        except json.JSONDecodeError:
            return None  # JSON lines, or broken: their reader says where
    articles = tree.get("data") if isinstance(tree, dict) else None
    if not isinstance(articles, list) or not all(isinstance(a, dict) and "paragraphs" in a for a in articles):
        return None
    table = Table({"title": [], "text": []})
    for number, article in enumerate(articles):
        for place, paragraph in enumerate(article["paragraphs"]):
            table.ids.append(f"{file.name}:data[{number}].paragraphs[{place}]")
            if not isinstance(context := paragraph.get("context") if isinstance(paragraph, dict) else None, str):
                raise UserError(Problem(table.ids[-1], "has no text 'context'"), "the corpus")
            table.columns["text"].append(context)
            table.columns["title"].append(str(article.get("title") or "").replace("_", " "))
    return table


def _columns(table: Table, file: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """The ids, titles, and texts of a table; None where there is no such column.

    Raises:
        UserError: if no column is known to hold texts, and there are several.
    """
    own = [name for name in table.columns if name not in (*ID, "title")]
    name = next((name for name in TEXT if name in table.columns), own[0] if len(own) == 1 else None)
    if name is None and len(table):
        names = ", ".join(table.columns) or "none"
        what = f"must have a column {', '.join(TEXT[:-1])}, or {TEXT[-1]} with the passages, got {names}"
        raise UserError(Problem(str(file), what, hint=f"Call the column of the passages {TEXT[0]}."), "the corpus")
    none = [None] * len(table)
    ids = next((table.columns[name] for name in ID if name in table.columns), none)
    return ids, table.columns.get("title", none), table.columns[name] if name else none
