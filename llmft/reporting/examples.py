"""What `show=3` prints: training rows as the model sees them, with what is trained marked."""

import os
import sys
from typing import Any

from llmft.reporting.lines import phase
from llmft.tasks.task import Task
from llmft.training.evaluation import Split

COLOUR, PLAIN = ("\x1b[32m", "\x1b[0m"), ("⟦", "⟧")


def show(task: Task[Any], split: Split, count: int, notes: list[str]) -> None:
    """Print the first `count` features of the training rows, and what there is to know of all of them."""
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    before, after = COLOUR if coloured else PLAIN
    for number in range(min(count, len(split.features))):
        feature, row = split.features[number], split.rows[split.features.rows[number]]
        pieces = task.mark_trained(feature, row)
        print(f"{row['id']}{_size(feature)}")
        print("".join(f"{before}{text}{after}" if trained else text for text, trained in pieces))
        if not any(trained for _, trained in pieces):
            print(f"{before}{task.format_answer(task.reference(row))}{after}")
        print()
    for note in notes:
        phase("note", note)
    print(f"  {'in green' if coloured else 'in ⟦ ⟧'} is what is trained. Leave out show={count} to begin.")


def _size(feature: dict[str, Any]) -> str:
    """How many tokens the model reads; nothing for a feature that has none."""
    return f", {len(feature['input_ids']):,} tokens" if "input_ids" in feature else ""
