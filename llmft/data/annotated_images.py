"""Images that an annotation file names: where they are, their size, and the boxes in them, turned as EXIF says."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llmft.data.files import resolve
from llmft.data.masks import stored_size
from llmft.data.source import MANY, START, Mark, Table, listed
from llmft.schema.problem import Problem, UserError

NEAR = ("", "images", "../images", "../JPEGImages", "../{stem}", "../{split}", "{split}")
"""Folders where the images of an annotation file are, seen from its own: beside it, as COCO has them, and as VOC."""


@dataclass
class Rows:
    """Builds rows of images and their boxes, turned as the image is."""

    table: Table = field(default_factory=lambda: Table({"image": [], "boxes": []}))
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: str, boxes: list[dict[str, Any]], place: str, size: tuple[int, int] | None = None) -> None:
        """Add an image.

        Args:
            size: width and height that the annotation says; boxes of an image that EXIF turns may be of either side.
        """
        actual, orientation = size_of_image(path)
        upright = (actual[1], actual[0]) if actual and orientation >= 5 else actual
        if size and actual and size != upright:
            if size != actual:
                what = f"says that {Path(path).name} is {size[0]} x {size[1]}, and it is {actual[0]} x {actual[1]}"
                self.problems.append(Problem(place, what, hint="Its boxes are of another version of the image."))
                return
            boxes = [box | {"box": turned(box["box"], actual, orientation)} for box in boxes]
        self.table.columns["image"].append({"path": path, "bytes": None})
        self.table.columns["boxes"].append(boxes)
        self.table.ids.append(place)

    def taken(self, least: int = 1) -> Iterator[tuple[Mark, Table]]:
        """The rows so far if there are at least so many, and an empty table from now on."""
        if len(self.table) >= least or (least == 1 and self.table.left_out):
            yield START, self.table
            self.table = Table({"image": [], "boxes": []})

    def end(self) -> None:
        """Raise UserError for all problems."""
        if self.problems:
            raise UserError(listed(self.problems), "the data")


def size_of_image(path: str) -> tuple[tuple[int, int] | None, int]:
    """Width and height of an image as it is stored, and its EXIF orientation; None if it cannot be opened.

    Broken images are reported by the task, which decodes them.
    """
    try:
        return stored_size({"path": path, "bytes": None})
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, 1


def turned(box: Sequence[float], size: tuple[int, int], orientation: int) -> list[float]:
    """A box of an image as it is stored, in pixels of the upright one.

    Args:
        box: x, y, width, height.
        size: width and height as stored.
        orientation: EXIF's, 1 to 8 (Exif 2.32, section 4.6.4).
    """
    x, y, w, h = box
    if orientation in (2, 3, 7, 8):  # the upright image runs against x
        x = size[0] - x - w
    if orientation in (3, 4, 6, 7):  # and against y
        y = size[1] - y - h
    return [y, x, h, w] if orientation >= 5 else [x, y, w, h]


def find_images(
    names: Iterable[str], file: Path, called: str, images: str | None, problems: list[Problem]
) -> dict[str, str]:
    """The path of each image that an annotation file names: below `dataset.images`, else near the file.

    Args:
        names: as the file has them; absolute paths are taken as they are.
        called: the file as messages name it.
        problems: gets one for each image that is not there, with the folders that were searched.
    """
    names = list(dict.fromkeys(names))
    split = next((part for part in ("train", "val", "test") if part in file.stem.lower()), "")
    stem = file.stem.removeprefix("instances_")
    folders = [file.parent / near.format(stem=stem, split=split) for near in NEAR]
    if images is not None:
        folders = [resolve(images, "dataset.images")]
    folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    if images is not None and not folders:
        problems.append(Problem("dataset.images", f"no such folder: {images}"))
        return {}
    # The folder of most images: one that happens to have a name of another set is not where the others are.
    found = {folder: {name: str(folder / name) for name in names if (folder / name).is_file()} for folder in folders}
    best = max(found.values(), key=len, default={})
    for name in names:
        if name not in best:
            hint = "" if images else "If they are elsewhere, write dataset.images=FOLDER."
            problems.append(Problem(called, f"names the image {name!r}, which is not there", hint=hint))
            if len(problems) >= MANY:
                break
    return best
