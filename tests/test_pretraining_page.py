"""Every command of docs/pretraining.md composes, and works on a tiny model."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[1] / "docs/pretraining.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


def test_every_command_of_the_page_works(
    llmft: Callable[..., tuple[int, str, str]], write: Callable[[str, str], Path], here: Path
) -> None:
    for number in range(60):
        write(f"books/{number}.txt", f"The quick brown fox {number} jumps over the lazy dog.\n" * 3)
    write("story.txt", "The fox came back.\n")
    for line in LINES:
        words = [word.replace("seed=0,1,2", "seed=1") for word in shlex.split(line)[1:] if word != "-m"]
        for name in ("gpt_clm", "mine", "encoder"):
            if found := sorted((here / "outputs" / name).glob("*")):
                words = [word.replace(f"outputs/{name}/RUN", str(found[0])) for word in words]
        if words[0] in ("pretrain", "finetune"):
            words += ["smoke=true", "trainer.max_steps=1"]
        code, _, err = llmft(*words)
        assert code == 0, f"{line}\n{err}"
