#!/usr/bin/env bash
# One would guess: `Image.open(file).getexif()` reads headers, so the size and orientation of many images are found
# without decoding them, as for a JPEG.
# What happens: of a PNG without EXIF it decodes all pixels. For an image of 2,000 x 2,000 pixels the call takes more
# than ten times as long as for a JPEG, and a PNG whose pixels are damaged raises, though its header is whole.
# Source: PngImageFile.getexif calls `self.load()` if no EXIF was found yet, since the chunk eXIf may follow the pixels.
# Way out: ask only if the bytes of the file contain eXIf, "Raw profile type exif", or com.adobe.xmp.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0
cat > "$folder/ask.py" <<'P'
import io
import os
import time

import PIL
from PIL import Image

print("pillow", PIL.__version__)
side = 2000
image = Image.frombytes("L", (side, side), os.urandom(side) * side)
seconds = {}
for kind in ("JPEG", "PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    times = []
    for _ in range(5):
        opened = Image.open(io.BytesIO(stream.getvalue()))
        start = time.process_time()
        assert not opened.getexif()
        times.append(time.process_time() - start)
    seconds[kind] = min(times)
print("a PNG takes more than ten times as long:", seconds["PNG"] > 10 * seconds["JPEG"])
data = bytearray(stream.getvalue())
place = data.index(b"IDAT") + 4
data[place : place + 8] = b"?" * 8
opened = Image.open(io.BytesIO(data))
print("the header of a damaged PNG is read:", opened.size)
try:
    opened.getexif()
except Exception as error:
    print("getexif raises", type(error).__name__)
P
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/found"
grep -q 'ten times as long: True' "$folder/found"
grep -q 'is read: (2000, 2000)' "$folder/found"
grep -q 'getexif raises' "$folder/found"
