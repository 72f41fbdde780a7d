"""Every command of docs/embeddings.md works, on tiny models and small files, and the Chinese page has the same ones."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
DOCS = Path(__file__).resolve().parents[1] / "docs"


def commands(page: str) -> list[list[str]]:
    found = re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in found for line in block.splitlines()]


def test_the_chinese_page_has_the_commands_of_the_english_one() -> None:
    assert commands("embeddings.zh-CN.md") == commands("embeddings.md")


def test_every_command_of_the_page_works(llmft: Run, write: Write, here: Path) -> None:
    rows = [(f"who opened shop {n}", f"Ann opened shop {n} in a town.") for n in range(24)]
    write("pairs.csv", "question,passage\n" + "".join(f"{a},{b}\n" for a, b in rows))
    write("questions.csv", "question\n" + "".join(f"{a}\n" for a, _ in rows[:3]))
    write("passages.jsonl", "".join(json.dumps({"text": b}) + "\n" for _, b in rows))
    listed = commands("embeddings.md")
    assert len(listed) == 9
    for place, words in enumerate(listed):
        if (
            place == 0 or words[-1] == "+recipe=reranker"
        ):  # on the rows that come with llmft; tests/tasks has smoke runs
            continue
        trains = words[1] == "finetune"
        more = ["smoke=true", "trainer.max_steps=1", f"run.dir=r{place}", "dataset.max_overlap=1"] if trains else []
        more += ["task.negative_margin=1"] if "task.negatives=3" in words else []  # of an untrained model all are near
        code, out, err = llmft(*("r1" if word == "RUN" else word for word in words[1:]), *more)
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert out or "predict.output=" in " ".join(words)
    mined = [json.loads(line) for line in (here / "mined.jsonl").read_text().splitlines()]
    assert all(len(row["answer"]) == 3 and row["passage"] not in row["answer"] for row in mined)
    assert all(row["left_out"] for row in mined)
