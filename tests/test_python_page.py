"""docs/python.md runs from top to bottom, AGENTS.md takes a program from a CSV to answers, and docs/commands.md is so."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft import api

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
TINY = ("smoke=true", "trainer.max_steps=1", "dataset.max_overlap=1")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_the_notebook_runs(write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "text,label\n" + "".join(f"ticket {i} {'bug' if i % 2 else 'wish'},{i % 2}\n" for i in range(40))
    write("tickets.csv", rows)
    write("new.csv", rows)
    finetune = api.finetune
    monkeypatch.setattr(api, "finetune", lambda *words: finetune(*words, *TINY))
    cells = re.findall(r"```python\n(.*?)```", text_of("docs/python.md"), re.DOTALL)
    assert len(cells) == 6
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "docs/python.md", "exec"), names)
    assert "optimizer.learning_rate no such key Did you mean optimizer.lr?" in capsys.readouterr().out


def test_a_program_goes_from_a_csv_to_answers(llmft: Run, write: Write, here: Path) -> None:
    tickets = "".join(f"{i},ticket {i} {'bug' if i % 2 else 'wish'},{'bug' if i % 2 else 'wish'}\n" for i in range(40))
    write("tickets.csv", "number,message,topic\n" + tickets)
    write("new.csv", "number,message,topic\n" + tickets)
    write("customers.csv", "years,postal_code,left\n" + "".join(f"{i},{10115 + i % 3},{i % 2}\n" for i in range(60)))
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", text_of("AGENTS.md"), re.DOTALL) for line in block.splitlines()
    ]
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line)[1:]
        assert "--json" in words
        code, out, err = llmft(*words, *(TINY if words[0] == "finetune" else ()))
        found = json.loads(out)
        assert (code, found["exit_code"]) == (0, 0), err
        if words[0] == "predict":
            assert found["rows"] == found["answered"] == (40 if found["output"] else 1)
        else:
            assert 0 <= found["metrics"]["test"]["accuracy"] <= 1
    assert len((here / "answers.jsonl").read_text().splitlines()) == 40


def test_the_commands_of_the_command_line_page_are_understood(llmft: Run, write: Write) -> None:
    (option,) = re.findall(r"```yaml\n(.*?)```", text_of("docs/commands.md"), re.DOTALL)
    write("configs/optimizer/slow.yaml", option)
    assert llmft("finetune", "optimizer=slow", "--cfg", "job=optimizer.lr")[1] == "optimizer.lr: 2.5e-05\n"
    for block in re.findall(r"```bash\n(.*?)```", text_of("docs/commands.md"), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line)[1:]
            if words[0] in ("predict", "eval") or "outputs/tickets/RUN" in words:  # of runs that the reader has
                assert llmft(*words)[0] == 2
            else:
                assert llmft(*words)[0] == 0, line
    for topic in re.findall(r"`llmft help ([\w./=]+)`", text_of("docs/commands.md")):
        assert llmft("help", topic)[0] == 0, topic


def test_the_example_of_where_a_value_comes_from_is_what_is_printed(llmft: Run) -> None:
    page = text_of("docs/commands.md")
    (shown,) = re.findall(r"^    optimizer\.lr = 0\.01\n(?:    .*\n)+", page, re.MULTILINE)
    _, out, _ = llmft("explain", "optimizer.lr", "+recipe=bert_textcls", "optimizer=sgd")
    assert [_told(line.removeprefix("    ")) for line in shown.splitlines()] == [
        _told(line) for line in out.splitlines()
    ]


def _told(line: str) -> str:
    """A line of `llmft explain`, whatever the file and line of the schema."""
    return re.sub(r"\bllmft/\S+:\d+ +", "SCHEMA ", re.sub(r"(:\d+) +", r"\1 ", line))
