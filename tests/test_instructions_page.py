"""Every command of docs/instructions.md works, on a tiny model and small files."""

import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PAGE = (Path(__file__).resolve().parents[1] / "docs/instructions.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_works(llmft: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = [[("user", f"say {i}"), ("assistant", f"{i}")] for i in range(30)]
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in chats]
    write("chats.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write("sums.jsonl", "".join(json.dumps({"question": f"{i} + 1", "answer": f"{i + 1}"}) + "\n" for i in range(30)))
    block = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) == 7
    for place, (program, command, *words) in enumerate(commands):
        assert program == "llmft"
        if command == "finetune":
            words += ["smoke=true", "trainer.max_steps=1", f"run.dir=r{place}", "generation.max_new_tokens=4"]
        words = [
            {"llm_instruct": "r0", "llm_chat": "r1"}[word.split("/")[1]] if word.endswith("/RUN") else word
            for word in words
        ]
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"say 1\n")))
        words = ["generation.max_new_tokens=4" if "max_new" in word else word for word in words]
        code, out, err = llmft(command, *words)
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert out
