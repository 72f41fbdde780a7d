"""Reads masks: what each pixel of an image shows, from folders of mask images, or from tables of runs of pixels.

A mask is an image of indices. Readers of other forms write such an image, so that tasks know one form.
"""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy
from PIL import Image, PngImagePlugin

from llmft.data.csv_files import open_csv
from llmft.data.encodings import lines_of, open_text
from llmft.data.files import resolve
from llmft.data.images import SUFFIXES, BadImage, Cell, content, content_digest, open_image, orientation
from llmft.data.source import CHUNK, START, FileGroup, Mark, Table, listed
from llmft.schema.problem import Problem, UserError

BACKGROUND = "background"
LABELS = "labels"  # the text of a PNG that holds the names of its indices, as a JSON list
IMAGES, MASKS = ("images", "JPEGImages"), ("masks", "SegmentationClass")
DEPTH = 3  # folders above a file in which those are looked for: VOC's lists lie in ImageSets/Segmentation
OF_IMAGES = "Write dataset.images=FOLDER, the folder of the images."
JPEG = b"\xff\xd8\xff"
SUMMARIES = 100_000  # kept at once: 50 MB
TURNED = range(5, 9)  # EXIF orientations by which width and height change places
RUNS = ("EncodedPixels", "rle", "rle_mask", "encoded_pixels", "annotation")
"""Columns of runs, as the competitions of Kaggle call them."""
NAMES = ("ImageId", "image", "image_id", "img", "id")
CLASSES = ("ClassId", "class", "label", "class_id", "category")


class Mask(NamedTuple):
    """A mask as it lies in its file."""

    values: numpy.ndarray
    """(height, width) numbers, or (height, width, 3) colors, upright."""
    labels: list[str] | None = None
    """The names of the indices, where the file has them."""


class Summary(NamedTuple):
    """What a mask holds."""

    size: tuple[int, int]
    """Width and height, upright."""
    values: list[int]
    """Those that occur, sorted; of a color 65536 * red + 256 * green + blue."""
    colored: bool
    wide: bool
    """Whether values have 16 bits."""
    labels: list[str] | None


def summarize(mask: Mask) -> Summary:
    """What a mask holds."""
    values = numbers_of(mask)
    colored = mask.values.ndim == 3
    # Of 16 million colors a table would be too long; of 65,536 values it is ten times as fast as a search.
    found = numpy.unique(values) if colored else numpy.flatnonzero(numpy.bincount(values.ravel()))
    wide = not colored and mask.values.dtype != numpy.uint8
    return Summary(values.shape[::-1], found.tolist(), colored, wide, mask.labels)


def numbers_of(mask: Mask) -> numpy.ndarray:
    """(height, width), a number for each pixel, that of its color if it has one: see `Summary.values`."""
    return mask.values if mask.values.ndim == 2 else mask.values.astype(numpy.int64) @ (65536, 256, 1)


_summaries: dict[str, Summary] = {}


def summary_of(cell: Cell) -> Summary:
    """What a mask holds, kept by the digest of its file: preparation asks three times, and decoding takes 1 ms.

    Raises:
        BadImage: why the image cannot be a mask.
    """
    if (key := content_digest(cell)) not in _summaries:
        if len(_summaries) >= SUMMARIES:
            _summaries.clear()
        _summaries[key] = summarize(read_mask(cell))
    return _summaries[key]


def stored_size(cell: Cell) -> tuple[tuple[int, int], int]:
    """Width and height of an image as it is stored, and its EXIF orientation; without decoding it.

    Raises:
        OSError: if it is not an image.
    """
    with io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"]).open("rb") as stream:
        image = Image.open(stream)
        return image.size, orientation(image)


def upright_size(cell: Cell) -> tuple[int, int]:
    """Width and height of an image after it is turned as its EXIF says; see `stored_size`."""
    (width, height), orientation = stored_size(cell)
    return (height, width) if orientation in TURNED else (width, height)


def read_mask(cell: Cell) -> Mask:
    """The numbers of a mask: indices of a palette, gray values, 0 and 1 of a bitmap; else its colors.

    Raises:
        BadImage: why the image cannot be a mask.
    """
    if content(cell)[:3] == JPEG:
        raise BadImage("is a JPEG, whose compression changes values near every edge: save masks as PNG")
    image = open_image(cell)
    names = image.info.get(LABELS)
    if image.mode == "LA":
        image = image.getchannel("L")
    elif image.mode == "RGBA":
        image = image.convert("RGB")  # leaves the alpha channel out and colors as they are
    values = numpy.asarray(image)
    if image.mode not in ("1", "P", "L", "RGB") and not image.mode.startswith("I"):
        raise BadImage(f"has the mode {image.mode}: a mask has a palette, gray values, or RGB colors")
    if values.dtype not in (numpy.uint8, numpy.bool_) and (values.min() < 0 or values.max() > 65535):
        raise BadImage("has values of more than 16 bits")
    return Mask(values.astype(numpy.uint8) if image.mode == "1" else values, json.loads(names) if names else None)


def names_in(cell: Cell) -> list[str]:
    """The names of the indices of a mask, where the file has them; from the header alone."""
    try:
        with Image.open(io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"]) as image:
            return list(json.loads(image.info.get(LABELS, "[]")))
    except OSError:
        return []  # `read_mask` says what is wrong


def write_mask(indices: numpy.ndarray, labels: Sequence[str] | None = None) -> bytes:
    """A PNG with a palette, as `read_mask` reads it.

    Args:
        indices: (height, width) uint8.
        labels: the names of the indices, kept in the file.
    """
    image = Image.fromarray(indices)
    # The colors that occur alone: of two labels, Pillow then writes a bit for each pixel.
    image.putpalette(PALETTE[: 3 * (int(indices.max()) + 1)])
    info = PngImagePlugin.PngInfo()
    if labels is not None:
        info.add_itxt(LABELS, json.dumps(list(labels), ensure_ascii=False))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def to_text(png: bytes) -> str:
    """A mask in base64, as answers have it."""
    return base64.b64encode(png).decode("ascii")


def from_text(text: str) -> numpy.ndarray:
    """The indices of `to_text`, (height, width) uint8."""
    return read_mask({"path": None, "bytes": base64.b64decode(text)}).values


def _palette() -> list[int]:
    """The colors of Pascal VOC: three bits of an index go to red, green, and blue in turn, the lowest ones first.

    Neighboring indices get colors that are far apart. 255, a pixel without a label, is nearly white.
    """
    colors = []
    for index in range(256):
        for channel in range(3):
            bits = (index >> (3 * step + channel) & 1 for step in range(3))
            colors.append(sum(bit << 7 - step for step, bit in enumerate(bits)))
    return colors


PALETTE = _palette()


def images_inside(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The images of a split that is a folder: those in its folder `images`, or else its own."""
    inner = folder / "images"
    return list(by_stem(inner if inner.is_dir() else folder).values())


def by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by their names without an ending; none if there is no such folder."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {file.stem: file for file in files if file.suffix.lower() in SUFFIXES}


def stem_of(name: str) -> str:
    """The name of an image without its ending; `a.b` has none."""
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def near(file: Path, names: Sequence[str]) -> Path | None:
    """The folder of one of these names that is nearest to a file: beside it, or beside one of the folders it is in."""
    folders = (folder / name for folder in file.absolute().parents[:DEPTH] for name in names)
    return next((folder for folder in folders if folder.is_dir()), None)


@dataclass(frozen=True)
class MaskFolder(FileGroup):
    """Images, or lists of their names, and a folder of masks with the same names."""

    images: str | None
    """`dataset.images`, the folder of the images that a list names."""
    masks: str | None
    """`dataset.masks`, the folder of the masks, or a pattern in which {} stands for the name of an image."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is. The id of a row is the image with its folder."""
        problems: list[Problem] = []
        pairs: list[tuple[Path, Path]] = []
        known: dict[Path, dict[str, Path]] = {}
        for image, where in self._images(problems):
            wanted = self._wanted(image)
            if wanted and wanted.parent not in known:
                known[wanted.parent] = by_stem(wanted.parent)
            if wanted and (mask := known[wanted.parent].get(stem_of(wanted.name))):
                pairs.append((image, mask))
            else:
                hint = "Write dataset.masks=FOLDER, or a pattern such as dataset.masks=labels/{}_L.png."
                what = f"has no mask {wanted.name} in {wanted.parent}" if wanted else "has no folder masks near it"
                problems.append(Problem(where, what, hint=hint))
        for first in range(0, len(pairs), CHUNK):
            images, masks = zip(*pairs[first : first + CHUNK], strict=True)
            columns = {"image": list(map(cell_of, images)), "mask": list(map(cell_of, masks))}
            yield START, Table(columns, list(map(id_of, images)))
        if problems:
            raise UserError(listed(problems), "the data")

    def _wanted(self, image: Path) -> Path | None:
        """Where the mask of an image is, its ending aside; None if there is no folder of masks."""
        if self.masks is not None:
            pattern = self.masks if "{}" in self.masks else f"{self.masks}/{{}}"
            return Path(pattern.replace("{}", image.stem)).expanduser()
        if (folder := near(image.parent, MASKS)) is None:
            return None
        below = folder / image.parent.name  # images/train/1.jpg has the mask masks/train/1.png
        return (below if below.is_dir() else folder) / image.stem

    def _images(self, problems: list[Problem]) -> Iterator[tuple[Path, str]]:
        """Each image, and where it is named."""
        for file, name in zip(self.files, self.names, strict=True):
            if file.suffix.lower() in SUFFIXES:
                yield file, name
                continue
            folder = images_of(file, name, self.images)
            images = by_stem(folder)
            lines: dict[str, int] = {}
            with open_text(file, name, self.encoding) as stream:
                for number, line in enumerate(lines_of(stream, name, 1), 1):
                    given = line.strip("\ufeff \t\r\n")
                    stem, where = stem_of(given), f"{name}:{number}"
                    if not given:
                        continue
                    if (earlier := lines.setdefault(stem, number)) != number:
                        problems.append(Problem(where, f"repeats {given} of line {earlier}"))
                    elif stem in images:
                        yield images[stem], where
                    else:
                        problems.append(Problem(where, no_image(given, folder), hint=OF_IMAGES))


def images_of(file: Path, name: str, given: str | None) -> Path:
    """The folder of the images that a list or a table names.

    Args:
        name: the file as messages name it.
        given: `dataset.images`.

    Raises:
        UserError: if there is none near the file.
    """
    if given is not None:
        return resolve(given, "dataset.images")
    if found := near(file, IMAGES):
        return found
    what = f"names images, and there is no folder {' or '.join(IMAGES)} near it"
    raise UserError(Problem(name, what, hint=OF_IMAGES), "the data")


def cell_of(file: Path) -> Cell:
    """A file as a value of a column of images."""
    return {"path": str(file.absolute()), "bytes": None}


def id_of(image: Path) -> str:
    """The id of a row: the image with its folder."""
    return f"{image.parent.name}/{image.name}"


def no_image(name: str, folder: Path) -> str:
    """What is wrong with a name of no image."""
    return f"must name an image in {folder}, got {name}"


class Region(NamedTuple):
    """A row of a table of runs."""

    where: str
    runs: str
    label: int
    """The index of its label."""


@dataclass(frozen=True)
class RunsFile:
    """A table with runs of pixels, a row for each region, in the form of the competitions of Kaggle.

    `1 3 10 5` are pixels 1 to 3 and 10 to 14, counted from 1, down each column and then from left to right. A row
    without runs is an image without regions. A region covers those of earlier rows.
    """

    file: Path
    name: str
    encoding: str
    separator: str | None
    images: str | None
    """`dataset.images`, the folder of the images."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields one row for each image, whatever `start` is; the rows of the table are read first."""
        regions, labels = self._regions()
        folder = images_of(self.file, self.name, self.images)
        files = by_stem(folder)
        problems: list[Problem] = []
        table = Table({"image": [], "mask": []})
        for name, parts in regions.items():
            if (file := files.get(stem_of(name))) is None:
                problems.append(Problem(parts[0].where, no_image(name, folder), hint=OF_IMAGES))
            elif (indices := painted(file, parts, problems)) is not None:
                table.columns["image"].append(cell_of(file))
                table.columns["mask"].append({"path": None, "bytes": write_mask(indices, labels)})
                table.ids.append(id_of(file))
            if len(table) == CHUNK:
                yield START, table
                table = Table({"image": [], "mask": []})
        if len(table):
            yield START, table
        if problems:
            raise UserError(listed(problems), "the data")

    def named(self) -> Iterator[tuple[Mark, Table]]:
        """See `NamesImages`."""
        folder = images_of(self.file, self.name, self.images)
        files = by_stem(folder)
        found = [files[stem] for name in self._regions()[0] if (stem := stem_of(name)) in files]
        yield START, Table({"image": list(map(cell_of, found))}, list(map(id_of, found)))

    def _regions(self) -> tuple[dict[str, list[Region]], list[str]]:
        """The rows of each image, and the names of the classes, the background first.

        Raises:
            UserError: for a table without such columns.
        """
        table = Table()
        for _, part in open_csv(self.file, self.name, self.encoding, (), self.separator).chunks():
            table.extend(part)
        image, runs = (self._column(table, names) for names in (NAMES, RUNS))
        kind = next((name for name in CLASSES if name in table.columns), None)
        kinds = table.columns[kind] if kind else ["foreground"] * len(table)
        # Numbers by their size and before words: as texts, 10 would come before 9.
        found = sorted({text for text in kinds if text}, key=lambda text: (not text.isdigit(), text.zfill(9)))
        index = {label: number for number, label in enumerate([BACKGROUND, *found])}
        regions: dict[str, list[Region]] = {}
        for where, name, text, label in zip(table.ids, table.columns[image], table.columns[runs], kinds, strict=True):
            if text.strip() and not label:
                raise UserError(Problem(where, f"must have a {kind}, since it has {runs}"), "the data")
            regions.setdefault(name, []).append(Region(where, text, index.get(label, 0)))
        return regions, list(index)

    def _column(self, table: Table, names: Sequence[str]) -> str:
        """The first of these names that is a column.

        Raises:
            UserError: if none is.
        """
        if found := next((name for name in names if name in table.columns), None):
            return found
        what = f"must have a column {' or '.join(names)}, got {', '.join(table.columns)}"
        raise UserError(Problem(self.name, what), "the data")


def painted(file: Path, regions: list[Region], problems: list[Problem]) -> numpy.ndarray | None:
    """The indices (height, width) of the regions of an image; None after adding what is wrong to `problems`."""
    try:
        width, height = upright_size(cell_of(file))
    except OSError as error:
        problems.append(Problem(regions[0].where, f"{file} cannot be read: {error}"))
        return None
    pixels = numpy.zeros(width * height, numpy.uint8)
    for region in regions:
        try:
            paint(pixels, region)
        except ValueError as error:
            problems.append(Problem(region.where, f"must be runs within {file.name}, {width} x {height}: {error}"))
            return None
    return numpy.ascontiguousarray(pixels.reshape(width, height).T)


def paint(pixels: numpy.ndarray, region: Region) -> None:
    """Write the index of a region to its pixels, which are in the order of columns.

    Raises:
        ValueError: for runs that are not pairs of numbers, or that leave the image.
    """
    cells = region.runs.split()
    if wrong := next((cell for cell in cells if not cell.isdigit()), None):
        raise ValueError(f"got {wrong!r}, which is not a count of pixels")
    if len(cells) % 2:
        raise ValueError(f"got {len(cells)} numbers, and runs are pairs of a start and a length")
    for start, length in zip(map(int, cells[::2]), map(int, cells[1::2]), strict=True):
        if start < 1 or start - 1 + length > len(pixels):
            raise ValueError(f"got the run {start} {length} of {len(pixels)} pixels")
        pixels[start - 1 : start - 1 + length] = region.label
