"""`llmft finetune ... show=3`: a look at the encoded rows. No weights are loaded, and no run folder is made."""

import os
import sys
from itertools import groupby
from operator import itemgetter
from typing import Any

from llmft.commands.label import with_label
from llmft.commands.prepare import prepare
from llmft.reporting.lines import phase, quiet
from llmft.schema.config import Config
from llmft.schema.tasks import IGNORED
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
    notes = [*notes, *prepared.data.notes, *prepared.task.state.notes]
    _show(prepared.task, prepared.splits["train"], config.show or 0, notes)


def _show(task: Task[Any], split: Split, count: int, notes: list[str]) -> None:
    """Print the first `count` features of the training rows, and what there is to know of all of them."""
    colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    before, after = COLOR if colored else PLAIN
    for number in range(min(count, len(split.features))):
        feature, row = split.features[number], split.rows[split.features.rows[number]]
        pieces = trained_pieces(task, feature, row)
        print(f"{row['id']}{_size(feature)}")
        print("".join(f"{before}{text}{after}" if trained else text for text, trained in pieces))
        if not any(trained for _, trained in pieces):
            print(f"{before}{task.format_answer(task.reference(row))}{after}")
        print()
    for note in notes:
        phase("note", note)
    print(f"  {'in green' if colored else 'in ⟦ ⟧'} is what is trained. Leave out show={count} to begin.")


def trained_pieces(task: Task[Any], feature: dict[str, Any], row: dict[str, Any]) -> list[tuple[str, bool]]:
    """A training feature in pieces as the model sees it, each with whether it is trained.

    Tokens are trained if they have a label of their own; of an encoder and a decoder, the text that the decoder writes.
    A feature that holds several texts, such as `chosen_ids` and `rejected_ids`, has a line for each. A feature without
    tokens is shown as its row.
    """
    tokenizer = getattr(task.state, "tokenizer", None)
    sides = [key.removesuffix("_ids") for key in feature if f"{key.removesuffix('_ids')}_labels" in feature]
    if tokenizer is None or not (sides or "input_ids" in feature):
        return [(task.format_input(row), False)]
    if not sides:
        return _marked(task, tokenizer, feature["input_ids"], feature.get("labels", []))
    found: list[tuple[str, bool]] = []
    for side in sides:
        own = _marked(task, tokenizer, feature[f"{side}_ids"], feature[f"{side}_labels"])
        found += [(f"{side}: ", False), *own, ("\n", False)]
    return found[:-1]


def _marked(task: Task[Any], tokenizer: Any, ids: list[int], labels: Any) -> list[tuple[str, bool]]:
    if "Seq2Seq" in task.head:
        return [(tokenizer.decode(ids), False), ("\n", False), (tokenizer.decode(labels), True)]
    by_token = isinstance(labels, list) and len(labels) == len(ids) and isinstance(labels[0], int)
    trained = [label != IGNORED for label in labels] if by_token else [False] * len(ids)
    runs = groupby(zip(ids, trained, strict=True), key=itemgetter(1))
    return [(tokenizer.decode([token for token, _ in run]), own) for own, run in runs]


def _size(feature: dict[str, Any]) -> str:
    """How many tokens the model reads; nothing for a feature that has none."""
    return f", {len(feature['input_ids']):,} tokens" if "input_ids" in feature else ""
