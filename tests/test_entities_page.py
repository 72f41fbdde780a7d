"""Every command of docs/entities.md works, on a tiny model and small files, and mistakes are answered as it says."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PAGE = (Path(__file__).resolve().parents[1] / "docs/entities.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_works(llmft: Run, write: Write, here: Path) -> None:
    for name, rows in (("train", range(20)), ("dev", range(20, 24)), ("test", range(24, 28))):
        write(f"{name}.conll", "".join(f"Ann{i}\tB-person\nran\tO\n\n" for i in rows))
    spans = [{"start": 0, "end": 3, "label": "person"}]
    write("spans.jsonl", "".join(json.dumps({"body": f"Ann ran {i} times", "spans": spans}) + "\n" for i in range(20)))
    write("new.conll", "Ann\nran\n")
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 6
    for place, words in enumerate(commands):
        trains = words[1] == "finetune"
        more = ["smoke=true", "trainer.max_steps=1", f"run.dir=r{place}"] if trains else []
        code, out, err = llmft(*("r0" if word == "RUN" else word for word in words[1:]), *more)
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert out or "predict.output" in words[-1]
    (answer,) = map(json.loads, blocks("json"))
    _, out, _ = llmft(*("r0" if word == "RUN" else word for word in commands[3][1:]))
    said = json.loads(out)
    assert [*answer] == [*said]
    assert [*answer["answer"][0]] == ["text", "label", "start", "end", "score"]
    assert answer["tokens"] == said["tokens"]


def test_the_mistakes_of_the_page_are_answered_as_it_says(llmft: Run, write: Write) -> None:
    lines = ["x\tO"] * 41
    lines[16], lines[20], lines[40] = "Ann\tX-person", "", "Lee"
    write("a.conll", "\n".join(lines) + "\n")
    code, _, err = llmft("finetune", "+recipe=bert_ner", "dataset=conll", "dataset.train=a.conll")
    assert (code, err) == (2, blocks("text")[0])
