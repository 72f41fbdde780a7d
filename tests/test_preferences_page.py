"""Every command of docs/preferences.md works, on a tiny model and small files."""

import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
PAGE = (Path(__file__).resolve().parents[1] / "docs/preferences.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_works(
    llmft: Run, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = (json.loads(line) for line in re.findall(r"^    (\{.*\})$", PAGE, re.MULTILINE))
    rows = [row | {"prompt": f"{number}. {row['prompt']}"} for number in range(30)]
    write("pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    block = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) == 7
    for place, (program, command, *words) in enumerate(commands):
        assert program == "llmft"
        if command == "finetune":
            words += ["smoke=true", "trainer.max_steps=1", f"run.dir=r{place}"]
        words = ["r0" if word.endswith("/RUN") else word for word in words]
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hello\n")))
        code, out, err = llmft(command, *words)
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert out
