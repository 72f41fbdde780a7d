"""`llmft finetune ... show=3`: prints encoded rows. Loads no weights, and makes no run folder."""

import os
import sys
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy

from llmft.commands.label import with_label
from llmft.commands.prepare import prepare
from llmft.reporting.lines import phase, quiet
from llmft.schema.config import Config
from llmft.schema.tasks import IGNORED
from llmft.tasks.task import Task
from llmft.training.evaluation import Split
from llmft.training.features import Blocks

COLOR, PLAIN = ("\x1b[32m", "\x1b[0m"), ("⟦", "⟧")


def run(config: Config) -> None:
    """Print `config.show` training rows as the model sees them.

    Raises:
        UserError: with the problems of the data.
    """
    quiet()
    config, notes = with_label(config)
    prepared = prepare(config)
    notes = [*notes, *prepared.data.notes, *prepared.task.state.notes]
    _show(prepared.task, prepared.splits["train"], config.show or 0, notes)


def _show(task: Task[Any], split: Split, count: int, notes: list[str]) -> None:
    """Print the first `count` training features, and the notes on all rows."""
    # https://no-color.org: the variable turns colors off, whatever its value. Brackets stay readable in a file.
    colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    before, after = COLOR if colored else PLAIN
    for number in range(min(count, len(split.features))):
        feature = split.features[number]
        # A block of raw text is cut out of all documents: it has no row.
        row = {} if isinstance(split.features, Blocks) else split.rows[split.features.rows[number]]
        pieces = trained_pieces(task, feature, row)
        print(f"{row.get('id', f'block {number}')}{_size(feature)}")
        print("".join(f"{before}{text}{after}" if trained else text for text, trained in pieces))
        if not any(trained for _, trained in pieces):  # a classifier: the label is trained, and none of the tokens
            print(f"{before}{task.format_answer(task.reference(row))}{after}")
        print()
    for note in notes:
        phase("note", note)
    print(f"  The loss includes what is {'green' if colored else 'in ⟦ ⟧'}. Leave out show={count} to train.")


def trained_pieces(task: Task[Any], feature: dict[str, Any], row: dict[str, Any]) -> list[tuple[str, bool]]:
    """The text of a training feature in pieces, each with whether the loss includes it.

    Decoder-only models are trained on the tokens that have a label, encoder-decoders on what the decoder writes. A
    feature with several texts, such as `chosen_ids` and `rejected_ids`, has a line for each. A feature without tokens,
    such as a table's, is shown as its row.
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
    labels = labels.tolist() if isinstance(labels, numpy.ndarray) else labels
    if "Seq2Seq" in task.head:
        return [(tokenizer.decode(ids), False), ("\n", False), (tokenizer.decode(labels), True)]
    # One integer per token is a label of that token; a class, a number, or a list of another length is not.
    by_token = isinstance(labels, list) and len(labels) == len(ids) and isinstance(labels[0], int)
    trained = [label != IGNORED for label in labels] if by_token else [False] * len(ids)
    # Decoded run by run and not token by token: a character may be split into several tokens.
    runs = groupby(zip(ids, trained, strict=True), key=itemgetter(1))
    return [(tokenizer.decode([token for token, _ in run]), own) for own, run in runs]


def _size(feature: dict[str, Any]) -> str:
    """The number of tokens of a feature, for the heading; empty if it has none."""
    return f", {len(feature['input_ids']):,} tokens" if "input_ids" in feature else ""
