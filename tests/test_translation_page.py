"""Every command of docs/translation.md works, on a tiny model and small files."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
PAGE = (Path(__file__).resolve().parents[1] / "docs/translation.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_works(llmft: Run, write: Callable[[str, str], Path], here: Path) -> None:
    write("train.en", "".join(f"Line {i}.\n" for i in range(60)))
    write("train.zh", "".join(f"第{i}行。\n" for i in range(60)))
    write("cmn.txt", "".join(f"Line {i}.\t第{i}行。\tby me\n" for i in range(60)))
    write(
        "papers.jsonl", "".join(f'{{"text": "Paper {i} says much.", "abstract": ["Paper {i}."]}}\n' for i in range(60))
    )
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 9
    for words in commands:
        assert words[0] == "llmft"
        run = next((str(file.parent.parent) for file in here.glob("outputs/t5_translation/*/model/task.json")), "")
        words = [run if word.endswith("/RUN") else word for word in words]
        tiny = ["smoke=true", "trainer.max_steps=1"] if words[1] == "finetune" else []
        code, out, err = llmft(*words[1:], *tiny)
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert out
