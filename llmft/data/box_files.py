"""Reads boxes of objects in images: Pascal VOC's XML, YOLO's text files, and tables with a line for each box.

Boxes become COCO's [x, y, width, height] in pixels of the upright image, counted from 0, the far side exclusive.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmft.data.annotated_images import Rows, find_images, size_of_image
from llmft.data.csv_files import open_csv
from llmft.data.files import resolve
from llmft.data.source import CHUNK, MANY, FileGroup, Mark, Table, listed
from llmft.schema.problem import Problem, UserError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "classes.names")
"""Where YOLO's class names are, in the folder of the images or up to three above it."""

COLUMNS = {
    "image": ("image", "filename", "file_name", "image_path", "path", "file", "image_id", "img"),
    "label": ("label", "class", "class_name", "name", "category", "classname"),
    "left": ("xmin", "x_min", "x1", "left", "x"),
    "top": ("ymin", "y_min", "y1", "top", "y"),
    "right": ("xmax", "x_max", "x2", "right"),
    "bottom": ("ymax", "y_max", "y2", "bottom"),
    "width": ("w", "box_width", "bbox_width", "width"),
    "height": ("h", "box_height", "bbox_height", "height"),
}
"""The names that tables of boxes use, in lower case, the first one that is there."""


@dataclass(frozen=True)
class VocFiles(FileGroup):
    """Pascal VOC's XML files, one an image."""

    images: str | None = None
    """`dataset.images`; None for the folder JPEGImages beside that of the file, or its own."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Objects marked `difficult` are as COCO's crowds: they neither count nor train, as in VOC."""
        rows = Rows()
        for file, name in zip(self.files, self.names, strict=True):
            try:
                tree = ElementTree.parse(file).getroot()
            except (ElementTree.ParseError, OSError) as error:
                rows.problems.append(Problem(name, f"is not XML: {error}"))
                continue
            # The name alone: many files keep the folder of the machine on which they were drawn.
            image = Path((tree.findtext("filename") or "").strip()).name or f"{file.stem}.jpg"
            # Annotation tools may name a .png where the set has .jpg: then the stem of the XML file is right.
            names = [image, *(f"{file.stem}{ending}" for ending in IMAGES)]
            folders = [file.parent, file.parent.parent / "JPEGImages", file.parent.parent / "images"]
            folders = folders if self.images is None else [resolve(self.images, "dataset.images")]
            there = [folder / each for each in names for folder in folders if (folder / each).is_file()]
            if not there:
                hint = "" if self.images else "If they are elsewhere, write dataset.images=FOLDER."
                rows.problems.append(Problem(name, f"is of the image {image!r}, which is not there", hint=hint))
            else:
                boxes = [self._box(part, name, rows) for part in tree.iter("object")]
                # Compared with the image itself: boxes of one that was resized later would be silently wrong.
                size = [_whole(tree.findtext(f"size/{side}")) for side in ("width", "height")]
                rows.add(str(there[0]), boxes, f"{name}:1", (size[0], size[1]) if all(size) else None)
            if len(rows.problems) >= MANY:
                break
            yield from rows.taken(CHUNK)
        yield from rows.taken()
        rows.end()

    def _box(self, part: ElementTree.Element, name: str, rows: Rows) -> dict[str, Any]:
        """The box of an object. VOC counts pixels from 1, and its far side is inclusive: only the near side changes."""
        label = (part.findtext("name") or "").strip()
        sides = [part.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(side or "") for side in sides)
        except ValueError:
            rows.problems.append(Problem(name, f"must have xmin, ymin, xmax, and ymax of {label!r}, got {sides}"))
            # Reading goes on, so that all bad boxes of a file come together.
            left = top = right = bottom = 0
        if not label:
            rows.problems.append(Problem(name, "has an object without a name"))
        crowd = (part.findtext("difficult") or "0").strip() == "1"
        if crowd:
            rows.table.left_out["objects marked difficult neither train nor count in scores"] += 1
        # Files of other programs count from 0: there is nothing left of 0.
        left, top = max(left - 1, 0), max(top - 1, 0)
        return {"box": [left, top, right - left, bottom - top], "label": label, "crowd": crowd}


def _whole(text: str | None) -> int:
    return int(float(text)) if text and text.strip().replace(".", "", 1).isdigit() else 0


def voc_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The XML files in a folder, or in its folder Annotations."""
    inside = folder / "Annotations"
    return sorted((inside if inside.is_dir() else folder).glob("*.xml"))


def listed_by(file: Path, key: str) -> list[Path]:
    """The XML files that a list of VOC names, such as ImageSets/Main/train.txt; any other file is itself.

    Raises:
        UserError: for names without a file.
    """
    if file.suffix.lower() != ".txt":
        return [file]
    # Lists of one class, such as cat_train.txt, have a second column of 1, 0, and -1.
    names = [line.split()[0] for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    # From ImageSets/Main/train.txt the annotations are two folders up; lists of one's own may lie beside them.
    above = [folder / "Annotations" for folder in file.parents[:4] if (folder / "Annotations").is_dir()]
    folder = above[0] if above else file.parent
    files = [folder / f"{name}.xml" for name in names]
    missing = [
        Problem(key, f"{file.name} lists {one.stem}, and there is no {one}") for one in files if not one.is_file()
    ]
    if missing:
        raise UserError(listed(missing), "the data")
    return files


def images_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The images in a folder and those below it."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())


def yolo_label(image: Path) -> Path:
    """The file with the boxes of an image: labels/a/b.txt for images/a/b.jpg, else beside it."""
    parts = list(image.parts)
    # The last one: the set itself may lie below another folder called images.
    places = [place for place, part in enumerate(parts) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
        if (found := Path(*parts).with_suffix(".txt")).is_file() or Path(*parts).parent.is_dir():
            return found
    return image.with_suffix(".txt")


def yolo_names(images: Sequence[Path]) -> Path | None:
    """The file with the names of classes, in the folder of the images or up to three above it."""
    folders = [images[0].parent, *list(images[0].parent.parents)[:3]] if images else []
    return next((folder / name for folder in folders for name in NAMES if (folder / name).is_file()), None)


def yolo_beside(images: Sequence[Path]) -> list[Path]:
    """The files that are read with the images: those of boxes, and that of names."""
    names = yolo_names(images)
    return [file for file in map(yolo_label, images) if file.is_file()] + ([names] if names else [])


@dataclass(frozen=True)
class YoloFiles(FileGroup):
    """Images, each with a text file: a line `class x y width height` for each box, as shares, x and y of its middle.

    An image without a text file, or with an empty one, has no objects. Lines of more numbers are polygons.
    """

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Boxes end at the border: shares of 6 digits come out past it by rounding."""
        rows = Rows()
        classes = read_yolo_names(yolo_names(self.files), rows.problems)
        if classes is None:
            rows.table.left_out["classes have numbers for names: there is no data.yaml or classes.txt"] = 1
        for file, name in zip(self.files, self.names, strict=True):
            label = yolo_label(file)
            (size, orientation), boxes = size_of_image(str(file)), []
            if size and label.is_file():
                # Orientations 5 to 8 lie on a side: YOLO's shares are of the upright image, as its trainers see it.
                width, height = (size[1], size[0]) if orientation >= 5 else size
                for number, line in enumerate(label.read_text(encoding="utf-8-sig").splitlines(), 1):
                    if line.strip():
                        boxes += self._box(line, f"{label.name}:{number}", (width, height), classes, rows.problems)
            rows.add(str(file), boxes, f"{name}:1")
            if len(rows.problems) >= MANY:
                break
            yield from rows.taken(CHUNK)
        yield from rows.taken()
        rows.end()

    def _box(
        self, line: str, place: str, size: tuple[int, int], classes: list[str] | None, problems: list[Problem]
    ) -> list[dict[str, Any]]:
        try:
            # Four numbers are a box, six and more of an even count the corners of a polygon (YOLO's segmentation).
            first, *shares = (float(cell) for cell in line.split())
            if not first.is_integer() or (len(shares) != 4 and (len(shares) < 6 or len(shares) % 2)):
                raise ValueError
        except ValueError:
            problems.append(Problem(place, f"must be `class x y width height`, got {line.strip()[:60]!r}"))
            return []
        # 1% for rounding; numbers beyond it are pixels, or another format.
        if max(shares) > 1.01 or min(shares) < -0.01:
            problems.append(Problem(place, f"must have shares of the image, from 0 to 1, got {max(shares):g}"))
            return []
        if classes is not None and not 0 <= first < len(classes):
            what = f"has class {int(first)}, and there are {len(classes)}, counted from 0"
            problems.append(Problem(place, what, hint="Add it to the file of names, data.yaml or classes.txt."))
            return []
        if len(shares) == 4:
            across = [shares[0] - shares[2] / 2, shares[0] + shares[2] / 2]
            down = [shares[1] - shares[3] / 2, shares[1] + shares[3] / 2]
        else:
            across, down = shares[0::2], shares[1::2]
        # Clipped: of 394 boxes of blood cells, 14 came out past the border after rounding to 6 digits.
        left, right = (min(max(share, 0), 1) * size[0] for share in (min(across), max(across)))
        top, bottom = (min(max(share, 0), 1) * size[1] for share in (min(down), max(down)))
        label = str(int(first)) if classes is None else classes[int(first)]
        return [{"box": [left, top, right - left, bottom - top], "label": label, "crowd": False}]


def read_yolo_names(file: Path | None, problems: list[Problem]) -> list[str] | None:
    """The names of classes by number, from `names` of a YAML file or the lines of a text; None without a file."""
    if file is None:
        return None
    text = file.read_text(encoding="utf-8-sig")
    # darknet's files have a name a line.
    if file.suffix not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.append(Problem(str(file), f"is not YAML: {str(error).splitlines()[0]}"))
        return []
    names = found.get("names") if isinstance(found, dict) else None
    # A list, or an object from number to name; a gap in the numbers would shift all later names.
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list):
        problems.append(Problem(str(file), "must have `names`, a list of classes or an object from 0 on"))
        return []
    return list(map(str, names))


@dataclass(frozen=True)
class BoxTable:
    """A CSV with a line for each box: its image, its class, and its sides.

    A line with an image alone is one without objects. See COLUMNS for names; without a header, `dataset.header`.
    """

    file: Path
    name: str
    encoding: str
    header: Sequence[str] = ()
    separator: str | None = None
    images: str | None = None

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is an image; its id has the line of its first box."""
        rows = Rows()
        found: dict[str, list[dict[str, Any]]] = {}
        places: dict[str, str] = {}
        for _, table in open_csv(self.file, self.name, self.encoding, self.header, self.separator).chunks():
            columns = self._columns(table)
            for number, place in enumerate(table.ids):
                line = {role: table.columns[column][number].strip() for role, column in columns.items()}
                # Lines of one image need not follow each other: all are read before the first row is given.
                boxes = found.setdefault(line["image"], [])
                places.setdefault(line["image"], place)
                # Else an image without objects, which a detector must see too.
                if any(cell for role, cell in line.items() if role != "image"):
                    boxes += self._box(line, place, rows.problems)
                if len(rows.problems) >= MANY:
                    break
        paths = find_images(found, self.file, self.name, self.images, rows.problems)
        for image, boxes in found.items():
            if image in paths:
                rows.add(paths[image], boxes, places[image])
                yield from rows.taken(CHUNK)
        yield from rows.taken()
        rows.end()

    def _columns(self, table: Table) -> dict[str, str]:
        """The column of each role.

        Raises:
            UserError: naming the roles without one.
        """
        known = {name.strip().lower(): name for name in table.columns}
        found = {}
        for role, names in COLUMNS.items():
            if column := next((known[name] for name in names if name in known), None):
                found[role] = column
        if "right" in found and "bottom" in found:  # then width and height are those of the image
            found = {role: column for role, column in found.items() if role not in ("width", "height")}
            sides = ("left", "top", "right", "bottom")
        else:
            sides = ("left", "top", "width", "height")
        if missing := [role for role in ("image", "label", *sides) if role not in found]:
            what = f"has no column for {', '.join(missing)}; it has {', '.join(table.columns)}"
            hint = f"Call it {COLUMNS[missing[0]][0]}, or name all columns in order: dataset.header=[image,...]."
            raise UserError(Problem(self.name, what, hint=hint), "the data")
        return found

    def _box(self, line: dict[str, str], place: str, problems: list[Problem]) -> list[dict[str, Any]]:
        sides = {role: cell for role, cell in line.items() if role not in ("image", "label")}
        try:
            left, top, third, fourth = (float(cell) for cell in sides.values())
        except ValueError:
            problems.append(Problem(place, f"must have four numbers, got {', '.join(sides.values())}"))
            return []
        if not line["label"]:
            problems.append(Problem(place, "has a box without a class"))
            return []
        box = [left, top, third - left, fourth - top] if "right" in sides else [left, top, third, fourth]
        return [{"box": box, "label": line["label"], "crowd": False}]
