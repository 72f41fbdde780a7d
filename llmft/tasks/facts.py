"""RUN/model/task.json: what a task learnt from the training rows, beside the weights."""

import json
from pathlib import Path
from typing import Any

FORMAT = 2
READ = (1, FORMAT)  # 1 had `labels` where `target` is now: see llmft.tasks.targets.problems


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Keep `facts` in the folder of a model."""
    text = json.dumps({"format": FORMAT, **facts}, ensure_ascii=False, indent=2)
    (folder / "task.json").write_text(text + "\n", encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """What `write_facts` kept.

    Raises:
        OSError: where there is no such file.
        ValueError: for a file that is broken, or of another format.
    """
    facts = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    if (found := facts.pop("format", None)) not in READ:
        raise ValueError(f"task.json has format {found}; this llmft reads formats {READ[0]} to {FORMAT}")
    return dict(facts)
