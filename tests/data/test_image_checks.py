"""Images are looked at before training: all that is wrong comes at once, by file and reason."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from llmft.commands.prepare import prepare
from llmft.config.load import load as compose
from llmft.data.image_checks import check_images, look
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.problem import UserError
from tests.data.test_images import ALPHA, PNG, SIXTEEN, encoded, gif, loaded, too_large, turned, write

ROLES = {"image": Column("image"), "label": Column("label"), "mask": Column("image", required=False, target=True)}


def noise(seed: int, side: int = 40) -> Image.Image:
    """A picture of blotches, which is like no other."""
    small = numpy.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(numpy.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def table(*contents: bytes | None, split: str = "t") -> Table:
    cells = [None if data is None else {"path": f"{split}/{n}.png", "bytes": data} for n, data in enumerate(contents)]
    return Table({"image": cells, "label": ["a"] * len(cells)}, [f"rows.csv:{n}" for n in range(len(cells))])


BAD = {
    "empty": (b"", "is empty"),
    "not an image": (b"hello", "is not an image that can be read: it starts with b'hello'"),
    "truncated": (encoded(noise(1), "JPEG")[:-200], "is broken: "),
    "cut in its header": (PNG[:30], "is broken: it begins as an image (PNG), and its header is not whole"),
    "one pixel": (encoded([[[1, 2, 3]]]), "has 1 x 1 pixels"),
    "too large": (too_large(11_000), "has 11,000 x 11,000 pixels, more than 100,000,000"),
}


def test_all_bad_images_are_named_at_once_with_their_reasons() -> None:
    good = [encoded(noise(2)), encoded(noise(3))]
    rows = table(good[0], *(data for data, _ in list(BAD.values())[:4]), good[1])
    other = table(*(data for data, _ in list(BAD.values())[4:]), None)
    kept, problems, _ = check_images({"train": rows, "test": other}, ROLES, drop=False)
    found = [f"{problem.key} {problem.what}" for problem in problems]
    for text, (_, why), place in zip(found, BAD.values(), [1, 2, 3, 4, 0, 1], strict=False):
        assert text.startswith(f"rows.csv:{place} t/{place}.png {why}"), text
    assert found[6:] == ["rows.csv:2 has no image (test)", "dataset.drop_broken set it to true to leave such rows out"]
    assert kept["train"].ids == ["rows.csv:0", "rows.csv:5"]


def test_they_can_be_left_out() -> None:
    rows = table(encoded(noise(2)), b"", encoded(noise(3)))
    kept, problems, notes = check_images({"train": rows}, ROLES, drop=True)
    assert (problems, kept["train"].ids) == ([], ["rows.csv:0", "rows.csv:2"])
    assert notes == [
        "train: 1 row with an image that cannot be read was left out, such as rows.csv:1: t/1.png is empty (train)"
    ]


def test_a_bad_mask_is_named_too_and_an_optional_one_may_be_missing() -> None:
    rows = table(encoded(noise(2)), encoded(noise(3)))
    rows.columns["mask"] = [None, {"path": "masks/1.png", "bytes": b"?"}]
    _, problems, _ = check_images({"train": rows}, ROLES, drop=False)
    assert problems[0].key == "rows.csv:1"
    assert problems[0].what.startswith("masks/1.png is not an image that can be read")


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (turned(), "1 image was turned as their EXIF orientation says"),
        (gif(), "1 image has several frames, of which the first is read"),
        (encoded(SIXTEEN), "1 image of 16 bits was divided by 257, to 8 bits"),
        (encoded(ALPHA), "1 image with transparent parts was laid on white"),
        (
            encoded(Image.new("CMYK", (2, 2)), "JPEG"),
            "1 image in CMYK was converted to RGB, without their color profile",
        ),
    ],
    ids=["exif", "gif", "16 bits", "alpha", "cmyk"],
)
def test_what_decoding_changes_is_a_note(data: bytes, note: str) -> None:
    _, problems, notes = check_images({"train": table(data)}, ROLES, drop=False)
    assert (problems, notes) == ([], [f"train: {note}, such as rows.csv:0"])


def test_a_copy_in_another_split_is_found_whatever_it_was_saved_as() -> None:
    train = table(*(encoded(noise(n)) for n in range(20)))
    again = noise(7).resize((55, 70))
    test = table(encoded(noise(30)), encoded(again, "JPEG", quality=60), encoded(noise(31)))
    _, _, notes = check_images({"train": train, "test": test}, ROLES, drop=False)
    assert notes == [
        "1 image of test is like one of train, such as rows.csv:1 (rows.csv:7): if they are copies, metrics are too good"
    ]
    # A plain image has no differences to hash, and is like nothing.
    plain = table(*[encoded(Image.new("RGB", (9, 9), "red"))] * 2)
    assert check_images({"train": plain, "test": plain}, ROLES, drop=False)[2] == []


def test_the_hash_is_of_signs_between_neighbors() -> None:
    """Brighter to the right in every row: all 64 bits are 1. Darker: none is."""
    ramp = numpy.repeat(numpy.arange(0, 252, 28, dtype=numpy.uint8)[None], 8, axis=0)
    assert look({"path": None, "bytes": encoded(ramp)}).hash == 2**64 - 1
    assert look({"path": None, "bytes": encoded(ramp[:, ::-1])}).hash == 0


def test_training_stops_with_every_bad_file_or_goes_on_without(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"{'ab'[number % 2]}/{number}.png", encoded(noise(number)))
    write(tmp_path / "a/empty.jpg", b"")
    write(tmp_path / "b/cut.jpg", encoded(noise(1), "JPEG")[:-300])
    words = ("dataset=images", f"dataset.train={tmp_path}")
    with pytest.raises(UserError) as error:
        loaded(*words)
    text = str(error.value)
    assert "a/empty.jpg          is empty (train)" in text
    assert "b/cut.jpg            is broken: " in text
    assert "dataset.drop_broken" in text
    data, _ = loaded(*words, "dataset.drop_broken=true", "dataset.split.test=0", "dataset.split.validation=0.2")
    assert sum(map(len, data.splits.values())) == 12
    assert any("2 rows with an image that cannot be read were left out" in note for note in data.notes)


def test_the_same_file_in_two_splits_is_a_problem(tmp_path: Path) -> None:
    for number in range(4):
        for split in ("train", "val"):
            seed = number if number != 2 or split == "train" else 9
            write(tmp_path / f"{split}/{'ab'[number % 2]}/{split}{number}.png", encoded(noise(seed)))
    with pytest.raises(UserError, match=r"3 of the 4 rows of validation are also in train, such as a/val0\.png"):
        loaded(f"dataset.train={tmp_path}", "dataset.split.test=0")


def test_a_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    for number, place in enumerate(("train/a", "train/b", "val/a", "val/c")):
        for seed in range(2):
            write(tmp_path / place / f"{number}{seed}.png", encoded(noise(10 * number + seed)))

    def prepared(*words: str) -> Any:
        return prepare(
            compose("finetune", ["+recipe=image_cls", f"dataset.train={tmp_path}", "dataset.cache=false", *words])
        )

    with pytest.raises(UserError, match=r"must have a label of training \(a, b\), got 'c' in validation"):
        prepared("dataset.split.test=0")
    notes = prepared("dataset.split.test=0", "task.labels=[a,b,c]").data.notes
    assert any("no row has the label c, which task.labels declares" in note for note in notes)


def test_a_header_alone_refuses_what_is_too_large() -> None:
    """Decoding 30,000 x 30,000 pixels would take 2.7 GB; the data of this PNG are not even there."""
    head = PNG[:16] + struct.pack(">II", 30_000, 30_000) + PNG[24:29]
    found = look({"path": None, "bytes": head + struct.pack(">I", zlib.crc32(head[12:29])) + PNG[33:]})
    assert found.flaw == "has 900,000,000 pixels, more than 100,000,000"
