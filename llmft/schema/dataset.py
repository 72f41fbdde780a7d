"""The section `dataset`: files, the columns and their roles, cleaning, and splits."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from llmft.schema.section import Section

Files = str | list[str]


class SplitConfig(Section):
    """Splits that have no file of their own: shares of the training rows."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of `train` that becomes the validation split if `dataset.validation` is unset. 0: none."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of `train` that becomes the test split if `dataset.test` is unset. 0: none."""

    by: str | None = None
    """A column of dates or numbers to split by time: the latest rows become test, those before them validation, the
    earliest train. Rows of the same time stay together. Unset: rows are drawn at random. Set it if the model will
    answer rows of the future.

    For recommendations it is a way: `leave_one_out` holds out the last interaction of each user, and the last but one
    for validation; `time` the latest interactions of all; `ratio`, the default, a share of each user's, at random."""

    seed: int = Field(default=0, ge=0)
    """Seed of the split and of `max_rows`. It is separate from the run's `seed`, so that runs with different seeds
    share one split."""

    stratify: bool = True
    """Keep the share of each label the same in all splits; for rows with several labels, of the rarest one. No effect
    on numbers."""


class CleanConfig(Section):
    """Cleaning: repairs texts in every split, and leaves out rows of `train` before other splits are taken from it."""

    unicode: bool = False
    """Repair texts that were decoded with the wrong encoding (`cafÃ©`), broken characters, and control characters, by
    ftfy."""

    normalize: Literal["NFC", "NFKC"] | None = None
    """Unicode normal form of all texts. `NFC` joins letters and accents; `NFKC` also turns ① into 1 and Ａ into A.
    Unset: texts stay as they are."""

    min_characters: int | None = Field(default=None, ge=1)
    """Leave out rows with a text of fewer characters."""

    max_characters: int | None = Field(default=None, ge=1)
    """Leave out rows with a text of more characters."""

    duplicates: Literal["keep", "first", "agreeing"] = "keep"
    """Rows with the same input, compared without case and spaces. `keep` keeps all, `first` only the first; `agreeing`
    keeps the first if all have the same label, and none otherwise."""

    quality: bool = False
    """Leave out texts that do not look like any natural language: too few letters, extremely long words, runs of one
    character, repeated lines or passages."""

    near_duplicates: float | None = Field(default=None, ge=0.5, le=0.95)
    """Leave out rows whose text resembles an earlier one: at least this share of their five-character sequences occurs
    in both, such as 0.8. By datasketch."""

    leaks: bool = False
    """Leave out rows of `train` that also occur in the files of other splits; with `near_duplicates`, also those that
    resemble them."""


class DatasetConfig(Section):
    """The rows: their files, columns, splits, and cleaning."""

    name: str = "data"
    """Name of the data in reports."""

    format: Literal[
        "csv",
        "json",
        "parquet",
        "excel",
        "sqlite",
        "arrow",
        "folder",
        "images",
        "idx",
        "cifar",
        "masks",
        "runs",
        "coco_masks",
        "conll",
        "squad",
        "semeval",
        "po",
        "parallel",
        "text",
        "pydocs",
        "coco",
        "voc",
        "yolo",
        "boxes",
        "atomic",
        "ratings",
        "hub",
        "sklearn",
        "synthetic",
    ] = "csv"
    """The file format. `csv` reads .csv and .tsv, `json` .jsonl and .json, `excel` .xlsx, `sqlite` SQLite databases,
    `arrow` folders from `datasets.save_to_disk`, `folder` a folder of texts for each class, `images` one of images,
    `idx` and `cifar` the files of MNIST and CIFAR, `text` .txt and .md, `pydocs` docstrings and comments in .py files,
    `po` gettext translations, `conll`, `squad`, and `semeval` the files of these names; `coco`, `voc`, `yolo`, and
    `boxes` (a CSV) boxes of objects in images; `masks`, `coco_masks`, and `runs` (a CSV) what each pixel shows;
    `atomic` reads RecBole's .inter files, with the .item file beside them, and `ratings` a user, an item, and perhaps a
    rating and a time in each line, without a header, as `u.data` of MovieLens;
    `parallel` reads two files line by line: `dataset.train=[train.en,train.zh]`. If the command line names files and
    no format, their endings and first bytes decide."""

    sheet: str | None = None
    """For `format: excel`: the name of the sheet. Unset: the only sheet with rows."""

    field: str | None = None
    """For `format: json`: in a file with one object, the dotted path to the list of rows. Unset: the only list of
    objects in it."""

    query: str | None = None
    """For `format: sqlite`: a query, `select ...`. Unset: all rows of the only table."""

    unit: Literal["file", "paragraph", "line"] = "file"
    """For `format: text`: what counts as one document."""

    images: str | None = None
    """For `format: coco`, `coco_masks`, `voc`, `boxes`, `masks`, and `runs`: the folder of the images that the files
    name. Unset: looked for near the file."""

    masks: str | None = None
    """For `format: masks`: the folder of the masks, or a pattern such as `labels/{}_L.png`, in which `{}` stands for
    the name of an image. Unset: a folder `masks` or `SegmentationClass` near the images."""

    path: str | None = None
    """For `format: hub`: the id on the hub. Otherwise a folder that file names are relative to, or
    `package:NAME/FOLDER`."""

    subset: str | None = None
    """For `format: hub`: the subset, which the hub also calls configuration."""

    revision: str | None = None
    """For `format: hub`: branch, tag, or commit. Unset: the default branch."""

    train: Files | None = None
    """The training rows: a file, a folder, a pattern (`data/*.csv`), or a list of them; for the hub, the name of a
    split."""

    validation: Files | None = None
    """The rows that select the best checkpoint. Unset: a share of `train`, `split.validation`."""

    test: Files | None = None
    """The rows that are only used for the final metrics. Unset: a share of `train`, `split.test`."""

    corpus: Files | None = None
    """Passages that questions are answered from, and that queries are compared with: files, folders, or patterns of any
    format, with the columns `text` and, if there are such, `id` and `title`; or files of SQuAD. Text files are read by
    `unit`. The run keeps the passages in RUN/model."""

    encoding: str = "utf-8"
    """Encoding of text files: `utf-8`, `gb18030`, `utf-16`, `latin-1`, ..."""

    header: list[str] = Field(default_factory=list)
    """For `format: csv`: names of the columns, if the first line of the file is a row and not a header."""

    separator: str | None = None
    """For `format: csv`: the character between cells, such as `;` or `|`, or the word `tab`. Unset: comma, semicolon,
    or tab, whichever splits the first rows into equally many cells, as many as `header` names."""

    columns: dict[str, str | list[str]] = Field(default_factory=dict)
    """Which column plays which role, `ROLE: COLUMN`. A role that is not listed takes the column of its own name.
    `translation.en` is a part of the objects in a column. Rows with the same `group` stay in one split."""

    ignore: list[str] = Field(default_factory=list)
    """Columns to leave out on purpose, and keys in the messages of conversations, such as `[tools, name]`."""

    split: SplitConfig = SplitConfig()

    folds: int | None = Field(default=None, ge=2, le=100)
    """Cross-validation with this many runs, each with another part of `train` as its test split; reports mean and
    standard deviation."""

    fold: int | None = Field(default=None, ge=0)
    """Run only the fold with this number, counted from 0. Unset: a run for each of `folds`."""

    streaming: bool = False
    """Read the rows of `train` during training instead of before it, so that memory does not grow with them. For csv,
    jsonl, parquet, and conll."""

    max_rows: int | None = Field(default=None, ge=1)
    """At most this many rows of each split, drawn at random by `split.seed`; of raw text the first ones, so that the
    rest is never read."""

    shots: int | None = Field(default=None, ge=1)
    """Few-shot: train on this many rows of each label, drawn by `split.seed`. Other splits stay whole; write
    `split.validation=0` if all of them should be few."""

    drop_empty: bool = False
    """Leave out rows with an empty input or target text instead of stopping at them. The run says how many."""

    drop_broken: bool = False
    """Leave out rows whose image is missing or cannot be decoded instead of stopping at them. The run says how many."""

    drop_unlabeled: bool = False
    """Leave out rows without a label instead of stopping at them. The run says how many."""

    clean: CleanConfig = CleanConfig()

    cache: bool = True
    """Keep the encoded rows for later runs, in `$LLMFT_CACHE` or the user's cache folder."""

    max_overlap: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a split's inputs that may also occur in another split. More is an error, because the metrics
    would look too good."""

    @property
    def display_name(self) -> str:
        """The name of the data in reports: `name`, or the first file if `name` says no more than the format does."""
        return display_name(self.name, self.format, self.path, self.train or self.test)

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        found = "\t" if value in ("tab", r"\t") else value
        if found is not None and (len(found) != 1 or found in '"\r\n '):
            raise ValueError("must be one character, no quote or space, such as ; or |, or the word tab")
        return found


def display_name(name: str | None, format: str | None, path: str | None, source: Files | None) -> str:
    """See `DatasetConfig.display_name`. `source` is what train or test names. Splits of the hub are not files."""
    if format == name == "hub" and path:
        return path
    files = [source] if isinstance(source, str) else source or []
    if name not in (None, format, "data", "custom") or not files:
        return str(name)
    return Path(files[0]).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
