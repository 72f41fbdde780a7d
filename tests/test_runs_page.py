"""Every command of docs/runs.md works, one after another, on a tiny model and a small file."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PAGE = (Path(__file__).resolve().parents[1] / "docs/runs.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_works(llmft: Run, write: Write, here: Path) -> None:
    rows = "".join(f"ticket {i} {('bug', 'wish')[i % 2]},{('bug', 'wish')[i % 2]}\n" for i in range(60))
    write("tickets.csv", "text,label\n" + rows)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 12
    for words in commands:
        assert words[0] == "llmft"
        if "tickets/RUN" in words:
            oldest = min(folder.name for folder in (here / "outputs/tickets").iterdir() if (folder / "model").is_dir())
            words = [word.replace("RUN", oldest) for word in words]
        tiny = ["smoke=true", "trainer.max_steps=2"] if words[1] == "finetune" else []
        code, out, err = llmft(*words[1:], *tiny)
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert out
    assert not list((here / "outputs/tickets").glob("*/checkpoints"))
