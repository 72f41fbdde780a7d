"""Every command of docs/images.md works, on tiny models and small files."""

import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from PIL import Image

pytest.importorskip("faster_coco_eval")

from llmft.data.masks import read_mask
from llmft.tasks.images import shapes

Run = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, CHINESE = ((DOCS / name).read_text(encoding="utf-8") for name in ("images.md", "images.zh-CN.md"))


def commands(page: str = PAGE) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if line.strip()]


def files(here: Path) -> None:
    """What the reader of the page has."""
    found = shapes.scenes(12, 0)
    for name in ("images", "masks"):
        (here / "cells" / name).mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(found["image"], found["mask"], strict=True)):
        Image.open(io.BytesIO(image["bytes"])).save(here / f"cells/images/{number}.png")
        one = (read_mask(mask).values > 0).astype(numpy.uint8)
        Image.fromarray(one).save(here / f"cells/masks/{number}.png")
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        parts = [(number, box) for number in numbers for box in found["boxes"][number]]
        annotations = [
            {"id": place, "image_id": number, "category_id": shapes.KINDS.index(box["label"]), "bbox": box["box"]}
            for place, (number, box) in enumerate(parts)
        ]
        names = [{"id": number, "file_name": f"{number}.png"} for number in numbers]
        kinds = [{"id": number, "name": name} for number, name in enumerate(shapes.KINDS)]
        tree = {"images": names, "annotations": annotations, "categories": kinds}
        (here / f"cells/{split}.json").write_text(json.dumps(tree))
    (here / "cells/train.txt").write_text("".join(f"{number}\n" for number in range(8)))
    (here / "cells/test.txt").write_text("".join(f"{number}\n" for number in range(8, 12)))
    Image.open(here / "cells/images/0.png").save(here / "new.png")
    for split in ("train", "val"):
        for number, cell in enumerate(shapes.classified(8, 1 + (split == "val"))["image"]):
            file = here / "insects" / split / ("ant", "bee")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(cell["bytes"])
    lines = [
        f"insects/train/{kind}/{number}.png,{kind}\n" for number in range(8) for kind in [("ant", "bee")[number % 2]]
    ]
    (here / "photos.csv").write_text("file,kind\n" + "".join(lines))
    (here / "new.jsonl").write_text(json.dumps({"image": "new.png"}) + "\n")


def test_every_command_of_the_page_works(llmft: Run, here: Path) -> None:
    files(here)
    tiny = ["smoke=true", "trainer.max_steps=1"]
    for words in commands():
        more = tiny if words[1] == "finetune" else []
        code, _, err = llmft(*words[1:], *more)
        assert code == 0, f"{shlex.join(words)}\n{err}"


def skeleton(page: str) -> dict[str, object]:
    """What a page says in any language: levels of titles, links, words in backticks, and the numbers of its tables."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    return {
        "titles": [len(title) for title in re.findall(r"^#+(?= )", text, re.MULTILINE)],
        "links": set(re.findall(r"\]\(([^)]+)\)", text)) - {"images.md", "images.zh-CN.md"},
        "words": set(re.findall(r"`([^`\n]+)`", text)),
        "first columns": [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in rows],
        "columns": [row.count("|") for row in rows],
        "numbers": [sorted(re.findall(r"\d+(?:[.,]\d+)*", row)) for row in rows],
    }


def test_the_chinese_page_says_the_same() -> None:
    assert commands(CHINESE) == commands()
    assert skeleton(CHINESE) == skeleton(PAGE)
    assert "](images.zh-CN.md)" in PAGE
    assert "](images.md)" in CHINESE
