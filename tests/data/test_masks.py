"""Masks as files have them: indices, gray values, colors, and runs of pixels."""

import io
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from llmft.data import masks
from llmft.data.images import BadImage, open_image
from llmft.data.masks import (
    MaskFolder,
    RunsFile,
    from_text,
    images_inside,
    names_in,
    read_mask,
    summary_of,
    to_text,
    upright_size,
    write_mask,
)
from llmft.data.pipeline import source_digests
from llmft.data.source import Source, Table
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

TINY = numpy.array([[0, 1, 2], [2, 255, 0]], numpy.uint8)
ROLES = {"image": Column("image"), "mask": Column("image", target=True)}
SIDEWAYS = 6  # the EXIF orientation of a camera that was turned to the right


def saved(image: Image.Image, kind: str = "PNG", **more: Any) -> dict[str, Any]:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return {"path": None, "bytes": stream.getvalue()}


def rows(source: Source) -> Table:
    table = Table()
    for _, part in source.chunks():
        table.extend(part)
    return table


def problems(source: Source) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as error:
        rows(source)
    return [(problem.key, problem.what) for problem in error.value.problems]


def picture(file: Path, width: int = 3, height: int = 2, **more: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(file, **more)
    return file


def test_a_mask_comes_back_with_the_names_of_its_indices() -> None:
    cell = {"path": None, "bytes": write_mask(TINY, ["背景", "cell", "dirt"])}
    found = read_mask(cell)
    assert found.values.tolist() == TINY.tolist()
    assert found.labels == names_in(cell) == ["背景", "cell", "dirt"]
    assert from_text(to_text(write_mask(TINY))).tolist() == TINY.tolist()


def test_a_written_mask_has_the_colors_of_pascal_voc() -> None:
    image = Image.open(io.BytesIO(write_mask(TINY))).convert("RGB")
    assert [image.getpixel(place) for place in ((0, 0), (1, 0), (2, 0), (1, 1))] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (224, 224, 192),
    ]


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("L", TINY),
        ("P", TINY),
        ("1", [[0, 1, 1], [1, 1, 0]]),
        ("LA", TINY),
        ("I;16", TINY),
        ("RGB", numpy.stack([TINY] * 3, axis=2)),
        ("RGBA", numpy.stack([TINY] * 3, axis=2)),
    ],
)
def test_every_kind_of_image_gives_its_numbers(mode: str, wanted: Any) -> None:
    gray = Image.fromarray(TINY)
    if mode == "1":
        image = Image.fromarray(TINY > 0)
    elif mode == "P":
        image = gray.copy()
        image.putpalette([value % 256 for value in range(7, 775)])  # colors that are not the indices
    elif mode == "I;16":
        image = Image.fromarray(TINY.astype(numpy.uint16))
    else:
        image = gray.convert(mode)
        if mode.endswith("A"):
            image.putalpha(3)  # nearly clear: colors must not be laid on white
    assert numpy.array_equal(read_mask(saved(image)).values, wanted)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (saved(Image.fromarray(TINY), "JPEG"), "is a JPEG"),
        (saved(Image.fromarray(TINY.astype(numpy.float32)), "TIFF"), "mode F"),
        (saved(Image.fromarray(TINY.astype(numpy.int32) * 70_000), "TIFF"), "more than 16 bits"),
        (saved(Image.new("CMYK", (2, 2)), "TIFF"), "mode CMYK"),
        ({"path": None, "bytes": b"not an image"}, "is not an image"),
        ({"path": "/nowhere.png", "bytes": None}, "cannot be read"),
    ],
)
def test_what_cannot_be_a_mask_says_why(cell: dict[str, Any], why: str) -> None:
    with pytest.raises(BadImage, match=why):
        read_mask(cell)


def test_the_size_is_that_after_the_turn() -> None:
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    cell = saved(Image.new("RGB", (3, 2)), "JPEG", exif=exif)
    assert upright_size(cell) == (2, 3)


def test_the_size_of_a_png_is_known_without_its_pixels() -> None:
    """Pillow decodes a PNG to look for EXIF behind the pixels, where it may be."""
    plain = saved(Image.new("L", (3, 2)), "PNG")
    start = plain["bytes"].index(b"IDAT") + 4
    broken = plain["bytes"][:start] + b"?" * 8 + plain["bytes"][start + 8 :]
    assert upright_size({"path": None, "bytes": broken}) == (3, 2)
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    turned = saved(Image.new("L", (3, 2)), "PNG", exif=exif)["bytes"]
    begin = turned.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(turned[begin : begin + 4], "big")
    last = turned[turned.index(b"IEND") - 4 :]
    behind = turned[:begin] + turned[end : -len(last)] + turned[begin:end] + last
    assert upright_size({"path": None, "bytes": behind}) == (2, 3)
    assert open_image({"path": None, "bytes": behind}).size == (2, 3)


def test_a_mask_is_decoded_once_until_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(masks, "read_mask", lambda cell: decoded.append(cell) or read_mask(cell))
    file = tmp_path / "a.png"
    cell = {"path": str(file), "bytes": None}
    file.write_bytes(write_mask(TINY, ["a", "b", "c"]))
    for _ in range(2):
        assert summary_of(cell) == ((3, 2), [0, 1, 2, 255], False, False, ["a", "b", "c"])
    assert len(decoded) == 1
    file.write_bytes(saved(Image.fromarray(TINY.astype(numpy.uint16) * 257), "PNG")["bytes"])
    assert summary_of(cell) == ((3, 2), [0, 257, 514, 65535], False, True, None)
    assert len(decoded) == 2


def test_a_folder_has_images_and_masks_of_the_same_name(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.c.png"):
        picture(tmp_path / "train/images" / name)
        picture(tmp_path / "train/masks" / f"{Path(name).stem}.png")
    (tmp_path / "train/images/notes.txt").write_text("x")
    files = images_inside(tmp_path / "train", ())
    found = rows(MaskFolder(files, ["a", "b"], "utf-8", None, None))
    assert found.ids == ["images/a.jpg", "images/b.c.png"]
    assert [Path(cell["path"]).name for cell in found.columns["mask"]] == ["a.png", "b.c.png"]


def test_splits_may_be_folders_below_images_and_masks(tmp_path: Path) -> None:
    file = picture(tmp_path / "images/train/a.jpg")
    picture(tmp_path / "masks/train/a.png")
    found = rows(MaskFolder([file], ["a.jpg"], "utf-8", None, None))
    assert found.columns["mask"][0]["path"] == str(tmp_path / "masks/train/a.png")


def test_a_list_names_images_with_or_without_an_ending(tmp_path: Path) -> None:
    for name in ("2007_000032", "2007_000039"):
        picture(tmp_path / f"JPEGImages/{name}.jpg")
        picture(tmp_path / f"SegmentationClass/{name}.png")
    names = tmp_path / "ImageSets/Segmentation/train.txt"
    names.parent.mkdir(parents=True)
    names.write_text("\ufeff2007_000039\r\n\r\n2007_000032.jpg\r\n", encoding="utf-8")
    found = rows(MaskFolder([names], ["train.txt"], "utf-8", None, None))
    assert found.ids == ["JPEGImages/2007_000039.jpg", "JPEGImages/2007_000032.jpg"]


def test_masks_may_have_a_pattern(tmp_path: Path) -> None:
    file = picture(tmp_path / "images/0006R0.png")
    picture(tmp_path / "labels/0006R0_L.png")
    found = rows(MaskFolder([file], ["0006R0.png"], "utf-8", None, f"{tmp_path}/labels/{{}}_L.png"))
    assert found.columns["mask"][0]["path"] == str(tmp_path / "labels/0006R0_L.png")


def test_all_that_is_missing_is_told_by_line(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    picture(tmp_path / "masks/b.png")
    names = tmp_path / "train.txt"
    names.write_text("b\na\nc\nb.png\n")
    assert problems(MaskFolder([names], ["train.txt"], "utf-8", None, None)) == [
        ("train.txt:2", f"has no mask a in {tmp_path}/masks"),
        ("train.txt:3", f"must name an image in {tmp_path}/images, got c"),
        ("train.txt:4", "repeats b.png of line 1"),
    ]


def test_without_folders_nearby_they_must_be_named(tmp_path: Path) -> None:
    names = tmp_path / "a/b/c/train.txt"
    names.parent.mkdir(parents=True)
    names.write_text("x\n")
    found = problems(MaskFolder([names], ["train.txt"], "utf-8", None, None))
    assert found == [("train.txt", "names images, and there is no folder images or JPEGImages near it")]
    image = picture(tmp_path / "a/b/c/d/x.png")
    assert problems(MaskFolder([image], ["x.png"], "utf-8", None, None)) == [("x.png", "has no folder masks near it")]


def table(folder: Path, text: str) -> RunsFile:
    (folder / "train.csv").write_text(text)
    return RunsFile(folder / "train.csv", "train.csv", "utf-8", None, None)


def test_runs_go_down_each_column(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    found = rows(table(tmp_path, "ImageId,EncodedPixels\na,2 2\nb.png,\na,6 1\n"))
    assert found.ids == ["images/a.png", "images/b.png"]
    painted = [read_mask(cell) for cell in found.columns["mask"]]
    # Pixels 2 and 3 of an image of 3 x 2 are the lower one of the first column, and the upper one of the second.
    assert painted[0].values.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert painted[1].values.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert painted[0].labels == painted[1].labels == ["background", "foreground"]


def test_the_cache_learns_of_images_without_painting_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "images/a.png")
    table(tmp_path, "ImageId,EncodedPixels\na,2 2\n")
    config = DatasetConfig(format="runs", train=str(tmp_path / "train.csv"))
    monkeypatch.setattr(masks, "painted", None)
    before = source_digests(config, ROLES)
    assert [Path(name).name for name in before] == ["train.csv", "images"]
    picture(tmp_path / "images/a.png", 2, 3)
    assert source_digests(config, ROLES)[str(tmp_path / "images")] != before[str(tmp_path / "images")]


def test_classes_of_runs_are_ordered_as_numbers(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    found = rows(table(tmp_path, "ImageId,ClassId,EncodedPixels\na,10,1 2\na,9,2 1\na,crack,6 1\n"))
    mask = read_mask(found.columns["mask"][0])
    assert mask.labels == ["background", "9", "10", "crack"]
    assert mask.values.tolist() == [[2, 0, 0], [1, 0, 3]]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("ImageId,EncodedPixels\na,1 2 3\n", "train.csv:2", "must be runs within a.png, 3 x 2: got 3 numbers"),
        ("ImageId,EncodedPixels\na,1 7\n", "train.csv:2", "must be runs within a.png, 3 x 2: got the run 1 7 of 6"),
        ("ImageId,EncodedPixels\na,1 1\na,0 1\n", "train.csv:3", "must be runs within a.png, 3 x 2: got the run 0 1"),
        ("ImageId,EncodedPixels\na,1 -1\n", "train.csv:2", "must be runs within a.png, 3 x 2: got '-1', which is not"),
        ("ImageId,EncodedPixels\nz,1 1\n", "train.csv:2", "must name an image in"),
        ("ImageId,ClassId,EncodedPixels\na,,1 1\n", "train.csv:2", "must have a ClassId"),
        ("ImageId,pixels\na,1 1\n", "train.csv", "must have a column EncodedPixels or rle"),
    ],
)
def test_runs_that_are_wrong_are_told_by_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    picture(tmp_path / "images/a.png")
    (found,) = problems(table(tmp_path, text))
    assert found[0] == where
    assert found[1].startswith(what)


@pytest.mark.parametrize("source", ["train.txt", "folder", "all.csv"])
def test_prepared_rows_are_known_by_the_bytes_of_their_masks(tmp_path: Path, source: str) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"folder/images/{name}.png")
        picture(tmp_path / f"folder/masks/{name}.png")
    (tmp_path / "folder/train.txt").write_text("a\n")
    (tmp_path / "folder/all.csv").write_text("image,mask\nimages/a.png,masks/a.png\n")
    train = tmp_path / "folder" if source == "folder" else tmp_path / "folder" / source
    config = DatasetConfig(format="csv" if source == "all.csv" else "masks", train=str(train))
    before = source_digests(config, ROLES)
    assert source_digests(config, ROLES) == before
    picture(tmp_path / "folder/masks/a.png", 3, 2).write_bytes(write_mask(TINY))
    assert source_digests(config, ROLES) != before
