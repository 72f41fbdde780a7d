"""Packed files, read as what they hold: .gz, .zst, and a .zip of one file."""

import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from llmft.schema.problem import Problem, UserError

PACKED = (".gz", ".zst", ".zip")
BROKEN = (gzip.BadGzipFile, EOFError, zlib.error, zipfile.BadZipFile)
"""What reading a damaged packed file raises."""

# deflate packs at most 1,032 to 1. Tables and texts come to 3 to 50, log files to 100.
RATIO, FREE = 200, 1 << 30


def inner_name(file: Path) -> str:
    """The name of what a file holds: `a.csv` for a.csv.gz, for a .zip that of its one file, else its own.

    Raises:
        UserError: for a .zip that holds several files, none, or one that can't be unpacked.
    """
    ending = file.suffix.lower()
    if ending == ".zip" and file.is_file():
        with _zip(file) as archive:
            return Path(_member(archive, file).filename).name
    return file.stem if ending in PACKED else file.name


def open_bytes(file: Path) -> BinaryIO:
    """The bytes of a file, unpacked. The stream can `tell` and `seek`.

    Raises:
        UserError: for a .zip that holds several files, none, or one that can't be unpacked.
    """
    ending = file.suffix.lower()
    if ending == ".gz":
        return cast("BinaryIO", gzip.open(file))
    if ending == ".zst":
        return io.BufferedReader(_Zst(file))
    if ending == ".zip":
        archive = _zip(file)  # closed with the stream: zipfile counts who reads
        try:
            stream = archive.open(_member(archive, file))
            stream.name = str(file)  # type: ignore[misc]  # by which messages find it, as that of any other file
            return cast("BinaryIO", stream)
        finally:
            archive.close()
    return file.open("rb")


def broken(file: Path, name: str, error: BaseException) -> Problem:
    """What is wrong with a packed file that can't be read to its end."""
    kind = {".gz": "gzip", ".zst": "Zstandard"}.get(file.suffix.lower(), "zip")
    return Problem(name, f"is no whole {kind} file: {error}")


def _zip(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(Problem(file.name, f"is no whole zip file: {error}"), "the data") from error


def _member(archive: zipfile.ZipFile, file: Path) -> zipfile.ZipInfo:
    """The one file in an archive; folders and what macOS adds are none."""
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
        what = f"is packed by method {info.compress_type} of zip, which Python can't unpack"
        raise UserError(Problem(file.name, what, hint="Unpack it first."), "the data")
    return info


def bomb(file: Path, size: int, packed: int) -> None:
    """Raise UserError for what would unpack to a size that no data have. zipfile reads no more than the stated size."""
    if size > FREE and size > RATIO * packed:
        what = f"unpacks to {size / 1e9:,.1f} GB, {size // max(packed, 1):,} times its size, as no data do"
        raise UserError(Problem(file.name, what, hint="If it is right, unpack it first."), "the data")


class _Zst(io.RawIOBase):
    """A .zst file, by pyarrow: the package zstandard takes half a file for a whole one.

    Seeking reads on to the place, from the beginning where that lies before.
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
