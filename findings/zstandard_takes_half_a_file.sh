#!/usr/bin/env bash
# The package zstandard, stream_reader(): a .zst file that was cut off is read as a shorter one, without an error.
#
# One would guess: that reading to the end of half a file raises, as gzip.open does (EOFError).
# What happens: read() returns what could be unpacked, perhaps nothing, and then b"", as at the end of a whole file.
# pyarrow's CompressedInputStream raises an OSError, "Truncated compressed stream".
# Source: https://python-zstandard.readthedocs.io/en/latest/decompressor.html (stream_reader names no such error).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zstandard==0.25.0 pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import io

import pyarrow
import zstandard

print(f"zstandard {zstandard.__version__}, pyarrow {pyarrow.__version__}")
pack = zstandard.ZstdCompressor().compress
one, two = pack(b"first\n" * 1000), pack(b"other\n" * 1000)


def read(data):
    return len(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read())


def by_pyarrow(data):
    try:
        return len(pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd").read())
    except OSError as error:
        return str(error)


found = {
    "whole": (read(one + two), by_pyarrow(one + two)),
    "cut off in its second frame": (read((one + two)[: len(one) + 5]), by_pyarrow((one + two)[: len(one) + 5])),
    "cut off in its only frame": (read(one[:-3]), by_pyarrow(one[:-3])),
}
print("characters read: by zstandard, by pyarrow")
for name, counts in found.items():
    print(f"{name:30} {counts}")
assert list(found.values()) == [
    (12000, 12000),
    (6000, "Truncated compressed stream"),
    (0, "Truncated compressed stream"),
]
PYTHON
