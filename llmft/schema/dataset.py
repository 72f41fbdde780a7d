"""The section `dataset`: files, the columns that play a role, and the splits."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from llmft.schema.section import Section

Files = str | list[str]


class SplitConfig(Section):
    """Shares of the training rows for a split that has no file of its own."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share taken from `train` where `dataset.validation` is unset; 0 for none."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share taken from `train` where `dataset.test` is unset; 0 for none."""

    by: str | None = None
    """A column of dates or numbers that says when: the latest rows are test, those before them validation, and the
    earliest train; rows of the same time stay together. Unset: rows are drawn."""

    seed: int = Field(default=0, ge=0)
    """Seed of the split and of `max_rows`. Apart from the run's `seed`, so that several seeds share one split."""

    stratify: bool = True
    """Keep each label's share the same in all splits; where a row has several, that of its rarest. Not for numbers."""


class CleanConfig(Section):
    """Texts that are mended in every split, and rows of `train` that are left out before a share of it is taken."""

    unicode: bool = False
    """Mend texts that were decoded wrongly (`cafÃ©`), broken characters and control characters, by ftfy."""

    normalize: Literal["NFC", "NFKC"] | None = None
    """Unicode normal form of all texts. `NFC` joins letters and accents; `NFKC` also makes ① 1 and Ａ A."""

    min_characters: int | None = Field(default=None, ge=1)
    """Leave out rows with a text shorter than this."""

    max_characters: int | None = Field(default=None, ge=1)
    """Leave out rows with a text longer than this."""

    duplicates: Literal["keep", "first", "agreeing"] = "keep"
    """Rows with the same input, whatever its case and spaces. `keep` all, only the `first`, or, `agreeing`, the first
    where all have the same label and else none."""

    quality: bool = False
    """Leave out texts that look like no language, whichever: too few letters, endless words or runs of one character,
    lines or passages that repeat themselves."""

    near_duplicates: float | None = Field(default=None, ge=0.5, le=0.95)
    """Leave out rows whose text is like that of an earlier row: the share of their runs of five characters that both
    have is at least this, such as 0.8. By datasketch."""

    leaks: bool = False
    """Leave out rows that are also in the files of other splits; with `near_duplicates`, also those nearly there."""


class DatasetConfig(Section):
    """Where the rows come from."""

    name: str = "data"
    """What the data is called in reports."""

    format: Literal[
        "csv",
        "json",
        "parquet",
        "excel",
        "sqlite",
        "arrow",
        "folder",
        "conll",
        "squad",
        "semeval",
        "po",
        "parallel",
        "text",
        "pydocs",
        "hub",
        "sklearn",
        "synthetic",
    ] = "csv"
    """How to read it. `csv` takes .csv and .tsv, `json` .jsonl and .json, `excel` .xlsx, `sqlite` databases of SQLite,
    `arrow` what `datasets.save_to_disk` left, `folder` texts in a folder for each class, `text` .txt and .md, `pydocs`
    the docstrings and comments of .py files, `po` gettext's translations, `conll`, `squad` and `semeval` the files of
    these names; `parallel` reads two files line by line: `dataset.train=[train.en,train.zh]`. Where files are named on
    the command line and no format, it follows from their endings and first bytes."""

    sheet: str | None = None
    """For `format: excel`: the name of the sheet. Unset: the only one that holds rows."""

    field: str | None = None
    """For `format: json`: the key of the list of rows, dotted, in a file that holds one object. Unset: the only list of
    objects in it."""

    query: str | None = None
    """For `format: sqlite`: `select ...`. Unset: all rows of the only table."""

    unit: Literal["file", "paragraph", "line"] = "file"
    """For `format: text`: what is a document."""

    path: str | None = None
    """For `format: hub` the id on the hub; else a folder that the files are relative to, or `package:NAME/FOLDER`."""

    subset: str | None = None
    """For `format: hub`: the configuration of the dataset."""

    revision: str | None = None
    """For `format: hub`: branch, tag or commit."""

    train: Files | None = None
    """A file, a folder, a pattern (`data/*.csv`) or a list of them; for the hub, a split's name."""

    validation: Files | None = None
    """The rows that choose the best checkpoint. Unset: a share of `train`."""

    test: Files | None = None
    """The rows that are only used for the final score. Unset: a share of `train`."""

    encoding: str = "utf-8"
    """Encoding of text files: `utf-8`, `gb18030`, `utf-16`, `latin-1`, ..."""

    header: list[str] = Field(default_factory=list)
    """For `format: csv`: the names of the columns, for files whose first line is not a header but a row."""

    separator: str | None = None
    """For `format: csv`: the character between the cells of a row, such as `;` or `|`, or the word `tab`. Unset: the
    one of comma, semicolon and tab by which the first rows have equally many cells, as many as `header` names."""

    columns: dict[str, str | list[str]] = Field(default_factory=dict)
    """Which column plays which role, `ROLE: COLUMN`; unset ones take that of their name. `translation.en` is a part of
    the objects in a column. No split parts a `group`."""

    ignore: list[str] = Field(default_factory=list)
    """Columns that are left out on purpose, and keys of the messages of a conversation, such as `[tools, name]`."""

    split: SplitConfig = SplitConfig()

    folds: int | None = Field(default=None, ge=2, le=100)
    """Cross-validation: so many runs, each with another part of `train` as its test split; mean and deviation."""

    fold: int | None = Field(default=None, ge=0)
    """Only the run that holds out this part, from 0 on. Unset: a run for each of `folds`."""

    streaming: bool = False
    """Read the rows of `train` while training, not before: memory does not grow with them. For csv, jsonl, parquet,
    conll."""

    max_rows: int | None = Field(default=None, ge=1)
    """At most this many rows of each split, chosen at random by `split.seed`; of raw text the first so many, to read
    no further."""

    drop_empty: bool = False
    """Leave rows with an empty text, read or written, out instead of stopping at them; they are counted."""

    drop_unlabeled: bool = False
    """Leave rows without a label out instead of stopping at them."""

    clean: CleanConfig = CleanConfig()

    cache: bool = True
    """Keep the encoded rows of files for later runs, in `$LLMFT_CACHE` or the user's cache folder."""

    max_overlap: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a split's inputs that may also stand in another split."""

    @property
    def called(self) -> str:
        """What people call the rows: the name, or, where that says no more than the format, the first file."""
        return called(self.name, self.format, self.path, self.train or self.test)

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        found = "\t" if value in ("tab", r"\t") else value
        if found is not None and (len(found) != 1 or found in '"\r\n '):
            raise ValueError(
                "must be one character that is no quote, space or line end, such as ; or |, or the word tab"
            )
        return found


def called(name: str | None, format: str | None, path: str | None, source: Files | None) -> str:
    """See `DatasetConfig.called`; `source` is what train or test names. Splits of the hub are no files."""
    if format == name == "hub" and path:
        return path
    files = [source] if isinstance(source, str) else source or []
    if name not in (None, format, "data", "custom") or not files:
        return str(name)
    return Path(files[0]).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
