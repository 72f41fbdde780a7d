"""Reads data sets of images: a folder of image files for each class, MNIST's IDX, and the binary version of CIFAR.

An image in a file with many of them gets a header of Netpbm (P5 gray, P6 color), so that it is a file by itself.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from llmft.data.encodings import BROKEN, damaged, open_bytes
from llmft.data.source import CHUNK, START, FileGroup, Mark, Table
from llmft.schema.problem import Problem, UserError

IDX_BYTES = 8  # the type code of uint8, the third byte of an IDX file
CIFAR_SIDE = 32
CIFAR_NAMES = ("batches.meta.txt", "fine_label_names.txt")


@dataclass(frozen=True)
class ImageFolders(FileGroup):
    """Image files in one folder per class. They are opened when they are checked and encoded, not here."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is; the id of a row is the name of its file."""
        # Counted, not listed: a folder may hold thousands of thumbnails or annotations.
        folders = {file.parent.parent for file in self.files}
        inside = sum(one.is_file() and not one.name.startswith(".") for folder in folders for one in folder.rglob("*"))
        others = inside - len(self.files)
        for first in range(0, len(self.files), CHUNK):
            files = self.files[first : first + CHUNK]
            images: list[Any] = [{"path": str(file), "bytes": None} for file in files]
            table = Table({"image": images, "label": [file.parent.name for file in files]})
            table.ids += self.names[first : first + CHUNK]
            if others and not first:
                table.left_out["other files were left out: images are read from CLASS/NAME.png, .jpg, ..."] = others
            yield START, table


@dataclass(frozen=True)
class IdxFiles(FileGroup):
    """One IDX file of images, as MNIST comes, and one of their labels; either may be compressed.

    Format: http://yann.lecun.com/exdb/mnist.
    """

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is; labels are their numbers as text."""
        # Whole: MNIST's 60,000 images are 47 MB.
        arrays = {name: read_idx(file, name) for file, name in zip(self.files, self.names, strict=True)}
        # Told by their dimensions, so that the order on the command line does not matter.
        images = [name for name, array in arrays.items() if array.ndim in (3, 4)]
        labels = [name for name, array in arrays.items() if array.ndim == 1]
        if len(images) != 1 or len(labels) > 1 or len(arrays) > 2:
            what = f"must be one file of images and one of labels, got {', '.join(self.names)}"
            raise UserError(Problem(self.names[0], what, hint="Name both: dataset.train=[IMAGES,LABELS]."), "the data")
        pixels = arrays[images[0]]
        if labels and len(arrays[labels[0]]) != len(pixels):
            what = f"has {len(arrays[labels[0]]):,} labels, and {images[0]} has {len(pixels):,} images"
            raise UserError(Problem(labels[0], what), "the data")
        for first in range(0, len(pixels), CHUNK):
            part = pixels[first : first + CHUNK]
            columns: dict[str, list[Any]] = {"image": list(map(netpbm, part))}
            if labels:
                columns["label"] = list(map(str, arrays[labels[0]][first : first + CHUNK].tolist()))
            yield START, Table(columns, [f"{images[0]}:{first + row + 1}" for row in range(len(part))])


def read_idx(file: Path, name: str) -> numpy.ndarray:
    """The array of an IDX file, uint8.

    Raises:
        UserError: for a file of another kind or type, or one that ends early.
    """
    try:
        with open_bytes(file) as stream:
            data = stream.read()
    except BROKEN as error:
        raise UserError(damaged(file, name, error), "the data") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != IDX_BYTES:
        what = f"must be an IDX file of bytes, which starts with 00 00 08, got {data[:4].hex(' ') or 'an empty file'}"
        raise UserError(Problem(name, what), "the data")
    begin = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:begin]) if len(data) >= begin else ()
    # int64: four numbers of 32 bits could overflow, and a damaged header must not pass as a short file.
    expected = begin + int(numpy.prod(shape, dtype=numpy.int64))
    if len(data) != expected:
        what = f"must have {expected:,} bytes for an array of {' x '.join(map(str, shape))}, got {len(data):,}"
        raise UserError(Problem(name, what), "the data")
    return numpy.frombuffer(data, numpy.uint8, offset=begin).reshape(shape)


def netpbm(pixels: numpy.ndarray) -> dict[str, Any]:
    """Pixels, uint8 (height, width) or (height, width, 3), as the cell of an image file."""
    height, width = pixels.shape[:2]
    kind = b"P6" if pixels.ndim == 3 else b"P5"
    return {"path": None, "bytes": b"%s %d %d 255\n" % (kind, width, height) + pixels.tobytes()}


@dataclass(frozen=True)
class CifarFile:
    """A file of the binary version of CIFAR-10, or of CIFAR-100, whose fine labels are read.

    A record is the label (of CIFAR-100 the coarse one before it), then all red, green, and blue pixels of 32 x 32.
    Format: https://www.cs.toronto.edu/~kriz/cifar.html.
    """

    file: Path
    name: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. Yields all rows whatever `start` is. Names of classes are read from the file beside it."""
        data = numpy.fromfile(self.file, numpy.uint8)
        size = 3 * CIFAR_SIDE**2
        kinds = [labels for labels in (1, 2) if len(data) and len(data) % (size + labels) == 0]
        if not kinds:
            what = f"must be records of {size + 1:,} or {size + 2:,} bytes, got a file of {len(data):,}"
            raise UserError(Problem(self.name, what, hint="It may be incomplete."), "the data")
        names = next((found for name in CIFAR_NAMES if (found := self.file.with_name(name)).is_file()), None)
        # A file of 3,073 x 3,074 bytes could be both; the file of names then tells.
        labels = 2 if len(kinds) == 2 and names and names.name == CIFAR_NAMES[1] else kinds[0]
        classes = names.read_text(encoding="utf-8").split() if names else []
        records = data.reshape(-1, size + labels)
        for first in range(0, len(records), CHUNK):
            part = records[first : first + CHUNK]
            # From planes of red, green, and blue to three numbers a pixel.
            pixels = part[:, labels:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
            numbers = part[:, labels - 1].tolist()
            table = Table({"image": list(map(netpbm, pixels))})
            table.columns["label"] = [classes[n] if n < len(classes) else str(n) for n in numbers]
            table.ids += [f"{self.name}:{first + row + 1}" for row in range(len(part))]
            yield START, table
