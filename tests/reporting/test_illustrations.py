"""Images in reports: inside the page, small, and never a reason to fail."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.reporting.illustrations import ACROSS, SHEET, contact_sheet, data_uri, illustrated
from llmft.training.evaluation import Split
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]


def opened(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_a_picture_is_small_and_lossless_where_that_is_no_larger() -> None:
    plain = opened(data_uri(Image.new("RGB", (400, 200), "red"), 160))
    assert (plain.format, plain.size, plain.getpixel((5, 5))) == ("PNG", (160, 80), (255, 0, 0))
    noise = Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (200, 400, 3)).astype(numpy.uint8))
    assert opened(data_uri(noise, 160)).format == "JPEG"
    assert len(data_uri(noise, 160)) < 20_000


@pytest.fixture
def prepared() -> Callable[..., Any]:
    def fitted(*words: str) -> tuple[Any, Any, dict[str, Split]]:
        config = compose("finetune", ["+recipe=image_cls", "smoke=true", *words])
        task = tasks.build(config.task)
        rows = load(config.dataset, task)["train"]
        task = task.fit(rows, config.model)
        return config, task, {"train": Split(rows, encode(task, rows))}

    return fitted


def test_the_contact_sheet_is_what_training_sees(prepared: Callable[..., Any]) -> None:
    config, task, splits = prepared("augment=none")
    caption, source = contact_sheet(config, task, splits) or ("", "")
    assert caption == "24 rows of train as the model reads them in the first epoch, without augmentation"
    sheet = opened(source)
    side = sheet.width // ACROSS
    assert sheet.size == (ACROSS * side, SHEET // ACROSS * side)
    # The color of the background of the first picture, which normalization and back does not change.
    pixel = numpy.frombuffer(splits["train"].features[0]["pixels"], numpy.uint8).reshape(32, 32, 3)[0, 0]
    assert numpy.abs(numpy.array(sheet)[3, 3].astype(int) - pixel).max() <= 4
    config, task, splits = prepared("augment=light")
    caption, changed = contact_sheet(config, task, splits) or ("", "")
    assert "augment=light" in caption
    assert changed != source
    assert contact_sheet(config, task, splits) == (caption, changed), "drawn by (seed, epoch, row) alone"


def test_only_runs_that_train_on_images_have_one(prepared: Callable[..., Any]) -> None:
    config, task, _ = prepared()
    assert contact_sheet(config, task, {}) is None


def test_an_image_that_is_gone_is_left_out(prepared: Callable[..., Any], here: Path) -> None:
    _, task, splits = prepared()
    cell = splits["train"].rows[0]["image"]
    row = {"id": "a", "answer": "square", "label": "triangle", "scores": {}}
    assert [caption for caption, _ in illustrated(row, cell, task)] == [""]
    assert illustrated(row, {"path": str(here / "gone.png"), "bytes": None}, task) == []
    assert illustrated(row, None, task) == []


def test_a_report_shows_its_images_inside_the_page(llmft: Run, here: Path) -> None:
    assert llmft("finetune", "+recipe=image_cls", "smoke=true", "trainer.max_steps=2", "run.dir=run")[0] == 0
    page = (here / "run/report.html").read_text()
    assert "What training sees" in page
    sources = re.findall(r'<img [^>]*src="([^"]+)"', page)
    assert len(sources) > 10
    assert all(source.startswith("data:image/") for source in sources)
    assert len(page) < 400_000
