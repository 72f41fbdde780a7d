"""What docs/monitoring.md says is what happens."""

import json
import random
from collections.abc import Callable
from pathlib import Path

from tests.test_docs import ROOT, commands, run_of

PAGE = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]


def test_every_command_of_the_page_works(llmft: Run, write: Write, here: Path) -> None:
    draw = random.Random(0)
    words = ["the", "a", "screen", "battery", "cable", "menu", "page", "never", "always", "breaks", "opens", "closes"]
    texts = [" ".join(draw.choices(words, k=draw.randint(4, 9))) for _ in range(800)]
    lines = (f"{text} {number},{('bug', 'wish')[number % 2]}\n" for number, text in enumerate(texts))
    write("tickets.csv", "text,label\n" + "".join(lines))
    write("new.csv", "text\n" + "".join(f"something wholly different came in as number {n}\n" for n in range(60)))
    tiny = ["smoke=true", "trainer.max_steps=1", "dataset.train=tickets.csv", "dataset=csv", "name=tickets"]
    code, _, err = llmft("finetune", "+recipe=bert_textcls", *tiny)
    assert code == 0, err
    seen = 0
    for command in commands(PAGE):
        if command[0] == "llmft":
            names = [word.replace("outputs/tickets/RUN", run_of(here, "tickets")) for word in command[1:]]
            code, out, err = llmft(*names, "run.dir=seen")
            assert code == 0, err
            assert "drift     new words" in out
            seen += 1
    assert seen == 1
    drift = json.loads((here / "seen/metrics.json").read_text())["drift"]
    assert "new words" in drift["alarms"]
    assert drift["rows"] == 60
