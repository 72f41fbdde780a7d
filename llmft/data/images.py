"""Cells that hold an image: where its bytes are, what they are, and the upright image that they decode to.

A cell is `{"path": ..., "bytes": ...}`, as `datasets.Image(decode=False)` stores it. Bytes win; `path` is then only a
name. Pillow decodes every format: its JPEG decoder gives the bytes of OpenCV's and torchvision's, and it alone gives
palettes, 1 bit, 16 bits, and EXIF as they are in the file.
"""

import base64
import binascii
import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from llmft.data.files import HEAD, kind_of_head
from llmft.schema.problem import Problem

Cell = dict[str, Any]

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 100_000_000  # 10,000 x 10,000; decoded to RGB that is 300 MB
# Trackers and placeholders: every such image is one color, and no label can depend on it.
ONE_PIXEL = "has 1 x 1 pixels"
ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
ORIENTATION = 0x0112  # the tag of EXIF; 1 is upright
OF_EXIF = (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")  # where a PNG may have it
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")
# The first bytes of JPEG, PNG, GIF, WebP, BMP, and TIFF in base64: a text of 64 characters or more that starts like
# this is an image, a shorter one a path.
BASE64 = re.compile(r"(/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-9A-Za-z]|SUkqA|TU0AK)[A-Za-z0-9+/\s]{60,}={0,2}\s*")


class BadImage(ValueError):
    """The reason why a cell does not decode, in words that follow the name of a file: `is empty`."""


def image_cell(value: Any, folder: Path) -> Cell | None:
    """A value as a cell: a path relative to `folder`, base64, a data URI, bytes, a cell, or pixels; None if neither.

    Args:
        folder: that of the file with the rows.
    """
    if isinstance(value, bytes):
        return {"path": None, "bytes": value}
    if isinstance(value, Image.Image | numpy.ndarray):  # of Python; encoded now, since its owner may change it
        stream = io.BytesIO()
        image = Image.fromarray(value) if isinstance(value, numpy.ndarray) else value
        image.save(stream, "PNG" if image.mode != "CMYK" else "TIFF")
        return {"path": None, "bytes": stream.getvalue()}
    if isinstance(value, str) and value.strip():
        if found := DATA_URI.match(value):
            return _from_base64(value[found.end() :])
        if BASE64.fullmatch(value):
            return _from_base64(value)
        return {"path": str(folder / Path(value.strip()).expanduser()), "bytes": None}
    if isinstance(value, dict) and value.keys() <= {"path", "bytes"} and any(value.values()):
        content, path = value.get("bytes"), value.get("path")
        if isinstance(content, str):
            return (_from_base64(content) or {}) | {"path": path}
        if isinstance(content, bytes | None) and isinstance(path, str | None):
            return {"path": path, "bytes": content}  # from a reader, which has found the file
    return None


def _from_base64(text: str) -> Cell | None:
    try:
        return {"path": None, "bytes": base64.b64decode("".join(text.split()), validate=True)}
    except binascii.Error:
        return None


def name_of(cell: Cell) -> str:
    """The name of an image for people: its file with the folder that it is in, or how many bytes it has."""
    if cell["path"]:
        return "/".join(Path(cell["path"]).parts[-2:])
    return f"an image of {len(cell['bytes']):,} bytes"


def problem(row: str, cell: Cell, why: str, split: str = "") -> Problem:
    """The problem of a row with an image that does not decode; it names the file where the id of the row does not."""
    name = "" if name_of(cell) in row or Path(cell["path"] or "").name == row else f"{name_of(cell)} "
    return Problem(row, f"{name}{why}{split and f' ({split})'}")


def content(cell: Cell) -> bytes:
    """The bytes of the file.

    Raises:
        BadImage: if it cannot be read, or is empty.
    """
    if cell["bytes"] is None:
        try:
            found = Path(cell["path"]).read_bytes()
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror or error}") from error
    else:
        found = cell["bytes"]
    if not found:
        raise BadImage("is empty")
    return bytes(found)


def content_digest(cell: Cell) -> str:
    """sha256 of the bytes of the file, in hex; of a file that cannot be read, of its path."""
    try:
        return hashlib.sha256(content(cell)).hexdigest()
    except BadImage:
        return hashlib.sha256(str(cell["path"]).encode()).hexdigest()


def open_image(cell: Cell) -> Image.Image:
    """The first frame of an image, turned as its EXIF orientation says, in the mode that the file has.

    Raises:
        BadImage: if it cannot be decoded as a whole, or has more than MAX_PIXELS, which its header tells.
    """
    data = content(cell)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and of odd metadata; both decode
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImage(f"has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}")
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        if (kind := kind_of_head(data[:HEAD])) and kind.format == "images":
            raise BadImage(f"is broken: it begins as {kind.what}, and its header is not whole") from error
        raise BadImage(f"is not an image that can be read: it starts with {data[:8]!r}") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, which names the number alone
        found = re.search(r"\d+", str(error))
        raise BadImage(f"has {int(found[0]) if found else 0:,} pixels, more than {MAX_PIXELS:,}") from error
    except BadImage:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadImage(f"is broken: {error}") from error


def as_array(image: Image.Image, channels: int) -> Image.Image:
    """An image in 8 bits: mode RGB for 3 channels, L for 1. 16 bits are divided by 257, and alpha lies on white.

    Raises:
        BadImage: for pixels that are not integers of at most 16 bits.
    """
    if image.mode == "F":
        raise BadImage("has floats as pixels, whose range a file does not tell: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = numpy.asarray(image).astype(numpy.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("has pixels of more than 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(numpy.uint8))
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB" if channels == 3 else "L")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image that was opened and not decoded, which stays so; 1 is upright."""
    # A PNG may have its EXIF behind the pixels, so Pillow decodes it to find out: 0.8 ms for 256 x 256 pixels.
    if image.format == "PNG" and image.fp is not None:
        place = image.fp.tell()
        image.fp.seek(0)
        data = image.fp.read()
        image.fp.seek(place)
        if not any(mark in data for mark in OF_EXIF):
            return 1
    return int(image.getexif().get(ORIENTATION, 1))


def oddities(cell: Cell) -> tuple[str, ...]:
    """What decoding changes of an image, from its header alone, each as the text of a note on several."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(content(cell)))
        found = []
        if orientation(image) != 1:
            found.append("images were turned as their EXIF orientation says")
        if image.mode.startswith("CMYK"):
            found.append("images in CMYK were converted to RGB, without their color profile")
        if image.mode.startswith("I"):
            found.append("images of 16 bits were divided by 257, to 8 bits")
        if image.mode in ALPHA_MODES or "transparency" in image.info:
            found.append("images with transparent parts were laid on white")
        if getattr(image, "n_frames", 1) > 1:
            found.append("images have several frames, of which the first is read")
    return tuple(found)
