"""The table of file formats: the endings and the reader of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmft.data.annotated import SemevalFile, SquadFile, open_conll
from llmft.data.binary_tables import ArrowFile, ExcelFile, ParquetFile, SqliteFile, files_of_saved
from llmft.data.box_files import IMAGES, BoxTable, VocFiles, YoloFiles, images_in, listed_by, voc_files, yolo_beside
from llmft.data.coco import CocoFile, CocoMasks
from llmft.data.csv_files import open_csv
from llmft.data.documents import TEXTS, ClassFolders, PlainText, PythonFile, files_by_class
from llmft.data.image_files import CifarFile, IdxFiles, ImageFolders
from llmft.data.images import SUFFIXES
from llmft.data.interaction_files import items_beside, open_atomic, open_pairs
from llmft.data.json_files import open_json
from llmft.data.masks import MaskFolder, RunsFile, images_inside
from llmft.data.source import Source
from llmft.data.translation_files import AlignedFiles, PoFile


@dataclass(frozen=True)
class Format:
    """A file format."""

    suffixes: tuple[str, ...]
    """The endings of its files, by which they are selected in a folder."""
    open: Callable[..., Source]
    """Called with the path, its name in row ids, `dataset.encoding`, and the values of `keys`. Raises UserError."""
    keys: tuple[str, ...] = ()
    """Further keys of the section `dataset` that `open` takes."""
    together: bool = False
    """Whether all files of a split are opened together, as lists of files and names."""
    inside: Callable[[Path, tuple[str, ...]], list[Path]] | None = None
    """The files of a folder, if they are not those with one of `suffixes`, compressed or not."""
    listed: Callable[[Path, str], list[Path]] | None = None
    """The files that a list stands for, given with the config key for errors."""
    beside: Callable[[Sequence[Path]], list[Path]] | None = None
    """Files that are read with those of a split, such as names of classes. Splits may share them."""

    one_row: bool = False
    """Whether each file is one row. Rows that two splits share are then found by their inputs: annotations of two
    images without objects may well have the same bytes."""
    by_folder: bool = False
    """Whether the digests of files in a folder are kept as one, and rows are named with the folder of their file."""


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab"), open_csv, keys=("header", "separator")),
    "json": Format((".jsonl", ".json", ".ndjson"), open_json, keys=("field",)),
    "parquet": Format((".parquet",), lambda file, name, _: ParquetFile(file, name)),
    "excel": Format((".xlsx", ".xlsm"), lambda file, name, _, sheet: ExcelFile(file, name, sheet), keys=("sheet",)),
    "sqlite": Format(
        (".sqlite", ".sqlite3", ".db"), lambda file, name, _, query: SqliteFile(file, name, query), keys=("query",)
    ),
    "arrow": Format((".arrow",), lambda file, name, _: ArrowFile(file, name), inside=files_of_saved),
    "folder": Format(TEXTS, ClassFolders, together=True, inside=files_by_class),
    "images": Format(SUFFIXES, ImageFolders, together=True, inside=files_by_class, one_row=True, by_folder=True),
    "idx": Format(("-ubyte",), IdxFiles, together=True),
    "cifar": Format((".bin",), lambda file, name, _: CifarFile(file, name)),
    "masks": Format(SUFFIXES, MaskFolder, keys=("images", "masks"), together=True, inside=images_inside, one_row=True),
    "runs": Format((".csv",), RunsFile, keys=("separator", "images")),
    "conll": Format((".conll", ".bio", ".iob", ".iob2", ".bioes"), open_conll),
    "squad": Format((".json",), SquadFile),
    "semeval": Format((".txt",), SemevalFile),
    "po": Format((".po",), PoFile),
    "parallel": Format((), AlignedFiles, together=True),
    "text": Format((".txt", ".md", ".rst", ".text"), PlainText, keys=("unit",)),
    "atomic": Format((".inter",), open_atomic, beside=items_beside),
    "ratings": Format((".data", ".dat", ".txt"), open_pairs),
    "coco": Format((".json",), CocoFile, keys=("images",)),
    "coco_masks": Format((".json",), CocoMasks, keys=("images",)),
    "voc": Format(
        (".xml",), VocFiles, keys=("images",), together=True, inside=voc_files, listed=listed_by, one_row=True
    ),
    "yolo": Format(IMAGES, YoloFiles, together=True, inside=images_in, beside=yolo_beside, one_row=True),
    "boxes": Format((".csv", ".tsv"), BoxTable, keys=("header", "separator", "images")),
    "pydocs": Format((".py",), lambda file, name, _: PythonFile(file, name)),
}
