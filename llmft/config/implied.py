"""What follows from the files on the command line: their format, and the splits in a folder."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from llmft.config.overrides import quote
from llmft.data.binary_tables import splits_of_saved
from llmft.data.documents import files_by_class
from llmft.data.files import BINARY, JSON, expand, first_letter, inner_ending, kind_of, looks_like_json, resolve
from llmft.data.formats import FORMATS
from llmft.schema.problem import Problem, UserError

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders and files for each split."""

BY_ENDING = ("csv", "json", "parquet", "excel", "sqlite", "arrow", "conll", "po")
"""Formats that a file's ending identifies. .txt and .md are only read as texts for pretraining."""
NO_FILES = ("hub", "sklearn", "synthetic")


def implied(dataset: dict[str, Any], named: dict[str, Any], path: str | None, pretrains: bool) -> list[str]:
    """Overrides that say how to read the named files, such as `dataset=json`; none if the config says it already.

    An option that brings its own files is replaced, with its columns, as `dataset=json` would do.

    Args:
        dataset: the section without these overrides.
        named: the splits on the command line, and the files of each.
        path: `dataset.path` on the command line.
        pretrains: whether the task reads raw text.

    Raises:
        UserError: for files of several formats.
    """
    now = str(dataset.get("format"))
    named = {split: source for split, source in named.items() if isinstance(source, str | list) and source}
    folder = resolve(path, "dataset.path") if path else Path()
    if now == "hub" and isinstance(place := dataset.get("path"), str):
        return _hub(Path(place), named)
    if not named:
        return []
    words = []
    whole = named.get("train")
    # dataset.train=FOLDER with folders or files train, dev, test inside: each becomes the split of its name, unless
    # another split is named too.
    parts = _splits_in(folder / Path(whole).expanduser()) if isinstance(whole, str) else {}
    if parts and not parts.keys() & named.keys() - {"train"}:
        named |= {split: str(Path(str(whole)) / name) for split, name in parts.items()}
        words = [f"dataset.{split}={quote(source)}" for split, source in named.items()]
    found: dict[str, str] = {}
    for split, source in named.items():
        for name in [source] if isinstance(source, str) else map(str, source):
            if format := _format(folder / Path(name).expanduser(), now, pretrains):
                found.setdefault(format, f"{name} ({split})")
        if isinstance(source, list) and _is_parallel(source):
            found = {"parallel": split}
    if len(found) > 1:
        what = "names files of several formats: " + ", ".join(f"{name} is {format}" for format, name in found.items())
        raise UserError(Problem("dataset", what, "command line", "Convert them to one format, or name fewer files."))
    # An option that ships its files points dataset.path into a package; the user's files must not be looked up there.
    brought = str(dataset.get("path") or "").startswith("package:")
    if not found and (now in NO_FILES or (brought and now == "pydocs")):
        return words
    format = next(iter(found), now)
    if format != now:
        words.append(f"dataset.format={format}")  # a recipe may set the key itself
    return [f"dataset={format}", *words] if format != now or (brought and not path) else words


def _hub(place: Path, named: dict[str, Any]) -> list[str]:
    """`dataset=hub` with a folder written by `save_to_disk`: its files are read, not the hub."""
    if splits_of_saved(place):
        return ["dataset.format=arrow"]
    if not (place / "state.json").is_file():
        return []
    return ["dataset.format=arrow", *([] if named else ["dataset.train=."])]


def _splits_in(folder: Path) -> dict[str, str]:
    """The splits in a folder, by the names of its folders or files; none unless there is `train` and another."""
    if not folder.is_dir():
        return {}
    found: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        # Up to the first dot, for `train.jsonl.gz`.
        name = entry.name.lower().partition(".")[0]
        split = next((split for split, names in SPLIT_NAMES.items() if name in names), None)
        if split and split not in found and (entry.is_dir() or inner_ending(entry)):
            found[split] = entry.name
    return found if "train" in found and len(found) > 1 else {}


def _is_parallel(files: list[Any]) -> bool:
    """Whether two files are named like a parallel corpus, `train.en` and `train.zh`."""
    paths = [Path(str(file)) for file in files]
    known = {suffix for found in FORMATS.values() for suffix in found.suffixes}
    stems = {inner.rpartition(".")[0] for inner in (path.name.removesuffix(".gz") for path in paths)}
    # One stem and two endings that are no format of ours: languages, such as train.en and train.zh.
    endings = {inner_ending(path) for path in paths}
    return len(paths) == 2 == len(endings) and len(stems) == 1 and not endings & known and "" not in endings


def _format(path: Path, now: str, pretrains: bool) -> str | None:
    """The format of a file, a folder, or a pattern; None if the recipe's format may be right."""
    if path.is_dir():
        return _format_of_folder(path, now, pretrains)
    files = [path]
    if not path.exists():
        with suppress(UserError):  # a missing file is reported when it is read
            files = expand(str(path), Path(), (), "dataset")
    # 100 files tell: a pattern may match thousands, and each is opened.
    found = {format for file in files[:100] if (format := _format_of_file(file, now, pretrains))}
    return found.pop() if len(found) == 1 else None


def _format_of_file(file: Path, now: str, pretrains: bool) -> str | None:
    try:
        kind = kind_of(file) if file.is_file() else None
        ending = inner_ending(file)
    except (UserError, OSError):
        return None  # an unreadable file is reported when it is read
    if kind:  # a single image is no set of rows: folders of them are seen as such
        return kind.format if kind.format != "images" else None
    own = FORMATS[now].suffixes if now in FORMATS else ()
    # The recipe's own format wins for its endings: .json is SQuAD's there, except for a list of rows.
    if ending in own and now not in BINARY:
        return "json" if now == "squad" and ending in JSON and first_letter(file) == "[" else now
    for format in BY_ENDING:
        if ending in FORMATS[format].suffixes:
            return format
    if pretrains and ending in FORMATS["text"].suffixes:
        return "text"
    known = {suffix for found in FORMATS.values() for suffix in found.suffixes} - {".txt", ".text"}
    return "json" if ending not in known and file.is_file() and looks_like_json(file) else None


def _format_of_folder(folder: Path, now: str, pretrains: bool) -> str | None:
    if (folder / "state.json").is_file() or splits_of_saved(folder):
        return "arrow"
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    found = {format for file in files[:100] if (format := _format_of_file(file, now, pretrains))}
    if found:
        return found.pop() if len(found) == 1 else None
    by_class = [name for name in ("folder", "images") if files_by_class(folder, FORMATS[name].suffixes)]
    return by_class[0] if len(by_class) == 1 and not pretrains else None
