"""Masks from the regions of a COCO file."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image, ImageOps

pytest.importorskip("faster_coco_eval")

from llmft.data.coco import CocoMasks, region_of
from llmft.data.masks import read_mask
from llmft.data.source import Table
from llmft.schema.problem import UserError

SQUARE = [[1, 1, 5, 1, 5, 4, 1, 4]]


def write(folder: Path, *annotations: dict[str, Any], orientation: int = 1, **picture: Any) -> CocoMasks:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (8, 6)).save(folder / "a.jpg", exif=exif)
    tree = {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 8, "height": 6} | picture],
        "annotations": [{"id": n, "image_id": 3} | each for n, each in enumerate(annotations)],
        "categories": [{"id": 0, "name": "cell"}, {"id": 9, "name": "dirt"}],
    }
    (folder / "a.json").write_text(json.dumps(tree))
    return CocoMasks(folder / "a.json", "a.json", "utf-8")


def rows(source: CocoMasks) -> Table:
    table = Table()
    for _, part in source.chunks():
        table.extend(part)
    return table


def test_polygons_and_runs_are_painted_from_large_to_small(tmp_path: Path) -> None:
    small = {"segmentation": {"size": [6, 8], "counts": [13, 2, 33]}, "category_id": 9}  # pixels 13 and 14, down
    found = rows(write(tmp_path, small, {"segmentation": SQUARE, "category_id": 0}))
    mask = read_mask(found.columns["mask"][0])
    assert found.ids == ["a.json:3"]
    assert mask.labels == ["background", "cell", "dirt"]
    assert mask.values.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 2, 1, 1, 0, 0, 0],
        [0, 1, 2, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_pictures_are_named_without_painting_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path, {"segmentation": SQUARE, "category_id": 0})
    found = rows(source)
    monkeypatch.setattr(CocoMasks, "_mask", None)
    ((_, named),) = source.named()
    assert (named.columns, named.ids) == ({"image": found.columns["image"]}, found.ids)


def test_a_picture_without_regions_is_background(tmp_path: Path) -> None:
    assert not read_mask(rows(write(tmp_path)).columns["mask"][0]).values.any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_with_its_picture(tmp_path: Path, orientation: int) -> None:
    found = rows(write(tmp_path, {"segmentation": SQUARE, "category_id": 0}, orientation=orientation))
    flat = Image.fromarray(numpy.pad(numpy.ones((3, 4), numpy.uint8), ((1, 2), (1, 3))))
    if orientation >= 5:  # annotated as it is stored, which the sides tell
        exif = flat.getexif()
        exif[0x0112] = orientation
        flat.info["exif"] = exif.tobytes()
        flat = ImageOps.exif_transpose(flat)
    assert numpy.array_equal(read_mask(found.columns["mask"][0]).values, numpy.asarray(flat))


def test_regions_of_an_upright_picture_stay(tmp_path: Path) -> None:
    region = {"segmentation": [[1, 1, 4, 1, 4, 5, 1, 5]], "category_id": 0}
    found = rows(write(tmp_path, region, orientation=6, width=6, height=8))
    assert numpy.argwhere(read_mask(found.columns["mask"][0]).values).min(axis=0).tolist() == [1, 1]


def test_regions_are_those_of_pycocotools() -> None:
    theirs = pytest.importorskip("pycocotools.mask")
    from faster_coco_eval import mask as ours

    rng = numpy.random.default_rng(0)
    for _ in range(20):
        polygons = [rng.uniform(-3, 60, 2 * rng.integers(3, 9)).tolist() for _ in range(rng.integers(1, 4))]
        wanted = theirs.decode(theirs.merge(theirs.frPyObjects(polygons, 40, 50)))
        assert numpy.array_equal(ours.decode(region_of(polygons, 50, 40)), wanted)
        text = theirs.encode(numpy.asfortranarray(wanted))["counts"].decode()
        again = region_of({"size": [40, 50], "counts": text}, 50, 40)
        assert numpy.array_equal(ours.decode(again), wanted)


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        (None, "annotation 0 must have polygons of three points or more, or runs, as its segmentation"),
        ([[1, 1, 2, 2]], "annotation 0 must have polygons of three points or more"),
        ([], "annotation 0 must have polygons of three points or more"),
        ({"size": [8, 6], "counts": [48]}, "annotation 0 must have runs of the size [6, 8], got [8, 6]"),
        ({"size": [6, 8], "counts": [40]}, "annotation 0 must have runs of 48 pixels, got 40"),
    ],
)
def test_a_region_that_is_none_is_named(tmp_path: Path, segmentation: Any, why: str) -> None:
    with pytest.raises(UserError) as error:
        rows(write(tmp_path, {"segmentation": segmentation, "category_id": 0}))
    (problem,) = error.value.problems
    assert problem.key == "a.json:3"
    assert problem.what.startswith(why)


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"says that a\.jpg is 80 x 60, and it is 8 x 6"):
        rows(write(tmp_path, {"segmentation": SQUARE, "category_id": 0}, width=80, height=60))
