"""Every command of docs/tables.md works, on a tiny model and a small file."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[1] / "docs/tables.md").read_text(encoding="utf-8")


def test_the_commands_work(
    llmft: Callable[..., tuple[int, str, str]], write: Callable[[str, str], Path], here: Path
) -> None:
    rows = (
        f"{i},{i % 40},{i % 7}.5,{('DE', 'FR')[i % 2]},x,0{i % 9 + 1}.03.2024,it took {i % 9} days,{('no', 'yes')[i % 2]}"
        for i in range(80)
    )
    write("shop.csv", "id,age,spent,country,constant,opened,review,left\n" + "\n".join(rows) + "\n")
    commands = [shlex.split(line) for line in re.findall(r"^    llmft (.+)$", PAGE, re.MULTILINE)]
    assert len(commands) >= 4
    for words in commands:
        tiny = ["search.trials=1"] if "search=tpe" in words else []
        tiny += [] if any("boosting" in word for word in words) else ["trainer.max_steps=1"]
        code, _, err = llmft(*words, "smoke=true", *tiny)
        assert code == 0, f"{shlex.join(words)}\n{err}"
