"""Every command of docs/tuning.md works, on a tiny model and small files."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PAGE = (Path(__file__).resolve().parents[1] / "docs/tuning.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_works(llmft: Run, write: Write, here: Path) -> None:
    rows = "".join(f"{i % 9},{10115 + i % 3},{'yes' if i % 2 else 'no'}\n" for i in range(60))
    write("customers.csv", "years,postal_code,left\n" + rows)
    write("customers_new.csv", "years,postal_code,left\n3,10115,yes\n4,10116,no\n")
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 7
    for place, words in enumerate(commands):
        assert words[0] == "llmft"
        if words[1] == "eval":
            folders = {"SEEDS": "r0", "FOLDS": "r1"}
            words = [folders.get(word.rpartition("/")[2], word) if "/" in word else word for word in words]
        tiny = ["smoke=true", "trainer.max_steps=1"] if words[1] == "finetune" else []
        tiny += ["search.trials=2"] if "search=tpe" in words else []
        tiny += ["dataset.folds=2"] if any(word.startswith("dataset.folds") for word in words) else []
        code, out, err = llmft(*words[1:], *tiny, f"run.dir=r{place}")
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert out
    assert (here / "r2/best.yaml").is_file()
    assert (here / "r3/report.html").is_file()
    write("recipes/mine.yaml", blocks("yaml")[0])
    assert llmft("finetune", "+recipe=mine", "--cfg", "job")[0] == 0
