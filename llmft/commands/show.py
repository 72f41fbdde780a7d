"""`llmft finetune ... show=3`: a look at the encoded rows. No weights are loaded, and no run folder is made."""

import os
import sys
from typing import Any

from llmft.commands.label import with_label
from llmft.commands.prepare import prepare
from llmft.commands.session import quiet
from llmft.reporting.lines import phase
from llmft.schema.config import Config
from llmft.tasks.task import Task
from llmft.training.evaluation import Split

COLOR, PLAIN = ("\x1b[32m", "\x1b[0m"), ("⟦", "⟧")


def run(config: Config) -> None:
    """Print `config.show` training rows as the model is to see them.

    Raises:
        UserError: with what is wrong with the data.
    """
    quiet()
    config, notes = with_label(config)
    prepared = prepare(config)
    notes = [*notes, *prepared.data.notes, *prepared.task.notes()]
    _show(prepared.task, prepared.splits["train"], config.show or 0, notes)


def _show(task: Task[Any], split: Split, count: int, notes: list[str]) -> None:
    """Print the first `count` features of the training rows, and what there is to know of all of them."""
    colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    before, after = COLOR if colored else PLAIN
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
    print(f"  {'in green' if colored else 'in ⟦ ⟧'} is what is trained. Leave out show={count} to begin.")


def _size(feature: dict[str, Any]) -> str:
    """How many tokens the model reads; nothing for a feature that has none."""
    return f", {len(feature['input_ids']):,} tokens" if "input_ids" in feature else ""
