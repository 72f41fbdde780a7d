"""Reads COCO's JSON (https://cocodataset.org/#format-data): images, and the boxes or the regions of what is in them.

Ids of annotations are not kept: in many files they repeat or begin at 0, and scores need neither.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from llmft.data.annotated_images import Rows, find_images, size_of_image
from llmft.data.encodings import open_text
from llmft.data.masks import BACKGROUND, write_mask
from llmft.data.source import CHUNK, MANY, START, Mark, Table, listed
from llmft.schema.problem import Problem, UserError, missing_package

ID = int | float | str | None  # of what an id is; a list or an object cannot be one
TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image of an EXIF orientation becomes upright, as PIL's `exif_transpose` turns it."""


@dataclass
class CocoImage:
    """An image of the file, and what is in it."""

    id: Any
    path: str
    size: tuple[int, int] | None
    """Width and height that the file says, if it does."""
    annotations: list[dict[str, Any]] = field(default_factory=list)
    """As the file has them, each with `label`, the name of its category."""


@dataclass(frozen=True)
class CocoFile:
    """A .json file with `images`, `annotations`, and `categories`. It is one value, whatever its size."""

    file: Path
    name: str
    encoding: str
    images: str | None = None
    """`dataset.images`, the folder of the images; None to look near the file."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is an image; its id has the image's `id`."""
        rows = Rows()
        for image in self.read(rows.problems, rows.table.left_out)[1]:
            place = f"{self.name}:{image.id}"
            boxes = [box_of(each, place, rows.problems) for each in image.annotations]
            rows.add(image.path, boxes, place, image.size)
            yield from rows.taken(CHUNK)
        yield from rows.taken()
        rows.end()

    def read(self, problems: list[Problem], notes: Counter[str]) -> tuple[list[str], list[CocoImage]]:
        """The names of the categories, and the images of the file in its order, with their annotations.

        Args:
            problems: gets what is wrong: ids that repeat, annotations of unknown images or categories, missing files.
            notes: gets counts of what a user should know.

        Raises:
            UserError: for a file that is not of this form.
        """
        tree = self._tree()
        names = self._categories(tree, problems)
        found: dict[Any, CocoImage] = {}
        places = find_images(
            [str(image.get("file_name", "")) for image in tree["images"]], self.file, self.name, self.images, problems
        )
        for number, image in enumerate(tree["images"]):
            own = image.get("id")
            if not isinstance(own, ID):
                problems.append(
                    Problem(f"{self.name}:images[{number}]", f"must have a number or a text as id, got {own}")
                )
            elif own in found:
                problems.append(Problem(self.name, f"two images have the id {own}", hint="Give each its own."))
            elif own is None:
                problems.append(Problem(f"{self.name}:images[{number}]", "has no id"))
            elif path := places.get(str(image.get("file_name", ""))):
                sides = [side for key in ("width", "height") if isinstance(side := image.get(key), int)]
                found[own] = CocoImage(own, path, (sides[0], sides[1]) if len(sides) == 2 else None)
            if len(problems) >= MANY:
                return [], []
        known = {image.get("id") for image in tree["images"] if isinstance(image.get("id"), ID)}
        seen = Counter(own for each in tree["annotations"] if isinstance(own := each.get("id"), ID))
        if twice := sum(count - 1 for own, count in seen.items() if own is not None):
            notes["annotations have the id of another one; all are read"] += twice
        for number, each in enumerate(tree["annotations"]):
            place = f"{self.name}:annotations[{number}]"
            if not isinstance(own := each.get("image_id"), ID) or own not in known:
                problems.append(Problem(place, f"is of image_id={own!r}, and no image has that id"))
            elif not isinstance(kind := each.get("category_id"), ID) or kind not in names:
                declared = ", ".join(f"{own} ({name})" for own, name in list(names.items())[:10])
                what = f"has category_id={kind!r}, and the categories are {declared or 'none'}"
                problems.append(Problem(place, what))
            elif each["image_id"] in found:
                found[each["image_id"]].annotations.append(each | {"label": names[each["category_id"]]})
            if len(problems) >= MANY:
                return [], []
        return list(names.values()), list(found.values())

    def _tree(self) -> dict[str, list[dict[str, Any]]]:
        """The file's lists of objects.

        Raises:
            UserError: if one is missing, or has something else than objects.
        """
        with open_text(self.file, self.name, self.encoding) as stream:
            try:
                tree = json.loads(stream.read().removeprefix("\ufeff"))
            except json.JSONDecodeError as error:
                what = f"is not JSON: {error.msg}"
                raise UserError(Problem(f"{self.name}:{error.lineno}", what), "the data") from error
        keys = ("images", "annotations", "categories")
        lists = tree if isinstance(tree, dict) else {}
        wrong = [key for key in keys if not _is_objects(lists.get(key))]
        if wrong:
            hint = "Rows with image and boxes are read with dataset=json."
            what = f"must be one object with the lists images, annotations, and categories; {wrong[0]} is not one"
            raise UserError(Problem(self.name, what, hint=hint), "the data")
        return {key: lists[key] for key in keys}

    def _categories(self, tree: dict[str, list[dict[str, Any]]], problems: list[Problem]) -> dict[Any, str]:
        """The name of each category by its id, which may be 0."""
        names: dict[Any, str] = {}
        for each in tree["categories"]:
            own, name = each.get("id"), str(each.get("name", ""))
            if not isinstance(own, int | float | str) or not name:
                problems.append(Problem(self.name, f"has a category without id or name: {each}"))
            elif own in names or name in names.values():
                what = f"two categories have the id {own}" if own in names else f"two categories are called {name}"
                problems.append(Problem(self.name, what))
            else:
                names[own] = name
        return names


@dataclass(frozen=True)
class CocoMasks(CocoFile):
    """The same file, read for a mask of each image: `background`, and the categories in their order.

    Regions are painted from the largest to the smallest, so that what lies on something else stays visible. Crowds are
    regions like others. Polygons and runs become the pixels that COCO's own code gives them.
    """

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is an image; its id has the image's `id`."""
        if problems := missing_package("dataset", "reading regions of COCO", "faster_coco_eval", "vision"):
            raise UserError(problems)
        problems = []
        table = Table({"image": [], "mask": []})
        names, images = self.read(problems, table.left_out)
        index = {label: number for number, label in enumerate(dict.fromkeys([BACKGROUND, *names]))}
        for image in images:
            mask = self._mask(image, index, problems)
            if mask is not None:
                table.columns["image"].append({"path": image.path, "bytes": None})
                table.columns["mask"].append({"path": None, "bytes": write_mask(mask, list(index))})
                table.ids.append(f"{self.name}:{image.id}")
            if len(table) == CHUNK:
                yield START, table
                table = Table({"image": [], "mask": []})
        yield START, table
        if problems:
            raise UserError(listed(problems), "the data")

    def named(self) -> Iterator[tuple[Mark, Table]]:
        """See `NamesImages`."""
        images = self.read([], Counter())[1]
        cells = [{"path": image.path, "bytes": None} for image in images]
        yield START, Table({"image": cells}, [f"{self.name}:{image.id}" for image in images])

    def _mask(self, image: CocoImage, index: dict[str, int], problems: list[Problem]) -> numpy.ndarray | None:
        """The indices (height, width) of an image, upright; None after adding what is wrong to `problems`."""
        from faster_coco_eval import mask as coco

        place = f"{self.name}:{image.id}"
        actual, orientation = size_of_image(image.path)
        if actual is None:
            problems.append(Problem(place, f"{image.path} cannot be read"))
            return None
        upright = actual[::-1] if orientation >= 5 else actual
        size = image.size or upright
        if size not in (upright, actual):
            what = f"says that {Path(image.path).name} is {size[0]} x {size[1]}, and it is {actual[0]} x {actual[1]}"
            problems.append(Problem(place, what, hint="Its regions are of another version of the image."))
            return None
        regions = []
        for each in image.annotations:
            try:
                regions.append((region_of(each.get("segmentation"), *size), index[each["label"]]))
            except ValueError as error:
                problems.append(Problem(place, f"annotation {each.get('id')} {error}"))
                return None
        mask = numpy.zeros(size[::-1], numpy.uint8, order="F")  # by columns, as runs are decoded
        for runs, label in sorted(regions, key=lambda region: -int(coco.area(region[0]))):
            mask[coco.decode(runs).view(bool)] = label
        # Regions of an image that is stored on its side, and annotated as it is stored.
        mask = numpy.ascontiguousarray(mask)
        return mask if size == upright else numpy.asarray(Image.fromarray(mask).transpose(TURNS[orientation]))


def region_of(segmentation: Any, width: int, height: int) -> Any:
    """The runs of a region as COCO's own code has them, from polygons or other runs.

    Args:
        segmentation: polygons, a list of [x, y, x, y, ...] each; or runs, `{"size": [height, width], "counts": ...}`
            with counts as a list or as COCO's text.

    Raises:
        ValueError: if it is neither, or of another size.
    """
    from faster_coco_eval import mask as coco

    if isinstance(segmentation, dict) and segmentation.get("counts"):
        if segmentation.get("size") != [height, width]:
            raise ValueError(f"must have runs of the size {[height, width]}, got {segmentation.get('size')}")
        counts = segmentation["counts"]
        if isinstance(counts, str):
            return segmentation | {"counts": counts.encode()}
        if sum(counts) != width * height:
            raise ValueError(f"must have runs of {width * height:,} pixels, got {sum(counts):,}")
        return coco.frPyObjects(segmentation, height, width)
    if isinstance(segmentation, list) and segmentation and all(map(_is_polygon, segmentation)):
        return coco.merge(coco.frPyObjects(segmentation, height, width))
    raise ValueError("must have polygons of three points or more, or runs, as its segmentation")


def _is_polygon(value: Any) -> bool:
    numbers = isinstance(value, list) and set(map(type, value)) <= {int, float}
    return numbers and len(value) >= 6 and len(value) % 2 == 0


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def box_of(annotation: dict[str, Any], place: str, problems: list[Problem]) -> dict[str, Any]:
    """The box of an annotation, that of its polygons if it has none."""
    box = annotation.get("bbox")
    polygons = annotation.get("segmentation")
    if box is None and isinstance(polygons, list) and all(isinstance(part, list) and part for part in polygons):
        across = [value for part in polygons for value in part[0::2]]
        down = [value for part in polygons for value in part[1::2]]
        if across:
            box = [min(across), min(down), max(across) - min(across), max(down) - min(down)]
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)):
        problems.append(Problem(place, f"must have a bbox of x, y, width, and height, got {box}"))
        box = [0, 0, 0, 0]
    found = {"box": box, "label": annotation["label"], "crowd": bool(annotation.get("iscrowd", 0))}
    # That of the object, not of its box: COCO's scores by size are by this.
    return found | ({"area": annotation["area"]} if isinstance(annotation.get("area"), int | float) else {})
