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
    write("books/a.txt", "The fox went out.\n" * 30)
    write("story.txt", "The fox came back.\n")
    for line in LINES:
        words = shlex.split(line)[1:]
        runs = {name: sorted((here / "outputs" / name).glob("*")) for name in ("gpt_clm", "mine", "encoder")}
        for name, found in runs.items():
            words = [word.replace(f"outputs/{name}/RUN", str(found[0])) if found else word for word in words]
        if words[0] in ("pretrain", "finetune"):
            given = [word for word in words if not word.startswith(("dataset", "-m"))]
            given = [word.replace("seed=0,1,2", "seed=1") for word in given]
            assert llmft(words[0], *given[1:], *dataset(words), "--cfg", "job")[0] == 0
            words = [*given, "smoke=true", "trainer.max_steps=1"]
        code, _, err = llmft(*words)
        assert code == 0, f"{line}\n{err}"


def dataset(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("dataset")]
