"""Boxes of objects in pictures: COCO, Pascal VOC, YOLO, and tables."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image, ImageOps

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.annotated_images import turned
from llmft.data.pipeline import load, source_digests
from llmft.data.read import chunks, files_of
from llmft.data.source import Table
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[[str, str], Path]


def picture(file: Path, width: int = 40, height: int = 30, orientation: int = 0) -> None:
    """Write a picture, with an EXIF orientation if it is given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(file, exif=exif)


def read(source: str, **keys: Any) -> Table:
    """All rows of a split."""
    config = DatasetConfig(**keys)
    table = Table()
    for _, _, chunk in chunks(config, files_of(config, "train", source)):
        table.extend(chunk)
    return table


def problems(source: str, **keys: Any) -> str:
    """What reading complains about, a line each."""
    with pytest.raises(UserError) as caught:
        read(source, **keys)
    return "\n".join(f"{one.key}: {one.what} {one.hint}" for one in caught.value.problems)


def coco(file: Path, **changes: Any) -> None:
    """Two pictures: a cat and a crowd of dogs in the first, nothing in the second."""
    tree: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 0, "file_name": "b.jpg", "width": 40, "height": 30},
        ],
        # Ids from 0, and without `area` and `iscrowd`, as many tools write them.
        "annotations": [
            {"id": 0, "image_id": 7, "category_id": 0, "bbox": [1, 2, 10, 20]},
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0.5, 0, 30, 30], "iscrowd": 1, "area": 700},
        ],
        "categories": [{"id": 0, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    for name in ("a.jpg", "b.jpg"):
        picture(file.parent / name)
    file.write_text(json.dumps(tree | changes))


def test_coco(here: Path) -> None:
    coco(here / "train.json")
    table = read("train.json", format="coco")
    assert table.ids == ["train.json:7", "train.json:0"]
    assert [Path(cell["path"]).name for cell in table.columns["image"]] == ["a.jpg", "b.jpg"]
    cat = {"box": [1, 2, 10, 20], "label": "cat", "crowd": False}
    dogs = {"box": [0.5, 0, 30, 30], "label": "dog", "crowd": True, "area": 700}
    assert table.columns["boxes"] == [[cat, dogs], []]


def test_coco_of_an_empty_list_of_annotations_has_pictures_without_boxes(here: Path) -> None:
    coco(here / "train.json", annotations=[])
    assert read("train.json", format="coco").columns["boxes"] == [[], []]


def test_coco_box_of_a_polygon(here: Path) -> None:
    polygon = {"id": 1, "image_id": 7, "category_id": 0, "segmentation": [[5, 5, 9, 5, 9, 12], [2, 6, 3, 8, 2, 9]]}
    coco(here / "train.json", annotations=[polygon])
    assert read("train.json", format="coco").columns["boxes"][0][0]["box"] == [2, 5, 7, 7]


ANNOTATION = {"id": 1, "image_id": 7, "category_id": 0, "bbox": [1, 2, 3, 4]}
WRONG = {
    "two images have the id 7": {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}]},
    "names the image 'c.jpg', which is not there": {"images": [{"id": 7, "file_name": "c.jpg"}]},
    "annotations[0]: is of image_id=8, and no image has that id": {"annotations": [ANNOTATION | {"image_id": 8}]},
    "annotations[0]: has category_id=1, and the categories are 0 (cat), 3 (dog)": {
        "annotations": [ANNOTATION | {"category_id": 1}]
    },
    "must have a bbox of x, y, width, and height, got [1, 2, 3]": {"annotations": [ANNOTATION | {"bbox": [1, 2, 3]}]},
    "two categories are called cat": {"categories": [{"id": 0, "name": "cat"}, {"id": 3, "name": "cat"}]},
    "two categories have the id 0": {"categories": [{"id": 0, "name": "cat"}, {"id": 0, "name": "dog"}]},
    "categories is not one": {"categories": None},
    "says that a.jpg is 30 x 40, and it is 40 x 30": {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 30, "height": 40}]
    },
}


@pytest.mark.parametrize("what", WRONG)
def test_coco_says_what_is_wrong(what: str, here: Path) -> None:
    coco(here / "train.json", **WRONG[what])
    found = problems("train.json", format="coco")
    assert what in found
    assert "train.json" in found


@pytest.mark.parametrize(("part", "key", "what"), [
    ("images", "id", "images[0]: must have a number or a text as id, got [1]"),
    ("annotations", "image_id", "annotations[0]: is of image_id=[1], and no image has that id"),
    ("annotations", "category_id", "annotations[0]: has category_id=[1], and the categories are 0 (cat), 3 (dog)"),
    ("categories", "id", "has a category without id or name: {'id': [1]"),
])  # fmt: skip
def test_ids_of_coco_that_are_lists_are_named(part: str, key: str, what: str, here: Path) -> None:
    coco(here / "train.json")
    tree = json.loads((here / "train.json").read_text())
    tree[part][0][key] = [1]
    (here / "train.json").write_text(json.dumps(tree))
    assert what in problems("train.json", format="coco")


def test_images_without_folders_of_classes_are_explained(here: Path) -> None:
    picture(here / "flat" / "a.png")
    assert "files that lie directly in it are not read" in problems("flat", format="images")


def test_annotations_whose_ids_repeat_are_all_read_and_counted(here: Path) -> None:
    coco(here / "train.json", annotations=[ANNOTATION, ANNOTATION | {"bbox": [0, 0, 5, 5]}])
    table = read("train.json", format="coco")
    assert len(table.columns["boxes"][0]) == 2
    assert dict(table.left_out) == {"annotations have the id of another one; all are read": 1}


@pytest.mark.parametrize("folder", ["images", "JPEGImages", "train2017", "elsewhere"])
def test_pictures_are_found_near_the_annotations(folder: str, here: Path) -> None:
    coco(here / "annotations/instances_train2017.json")
    (here / folder).mkdir()
    for name in ("a.jpg", "b.jpg"):
        (here / "annotations" / name).rename(here / folder / name)
    source = "annotations/instances_train2017.json"
    if folder == "elsewhere":
        assert "dataset.images=FOLDER" in problems(source, format="coco")
        assert len(read(source, format="coco", images="elsewhere")) == 2
        assert "no such folder: nowhere" in problems(source, format="coco", images="nowhere")
    else:
        assert len(read(source, format="coco")) == 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(orientation: int, here: Path) -> None:
    """Pillow turns a picture with one bright rectangle; the box must be around it."""
    pixels = numpy.zeros((30, 40), numpy.uint8)
    pixels[2:7, 10:31] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(here / "a.png", exif=exif)
    upright = numpy.asarray(ImageOps.exif_transpose(Image.open(here / "a.png")))
    down, across = numpy.nonzero(upright)
    around = [across.min(), down.min(), across.max() - across.min() + 1, down.max() - down.min() + 1]
    assert turned([10, 2, 21, 5], (40, 30), orientation) == around


def test_boxes_of_a_picture_that_exif_turns_may_be_of_either_side(here: Path) -> None:
    coco(here / "train.json")
    picture(here / "a.jpg", orientation=6)  # stored 40 x 30, as the file says; upright 30 x 40
    assert read("train.json", format="coco").columns["boxes"][0][0]["box"] == [8, 1, 20, 10]
    tree = json.loads((here / "train.json").read_text())
    tree["images"][0] |= {"width": 30, "height": 40}
    (here / "train.json").write_text(json.dumps(tree))
    assert read("train.json", format="coco").columns["boxes"][0][0]["box"] == [1, 2, 10, 20]


OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>
<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def voc(folder: Path, name: str, *objects: str, size: tuple[int, int] = (40, 30)) -> None:
    """A picture and its annotation in VOC's folders."""
    picture(folder / f"JPEGImages/{name}.jpg")
    (folder / "Annotations").mkdir(exist_ok=True)
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    text = f"<annotation><filename>{name}.jpg</filename>{sides}{''.join(objects)}</annotation>"
    (folder / f"Annotations/{name}.xml").write_text(text)


def test_voc_counts_from_1_and_its_far_side_is_inclusive(here: Path) -> None:
    whole = OBJECT.format(name="cat", difficult=0, box=(1, 1, 40, 30))
    hard = OBJECT.format(name="dog", difficult=1, box=(0, 5, 10, 6))  # 0: a tool that counts from 0
    voc(here / "VOC", "a", whole, hard)
    voc(here / "VOC", "b")
    voc(here / "VOC", "c", whole)
    (here / "VOC/ImageSets/Main").mkdir(parents=True)
    (here / "VOC/ImageSets/Main/train.txt").write_text("a\nb  -1\n")
    table = read("VOC/ImageSets/Main/train.txt", format="voc")
    assert table.ids == ["a.xml:1", "b.xml:1"]
    assert table.columns["boxes"] == [
        [
            {"box": [0, 0, 40, 30], "label": "cat", "crowd": False},
            {"box": [0, 4, 10, 2], "label": "dog", "crowd": True},
        ],
        [],
    ]
    assert dict(table.left_out) == {"objects marked difficult neither train nor count in scores": 1}
    assert (
        read("VOC", format="voc").ids == read("VOC/Annotations", format="voc").ids == ["a.xml:1", "b.xml:1", "c.xml:1"]
    )


def test_voc_says_what_is_wrong(here: Path) -> None:
    box = OBJECT.format(name="cat", difficult=0, box=("a", 1, 2, 3))
    voc(here, "a", box)
    voc(here, "b")
    (here / "JPEGImages/b.jpg").unlink()
    voc(here, "c", size=(99, 30))
    voc(here, "d")
    (here / "Annotations/d.xml").write_text("")
    found = problems(".", format="voc")
    assert "a.xml: must have xmin, ymin, xmax, and ymax of 'cat', got ['a', '1', '2', '3']" in found
    assert "b.xml: is of the image 'b.jpg', which is not there" in found
    assert "c.xml:1: says that c.jpg is 99 x 30, and it is 40 x 30" in found
    assert "d.xml: is not XML" in found
    (here / "list.txt").write_text("a\nz\n")
    assert "list.txt lists z, and there is no" in problems("list.txt", format="voc")


def test_yolo(here: Path) -> None:
    for name in ("a", "b", "c"):
        picture(here / f"images/train/{name}.jpg")
    (here / "labels/train").mkdir(parents=True)
    # Half of the picture, past the border by a rounding; a triangle.
    (here / "labels/train/a.txt").write_text("1 0.250001 0.5 0.500003 1\n0 0.1 0.1 0.5 0.1 0.3 0.6\n")
    (here / "labels/train/b.txt").write_text("")
    (here / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    table = read("images/train", format="yolo")
    dog, cat = table.columns["boxes"][0]
    assert dog == {"box": pytest.approx([0, 0, 20.0001, 30]), "label": "dog", "crowd": False}
    assert cat == {"box": pytest.approx([4, 3, 16, 15]), "label": "cat", "crowd": False}
    assert table.columns["boxes"][1:] == [[], []]
    # What the boxes are read from decides the cache's entry, too.
    config = DatasetConfig(format="yolo", train="images/train")
    before = source_digests(config)
    (here / "labels/train/b.txt").write_text("0 0.5 0.5 0.5 0.5")
    assert source_digests(config) != before


@pytest.mark.parametrize("names", ["data.yaml", "classes.txt", ""])
def test_yolo_names(names: str, here: Path) -> None:
    picture(here / "a.jpg")
    (here / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    if names:
        (here / names).write_text("names: [cat, dog]\n" if names == "data.yaml" else "cat\ndog\n")
    table = read("a.jpg", format="yolo")
    assert table.columns["boxes"][0][0]["label"] == ("dog" if names else "1")
    assert bool(table.left_out) == (not names)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("2 0.5 0.5 0.5 0.5", "a.txt:1: has class 2, and there are 2, counted from 0"),
        ("0 0.5 0.5 0.5", "a.txt:1: must be `class x y width height`, got '0 0.5 0.5 0.5'"),
        ("cat 0.5 0.5 0.5 0.5", "a.txt:1: must be `class x y width height`"),
        ("0 20 15 10 10", "a.txt:1: must have shares of the image, from 0 to 1, got 20"),
    ],
)
def test_yolo_says_what_is_wrong(line: str, what: str, here: Path) -> None:
    picture(here / "a.jpg")
    (here / "classes.txt").write_text("cat\ndog\n")
    (here / "a.txt").write_text(line)
    assert what in problems("a.jpg", format="yolo")


TABLES = {
    "corners": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,30,cat,1,2,11,22\nb.jpg,40,30,,,,,\n",
    "sides": "image,label,x,y,width,height\na.jpg,cat,1,2,10,20\nb.jpg,,,,,\n",
    "other names": "image_path;x1;y1;w;h;label\na.jpg;1;2;10;20;cat\nb.jpg;;;;;\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_of_boxes(text: str, here: Path, write: Write) -> None:
    picture(here / "a.jpg")
    picture(here / "b.jpg")
    table = read(str(write("boxes.csv", text)), format="boxes")
    assert table.columns["boxes"] == [[{"box": [1, 2, 10, 20], "label": "cat", "crowd": False}], []]
    assert table.ids == ["boxes.csv:2", "boxes.csv:3"]


def test_a_table_of_boxes_without_a_header(here: Path, write: Write) -> None:
    picture(here / "a.jpg")
    file = write("boxes.csv", "a.jpg,1,2,11,22,cat\na.jpg,0,0,4,4,dog\n")
    header = ["image", "x1", "y1", "x2", "y2", "label"]
    boxes = read(str(file), format="boxes", header=header).columns["boxes"]
    assert [[box["label"] for box in row] for row in boxes] == [["cat", "dog"]]


def test_a_table_of_boxes_says_what_is_wrong(here: Path, write: Write) -> None:
    picture(here / "a.jpg")
    file = write("boxes.csv", "image,label,x,y,w,h\na.jpg,cat,1,2,x,20\na.jpg,,1,2,3,4\nb.jpg,cat,1,2,3,4\n")
    found = problems(str(file), format="boxes")
    assert "boxes.csv:2: must have four numbers, got 1, 2, x, 20" in found
    assert "boxes.csv:3: has a box without a class" in found
    assert "names the image 'b.jpg', which is not there" in found
    file = write("boxes.csv", "image,label,x,y\na.jpg,cat,1,2\n")
    assert "has no column for width, height; it has image, label, x, y" in problems(str(file), format="boxes")


def test_a_file_of_coco_read_as_json_says_what_it_is(here: Path) -> None:
    coco(here / "train.json")
    assert "write dataset=coco for boxes" in problems("train.json", format="json")


def test_rows_with_boxes_are_read_from_json_lines(write: Write) -> None:
    row = {"image": "a.jpg", "boxes": [{"box": [1, 2, 3, 4], "label": "cat"}]}
    file = write("rows.jsonl", json.dumps(row) + "\n")
    assert read(str(file), format="json").columns["boxes"] == [row["boxes"]]


@pytest.mark.parametrize("option", ["voc", "yolo"])
def test_a_folder_is_read_as_the_option_says(option: str, here: Path) -> None:
    """Although its pictures lie in folders, as those of classes do."""
    pytest.importorskip("timm")
    voc(here / "data", "a")
    config = compose("finetune", ["+recipe=detection", f"dataset={option}", "dataset.train=data"])
    assert config.dataset.format == option
    assert config.dataset.train == "data"


def test_an_image_of_two_splits_is_a_row_of_both_that_may_be_allowed(here: Path) -> None:
    """As in folders by class: by its content, whatever its name and its boxes are."""
    for number, name in enumerate(("train/a", "train/b", "test/a")):
        picture(here / f"{name}.jpg", width=40 + number % 2)
        (here / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n" * (number + 1))
    words = [
        "+recipe=detection",
        "dataset=yolo",
        "dataset.train=train",
        "dataset.test=test",
        "dataset.split.validation=0",
    ]
    config = compose("finetune", words)
    with pytest.raises(UserError, match=r"1 of the 1 rows of test is also in train.*dataset\.max_overlap=1 allows"):
        load(config.dataset, tasks.build(config.task))
    config = compose("finetune", [*words, "dataset.max_overlap=1"])
    assert len(load(config.dataset, tasks.build(config.task))["test"]) == 1
