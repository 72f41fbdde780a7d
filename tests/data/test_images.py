"""Cells of images, the readers of sets of images, and what is known of their content."""

import base64
import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy
import pyarrow.parquet
import pytest
from PIL import Image

import llmft
from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.images import BadImage, as_array, content, image_cell, open_image
from llmft.data.pipeline import load, source_digests
from llmft.schema.problem import UserError
from llmft.tasks.images import shapes


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(numpy.asarray(pixels, numpy.uint8))
    image.save(stream, kind, **options)
    return stream.getvalue()


def plain(color: tuple[int, ...] = (10, 20, 30), width: int = 12, height: int = 10) -> bytes:
    return encoded(Image.new("RGB", (width, height), color))


def write(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def loaded(*words: str) -> Any:
    """The rows of a configuration, with its task."""
    config = compose("finetune", ["+recipe=cifar_resnet", *words])
    return load(config.dataset, tasks.build(config.task)), config


PNG = plain()
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a/b.png", {"path": "/data/a/b.png", "bytes": None}),
        (" b.png ", {"path": "/data/b.png", "bytes": None}),
        ("/x/b.png", {"path": "/x/b.png", "bytes": None}),
        (PNG, {"path": None, "bytes": PNG}),
        (TEXT, {"path": None, "bytes": PNG}),
        (f"data:image/png;base64,{TEXT}", {"path": None, "bytes": PNG}),
        ({"path": "b.png", "bytes": PNG}, {"path": "b.png", "bytes": PNG}),
        ({"path": None, "bytes": TEXT}, {"path": None, "bytes": PNG}),
        ({"path": "/x/b.png", "bytes": None}, {"path": "/x/b.png", "bytes": None}),
        ("", None),
        (3, None),
        (None, None),
        ({"path": None, "bytes": None}, None),
        ({"url": "http://x"}, None),
        ("data:image/png;base64,???", None),
    ],
)
def test_a_value_is_a_path_or_an_image(value: Any, expected: Any) -> None:
    assert image_cell(value, Path("/data")) == expected


def turned() -> bytes:
    """2 wide and 1 high in the file; upright, by its EXIF orientation 6, it is 1 wide and 2 high."""
    image = Image.fromarray(numpy.array([[[255, 0, 0], [0, 0, 255]]], numpy.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, exif=exif)


def gif() -> bytes:
    frames = [Image.new("P", (2, 2), color) for color in (0, 1)]
    for frame in frames:
        frame.putpalette([9, 8, 7, 200, 200, 200])
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


SIXTEEN = Image.fromarray(numpy.array([[0, 257, 65535, 128]], numpy.uint16))
ALPHA = Image.fromarray(numpy.array([[[0, 0, 0, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], numpy.uint8))
PALETTE = Image.fromarray(numpy.array([[0, 1]], numpy.uint8), "P")
PALETTE.putpalette([1, 2, 3, 250, 251, 252])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (turned(), [[[255, 0, 0]], [[0, 0, 255]]]),
        (gif(), [[[9, 8, 7]] * 2] * 2),
        (encoded(SIXTEEN), [[[0] * 3, [1] * 3, [255] * 3, [0] * 3]]),
        # Alpha 51 of 255 is a fifth: a black pixel on white is 4/5 white.
        (encoded(ALPHA), [[[255] * 3, [10, 20, 30], [204] * 3]]),
        (encoded(PALETTE), [[[1, 2, 3], [250, 251, 252]]]),
        (encoded(Image.new("1", (1, 1), 1)), [[[255] * 3]]),
        (encoded([[7]]), [[[7] * 3]]),
        (encoded(Image.new("CMYK", (1, 1), (0, 0, 0, 255)), "TIFF"), [[[0] * 3]]),
    ],
    ids=["exif", "gif", "16 bits", "alpha", "palette", "1 bit", "gray", "cmyk"],
)
def test_every_kind_of_pixel_becomes_upright_rgb(data: bytes, expected: Any) -> None:
    found = as_array(open_image({"path": None, "bytes": data}), channels=3)
    assert numpy.asarray(found).tolist() == expected


def too_large(side: int = 30_000) -> bytes:
    """A PNG whose header says that it is so large, with the pixels of a small one."""
    head = PNG[:16] + struct.pack(">II", side, side) + PNG[24:29]
    return head + struct.pack(">I", zlib.crc32(head[12:29])) + PNG[33:]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (PNG[:40], "is broken"),
        (encoded(numpy.random.default_rng(0).integers(0, 255, (64, 64, 3)))[:6000], "is broken"),
        (encoded(numpy.zeros((64, 64, 3)), "JPEG")[:400], "is broken"),
        (b"<html>not here</html>", "is not an image that can be read: it starts with b'<html>no'"),
        (too_large(), "has 900,000,000 pixels, more than 100,000,000"),
        (too_large(11_000), "has 11,000 x 11,000 pixels, more than 100,000,000"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "has floats as pixels"),
    ],
)
def test_a_bad_image_says_why(data: bytes, why: str) -> None:
    with pytest.raises(BadImage, match=why.replace("(", r"\(")):
        as_array(open_image({"path": None, "bytes": data}), channels=3)


def test_a_missing_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        content({"path": str(tmp_path / "no.png"), "bytes": None})


def test_folders_of_classes_are_splits_where_they_are_called_so(tmp_path: Path) -> None:
    for number, place in enumerate(
        ("train/ant/1.png", "train/bee/2.JPG", "val/ant/1.png", "val/bee/2.png", "val/bee/a.txt")
    ):
        write(tmp_path / place, plain((number, 0, 0)))
    for words in ((f"dataset.train={tmp_path}",), ("dataset=images", f"dataset.train={tmp_path}")):
        data, _ = loaded(*words, "dataset.split.test=0")
        assert data["train"]["label"][:] == ["ant", "bee"]
        assert data["train"]["id"][:] == ["ant/1.png", "bee/2.JPG"] or data["train"]["id"][0] == "train/ant/1.png"
        assert data["validation"]["label"][:] == ["ant", "bee"]
        assert data["train"]["image"][0] == {"path": str(tmp_path / "train/ant/1.png"), "bytes": None}
        assert any("1 other file" in note for note in data.notes), data.notes
        assert set(data.digests) == {str(tmp_path / "train"), str(tmp_path / "val")}


def test_splits_may_take_images_of_one_folder_by_patterns(tmp_path: Path) -> None:
    """What `reproduce` and the cache compare, the digest of all files, covers those of every split."""
    for number in range(6):
        write(tmp_path / f"{'ab'[number % 2]}/{number}.png", plain((number, 0, 0)))
    data, config = loaded(
        "dataset=images",
        f"dataset.train={tmp_path}/*/[0-3].png",
        f"dataset.test={tmp_path}/*/[45].png",
        "dataset.split.validation=0",
    )
    assert (len(data["train"]), len(data["test"])) == (4, 2)
    roles = tasks.build(config.task).columns
    assert data.digests == source_digests(config.dataset, roles)
    write(tmp_path / "a/0.png", plain((99, 0, 0)))
    assert data.digests != source_digests(config.dataset, roles)


def test_paths_in_a_table_are_relative_to_it(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"pictures/{number}.png", plain((number, 0, 0)))
    lines = "".join(f"pictures/{number}.png,{'ab'[number % 2]}\n" for number in range(4))
    table = write(tmp_path / "rows.csv", f"file,kind\n{lines}".encode())
    words = (
        f"dataset.train={table}",
        "dataset.columns.image=file",
        "dataset.columns.label=kind",
        "dataset.split.validation=0",
        "dataset.split.test=0",
    )
    data, config = loaded(*words)
    assert data["train"]["image"][3]["path"] == str(tmp_path / "pictures/3.png")
    roles = tasks.build(config.task).columns
    before = source_digests(config.dataset, roles)
    assert before == data.digests
    assert set(before) == {str(table), str(tmp_path / "pictures")}
    write(tmp_path / "pictures/3.png", plain((99, 0, 0)))
    assert source_digests(config.dataset, roles) != before
    # The same pictures by class folders are the same rows.
    for number in range(4):
        write(tmp_path / f"classes/{'ab'[number % 2]}/{number}.png", (tmp_path / f"pictures/{number}.png").read_bytes())
    again, _ = loaded(*words)
    folders, _ = loaded("dataset=images", f"dataset.train={tmp_path / 'classes'}", *words[-2:])
    order = sorted(range(4), key=lambda row: again["train"]["label"][row])
    assert [again["train"]["image"][row]["path"][-5:] for row in order] == [
        cell["path"][-5:] for cell in folders["train"]["image"]
    ]


def idx(array: numpy.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(numpy.uint8).tobytes()
    )


IMAGES = numpy.arange(4 * 3 * 2).reshape(4, 3, 2)


def test_idx_is_read_compressed_or_not(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES)))
    write(tmp_path / "train-labels-idx1-ubyte", idx(numpy.array([3, 1, 3, 1])))
    data, _ = loaded(
        "dataset=idx",
        f"dataset.path={tmp_path}",
        "dataset.test=null",
        "dataset.split.validation=0",
        "dataset.split.test=0",
    )
    assert data["train"]["label"][:] == ["3", "1", "3", "1"]
    assert numpy.asarray(open_image(data["train"]["image"][2])).tolist() == IMAGES[2].tolist()
    assert data["train"]["id"][3] == "train-images-idx3-ubyte.gz:4"


@pytest.mark.parametrize(
    ("images", "labels", "why"),
    [
        (idx(IMAGES)[:-1], idx(numpy.zeros(4)), "must have 40 bytes for an array of 4 x 3 x 2, got 39"),
        (idx(IMAGES), idx(numpy.zeros(5)), "has 5 labels, and train-images-ubyte has 4 images"),
        (b"\0\0\x0d\1" + bytes(8), idx(numpy.zeros(4)), "must be an IDX file of bytes, which starts with 00 00 08, got 00 00 0d 01"),
        (b"", idx(numpy.zeros(4)), "got an empty file"),
        (idx(numpy.zeros(4)), idx(numpy.zeros(4)), "must be one file of images and one of labels"),
    ],
)  # fmt: skip
def test_a_bad_idx_says_why(images: bytes, labels: bytes, why: str, tmp_path: Path) -> None:
    write(tmp_path / "train-images-ubyte", images)
    write(tmp_path / "train-labels-ubyte", labels)
    with pytest.raises(UserError) as error:
        loaded("dataset=idx", f"dataset.path={tmp_path}", "dataset.test=null")
    assert why in str(error.value)


@pytest.mark.parametrize("labels", [1, 2])
def test_the_binary_cifar_is_read_with_its_names(labels: int, tmp_path: Path) -> None:
    pixels = numpy.arange(4 * 3072).reshape(4, 3, 32, 32) % 251
    numbers = numpy.array([[9, 0], [9, 1], [9, 0], [9, 1]])[:, 2 - labels :]
    records = numpy.concatenate([numbers, pixels.reshape(4, -1)], axis=1).astype(numpy.uint8)
    write(tmp_path / "data_batch_1.bin", records.tobytes())
    write(tmp_path / ("batches.meta.txt" if labels == 1 else "fine_label_names.txt"), b"cat\ndog\n")
    data, _ = loaded(
        "dataset=cifar",
        f"dataset.path={tmp_path}",
        "dataset.test=null",
        "dataset.split.validation=0",
        "dataset.split.test=0",
    )
    assert data["train"]["label"][:] == ["cat", "dog", "cat", "dog"]
    found = numpy.asarray(open_image(data["train"]["image"][1]))
    assert found[5, 7].tolist() == pixels[1, :, 5, 7].tolist()


def test_cifar_as_pickles_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data_batch_1.bin", b"\x80\x03}q\x00")
    with pytest.raises(UserError, match="is a pickle, which can hold code") as error:
        loaded("dataset=cifar", f"dataset.path={tmp_path}", "dataset.test=null")
    assert "the binary version" in str(error.value)
    write(tmp_path / "data_batch_1.bin", bytes(3070))
    with pytest.raises(UserError, match="must be records of 3,073 or 3,074 bytes, got a file of 3,070"):
        loaded("dataset=cifar", f"dataset.path={tmp_path}", "dataset.test=null")


def test_parquet_with_images_as_datasets_writes_it(tmp_path: Path) -> None:
    rows = {"image": [{"path": None, "bytes": plain((n, 0, 0))} for n in range(4)], "label": [0, 1, 0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(tmp_path / "rows.parquet")
    made.save_to_disk(tmp_path / "saved")
    for place in ("rows.parquet", "saved"):
        data, _ = loaded(f"dataset.train={tmp_path / place}", "dataset.split.validation=0", "dataset.split.test=0")
        assert data["train"]["label"][:] == ["ant", "bee"] * 2
        assert data["train"]["image"][3]["bytes"] == plain((3, 0, 0))


@pytest.mark.parametrize("name", ["scenes", "shapes"])
def test_the_samples_are_what_the_code_draws(name: str) -> None:
    """By pixels, since versions of zlib compress alike pixels to other bytes."""
    folder = Path(llmft.__file__).parent / "samples" / name
    for seed, split in enumerate(("train", "validation", "test"), 1):
        kept = pyarrow.parquet.read_table(folder / f"{split}.parquet").to_pydict()
        rows = len(kept["image"])
        drawn = (
            shapes.scenes(rows, seed)
            if name == "scenes"
            else shapes.classified(rows, seed, kinds=shapes.KINDS, telling=False)
        )
        assert kept.keys() == drawn.keys()
        for column, cells in drawn.items():
            if column in ("image", "mask"):
                pairs = zip(map(open_image, kept[column]), map(open_image, cells), strict=True)
                assert all(one.mode == other.mode and one.tobytes() == other.tobytes() for one, other in pairs)
            else:
                assert kept[column] == cells
