"""Every command of docs/recommendations.md works, in both languages, on a tiny model and a small file."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [(DOCS / f"recommendations{ending}.md").read_text(encoding="utf-8") for ending in ("", ".zh-CN")]


def commands(page: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^    llmft (.+)$", page, re.MULTILINE)]


def test_the_commands_work(
    llmft: Callable[..., tuple[int, str, str]], write: Callable[[str, str], Path], here: Path
) -> None:
    rows = (f"c{i % 9},p{(i // 9 + i % 9) % 12},2024-03-{i // 9 + 1:02}\n" for i in range(72))
    write("sales.csv", "customer,product,day\n" + "".join(rows))
    said = {}
    for words in commands(PAGES[0]):
        tiny = ["trainer.epochs=1", "model.config.hidden_size=16"] if words[0] == "finetune" else []
        tiny += ["export.max_loss=1"] if words[0] == "export" else []
        code, said[" ".join(words[:3])], err = llmft(*words, *tiny)
        assert code == 0, f"{shlex.join(words)}\n{err}"
    answer = json.loads(next(out for words, out in said.items() if "predict.row" in words))
    assert len(answer["answer"]) == 3 and answer.keys() == {"id", "answer", "scores"}


def test_the_pages_say_the_same() -> None:
    assert commands(PAGES[0]) == commands(PAGES[1])
    numbers = [sorted(re.findall(r"\d\.\d{3,4}", page)) for page in PAGES]
    assert numbers[0] == numbers[1]
    titles = [[len(mark) for mark in re.findall("^#+", page, re.MULTILINE)] for page in PAGES]
    assert titles[0] == titles[1]
