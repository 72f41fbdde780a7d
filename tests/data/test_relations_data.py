"""The data set `relations` keeps what its card promises."""

from collections import Counter
from pathlib import Path

import pytest

import llmft
from llmft.config.load import load as compose
from llmft.data.pipeline import Data, load
from llmft.metrics.extraction_metrics import are_directed, relation
from llmft.tasks import build
from llmft.tasks.text.entity_markers import Marked, read

CARD = (Path(llmft.__file__).parent / "samples/relations/README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def relations() -> Data:
    config = compose("finetune", ["+recipe=bert_relation"])
    return load(config.dataset, build(config.task))


def marked(data: Data, split: str) -> list[Marked]:
    return [read(text) for text in data[split]["text"]]


def test_counts_are_those_of_the_card(relations: Data) -> None:
    assert {name: len(rows) for name, rows in relations.splits.items()} == {
        "train": 900,
        "validation": 200,
        "test": 200,
    }
    assert relations.notes == [], "no sentence stands twice"
    for rows in relations.splits.values():
        counts = Counter(rows["label"])
        assert len(counts) == 9
        assert are_directed(list(counts))
        assert 0.15 < counts["Other"] / len(rows) < 0.25
        assert all(f"`{relation(label)}(e1,e2)`" in CARD for label in counts if label != "Other")


def test_neither_order_nor_words_tell_the_direction(relations: Data) -> None:
    for split in ("train", "test"):
        found = marked(relations, split)
        share = sum(sentence.head < sentence.tail for sentence in found) / len(found)
        assert 0.4 < share < 0.6
        first = Counter(
            (relation(label), sentence.head < sentence.tail, label.endswith("(e1,e2)"))
            for label, sentence in zip(relations[split]["label"], found, strict=True)
            if label != "Other"
        )
        assert len(first) == 4 * 2 * 2, "each order has both directions"


def test_some_nouns_are_new_in_test(relations: Data) -> None:
    seen, new = (
        {
            sentence.text[slice(*span)]
            for sentence in marked(relations, split)
            for span in (sentence.head, sentence.tail)
        }
        for split in ("train", "test")
    )
    assert 0.2 < len(new - seen) / len(new) < 0.45
