"""From the bytes of a file, compressed or not, to its text.

Compressed files (.gz, .zst, and .zip with one file) are read as their content. If bytes are not in the configured
encoding, the error names the encoding that they may be in.
"""

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from llmft.schema.problem import Problem, UserError

PACKED = (".gz", ".zst", ".zip")
BROKEN = (gzip.BadGzipFile, EOFError, zlib.error, zipfile.BadZipFile)
"""The exceptions of reading a damaged compressed file."""

# The limits of `bomb`: a ratio, and the bytes below which it does not apply. deflate reaches at most 1,032 to 1; tables
# and texts reach 3 to 50, log files 100.
RATIO, FREE = 200, 1 << 30

# The longer ones first: the mark of UTF-32 starts with that of UTF-16.
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SAMPLE = 1 << 20  # bytes from which an encoding is guessed


def inner_name(file: Path) -> str:
    """The name of a file's content: `a.csv` for a.csv.gz, the one file in a .zip, else the file's own name.

    Raises:
        UserError: for a .zip with several files, none, or one that cannot be decompressed.
    """
    ending = file.suffix.lower()
    if ending == ".zip" and file.is_file():
        with _zip(file) as archive:
            return Path(_member(archive, file).filename).name
    return file.stem if ending in PACKED else file.name


def open_bytes(file: Path) -> BinaryIO:
    """The decompressed bytes of a file, as a stream with `tell` and `seek`.

    Raises:
        UserError: for a .zip with several files, none, or one that cannot be decompressed.
    """
    ending = file.suffix.lower()
    if ending == ".gz":
        return cast("BinaryIO", gzip.open(file))
    if ending == ".zst":
        return io.BufferedReader(_Zst(file))
    if ending == ".zip":
        archive = _zip(file)  # stays open until the stream is closed: zipfile counts its readers
        try:
            stream = archive.open(_member(archive, file))
            stream.name = str(file)  # type: ignore[misc]  # the path, as for any other file; `lines_of` needs it
            return cast("BinaryIO", stream)
        finally:
            archive.close()
    return file.open("rb")


def damaged(file: Path, name: str, error: BaseException) -> Problem:
    """The problem of a compressed file that cannot be read to its end."""
    kind = {".gz": "gzip", ".zst": "Zstandard"}.get(file.suffix.lower(), "zip")
    return Problem(name, f"is not a complete {kind} file: {error}")


def _zip(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(Problem(file.name, f"is not a complete zip file: {error}"), "the data") from error


def _member(archive: zipfile.ZipFile, file: Path) -> zipfile.ZipInfo:
    """The one file in an archive, without folders and what macOS adds."""
    found = [
        info
        for info in archive.infolist()
        if not info.is_dir()
        and not info.filename.startswith("__MACOSX/")
        and not Path(info.filename).name.startswith(".")
    ]
    if len(found) != 1:
        names = ", ".join(info.filename for info in found[:5]) + (", ..." if len(found) > 5 else "")
        what = f"holds {len(found)} files: {names}" if found else "holds no file"
        raise UserError(Problem(file.name, what, hint="Unpack it, and name the files that you want."), "the data")
    info = found[0]
    if info.flag_bits & 1:
        raise UserError(Problem(file.name, "is locked by a password", hint="Unpack it first."), "the data")
    bomb(file, info.file_size, info.compress_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        what = f"is packed by method {info.compress_type} of zip, which Python cannot unpack"
        raise UserError(Problem(file.name, what, hint="Unpack it first."), "the data")
    return info


def bomb(file: Path, size: int, packed: int) -> None:
    """Raise UserError for a zip bomb: a ratio that no real data have. zipfile never reads more than the stated size."""
    if size > FREE and size > RATIO * packed:
        what = f"unpacks to {size / 1e9:,.1f} GB, {size // max(packed, 1):,} times its size, as no data do"
        raise UserError(Problem(file.name, what, hint="If it is right, unpack it first."), "the data")


class _Zst(io.RawIOBase):
    """A .zst file, by pyarrow: the package zstandard does not notice a truncated file.

    Seeking forward reads up to the position; seeking backward starts again from the beginning.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.name = str(file)
        self._begin()

    def _begin(self) -> None:
        import pyarrow

        self.stream = pyarrow.CompressedInputStream(pyarrow.OSFile(self.name), "zstd")
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a .zst file is not known")
        wanted = offset + (self.place if whence == io.SEEK_CUR else 0)
        if wanted < self.place:
            self.stream.close()
            self._begin()
        while self.place < wanted and self.read(min(wanted - self.place, io.DEFAULT_BUFFER_SIZE)):
            pass
        return self.place

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        try:
            found = self.stream.read(len(buffer))
        except OSError as error:
            raise EOFError(str(error)) from error
        buffer[: len(found)] = found
        self.place += len(found)
        return len(found)

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
        super().close()


@contextmanager
def open_text(file: Path, name: str, encoding: str, position: int = 0) -> Iterator[TextIO]:
    """A text file, compressed or not, from a `position` that its `tell` returned.

    Lines end only at `\\n`, as wc, git, and editors count, and no character is changed: rows may have character offsets
    into their text, and aligned files must have the same lines.

    Raises:
        UserError: naming the first line that is not in `encoding`, and the encoding that it may be in.
    """
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        with io.TextIOWrapper(open_bytes(file), codec, newline="\n") as text:
            text.seek(position)
            yield text
    except UnicodeError as error:
        raise UserError(_undecodable(file, name, encoding), "the data") from error
    except BROKEN as error:
        raise UserError(damaged(file, name, error), "the data") from error


def lines_of(stream: TextIO, name: str, first: int) -> Iterator[str]:
    """The lines from the stream's position, which is line `first`. Unlike iterating the stream, this allows `tell`.

    Raises:
        UserError: for a NUL character, and for a file whose lines end at `\\r` only, as on old Macs.
    """
    for number, line in enumerate(iter(stream.readline, ""), first):
        if "\0" in line:
            raise UserError(nul_problem(Path(stream.name), f"{name}:{number}"), "the data")
        if number == 1:
            line = line.removeprefix("\ufeff")
            if "\r" in line.rstrip() and not line.endswith("\n"):
                hint = r"Save it with other line ends: tr '\r' '\n' < OLD > NEW"
                raise UserError(
                    Problem(name, r"has no line that ends at \n or \r\n, only at \r", hint=hint), "the data"
                )
        yield line


def strip_line_end(line: str) -> str:
    """A line without its `\\n` or `\\r\\n`."""
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def nul_problem(file: Path, place: str) -> Problem:
    """The problem of a text with a NUL character, which is most often UTF-16 without a byte order mark."""
    with open_bytes(file) as stream:
        guess = _marked(stream.read(4)) or "utf-16"
    return Problem(place, "holds NUL characters", hint=f"Is it {guess}? Set dataset.encoding={guess}.")


def _undecodable(file: Path, name: str, encoding: str) -> Problem:
    """The problem of the first line that is not in `encoding`."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_bytes(file) as stream:
        start = stream.read(4)
        stream.seek(0)
        number, line, which = 0, b"", ""
        for number, line in enumerate(stream, 1):  # noqa: B007
            try:
                decoder.decode(line)
            except UnicodeDecodeError as error:
                which = f" (byte {error.start + 1} of the line is 0x{error.object[error.start]:02X})"
                break
            except UnicodeError:
                break
        guess = _guess(line + stream.read(SAMPLE), start)
    hint = (
        f"It looks like {guess}: set dataset.encoding={guess}." if guess else "Set dataset.encoding to the file's own."
    )
    return Problem(f"{name}:{number}", f"is not {encoding}{which}", hint=hint)


def _marked(start: bytes) -> str:
    """The encoding of the byte order mark at the start of a file; empty without one."""
    return next((name for bom, name in BOMS.items() if start.startswith(bom)), "")


def is_utf8(file: Path) -> bool:
    """Whether the first megabyte of a file is UTF-8."""
    with open_bytes(file) as stream:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(stream.read(SAMPLE))
        except UnicodeDecodeError:
            return False
    return True


# Surrogates, which no decoder returns, in place of bytes that cannot be decoded; each means a guessed encoding.
MARKS = {"": "\udcff", "gb18030": "\udcfe", "cp1252": "\udcfd", "utf-16": "\udcfc", "utf-32": "\udcfb"}


class Marking:
    """An error handler for `codecs.register_error`: puts a mark for what cannot be decoded, and continues."""

    def __init__(self) -> None:
        self.guess = ""

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        """The mark, and the position to continue from."""
        assert isinstance(error, UnicodeDecodeError)
        if not self.guess:
            first, last = error.object.rfind(b"\n", 0, error.start) + 1, error.object.find(b"\n", error.start)
            self.guess = _guess(error.object[first : None if last < 0 else last], error.object[:4])
        return MARKS[self.guess], error.end


def decoding_fault(line: str, encoding: str) -> str:
    """What is wrong with a line that has marks; empty for one without."""
    for guess, mark in MARKS.items():
        if mark in line:
            return f"is not {encoding}" + (f"; it looks like {guess}: write dataset.encoding={guess}" if guess else "")
    return ""


def _guess(data: bytes, start: bytes) -> str:
    """The encoding that `data` may be in, of a file that starts with `start`; empty if none is likely."""
    if marked := _marked(start):
        return marked
    for name in ("gb18030", "cp1252"):
        try:
            text = codecs.getincrementaldecoder(name)().decode(data)  # the last character may be cut off
        except UnicodeDecodeError:
            continue
        # Most bytes decode as gb18030. Real Chinese is mostly common characters and punctuation, 70% here; the accents
        # of cp1252 text decode to rare characters.
        letters = [char for char in text if ord(char) > 127]
        common = sum("一" <= char <= "鿿" or char in "，。！？、：；“”‘’（）《》" for char in letters)
        if name == "cp1252" or common > 0.7 * len(letters):
            return name
    return ""
