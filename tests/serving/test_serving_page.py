"""docs/serving.md: its commands work, and its bodies are answered."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.serving.conftest import Client
from tests.test_docs import ROOT, commands

PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")


def test_commands_of_the_page(
    text_run: Path, text_export: Path, llmft: Callable[..., tuple[int, str, str]], here: Path
) -> None:
    """The export is that of the fixture; a service is not started, but its config is composed and checked."""
    shutil.copytree(text_export, here / "reviews-onnx")
    shutil.copytree(text_run, here / "outputs/topics/20300101-000000-aaaa")
    asked = [words for words in commands(PAGE) if words[1] == "serve"]
    assert len(asked) == 2
    for words in asked:
        code, out, err = llmft(*words[1:], "--cfg", "job")
        assert code == 0, err
        assert "reviews-onnx" in out


def test_bodies_of_the_page(serving: Callable[..., Client]) -> None:
    client = serving()
    bodies = [
        json.loads(body.replace(", ...]", "]").replace("[...]", '["It broke."]'))
        for body in re.findall(r"`(\{\"(?:rows|texts?)\".*?\})`", PAGE)
    ]
    assert len(bodies) == 3
    for body in bodies:
        assert client.predict(**body).keys() == {"answers", "ids", "model", "version", "truncated"}
    printed = shlex.split(next(line for line in PAGE.splitlines() if line.startswith("  curl")))
    assert (
        client.ask("POST", "/predict", content=printed[-1], headers={"content-type": "application/json"}).status_code
        == 200
    )
