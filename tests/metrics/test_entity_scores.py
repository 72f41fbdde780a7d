"""Scores of entities: worked out by hand, and those of seqeval's own functions."""

import random

import pytest
from seqeval import metrics as seqeval

from llmft.metrics.extraction_metrics import Entities


def scored(predictions: list[str], references: list[str]) -> dict:
    return Entities().compute(
        predictions=[row.split() for row in predictions], references=[row.split() for row in references]
    )


def test_scores_worked_out_by_hand() -> None:
    found = scored(
        ["B-per I-per O B-org", "B-per O O", "O O"],
        ["B-per I-per O B-per", "B-per I-per O", "B-org O"],
    )
    # Said: three, of which Ann Lee is right; the others are of another label and too short. There are four.
    assert found == {
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 4),
        "f1": pytest.approx(2 / 7),
        "accuracy": pytest.approx(6 / 9),
        "per_class": {
            "org": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
            "per": {"precision": 0.5, "recall": pytest.approx(1 / 3), "f1": pytest.approx(0.4), "support": 3},
        },
    }


def test_an_i_without_its_b_opens_an_entity() -> None:
    assert scored(["O I-per I-per"], ["O B-per I-per"])["f1"] == 1.0


def test_no_entity_at_all_is_no_error() -> None:
    nothing = scored(["O O"], ["O O"])
    assert nothing == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0, "per_class": {}}


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_seqeval(seed: int) -> None:
    rng = random.Random(seed)
    tags = ["O", "O", "B-per", "I-per", "B-work-of-art", "I-work-of-art", "B-地点"]
    truth, said = ([rng.choices(tags, k=8) for _ in range(30)] for _ in range(2))
    found = scored([" ".join(row) for row in said], [" ".join(row) for row in truth])
    for name in ("precision", "recall", "f1", "accuracy"):
        assert found[name] == getattr(seqeval, f"{name}_score")(truth, said)
    report = seqeval.classification_report(truth, said, output_dict=True, zero_division=0)
    for name, scores in found["per_class"].items():
        assert [scores[key] for key in ("precision", "recall", "f1", "support")] == [
            report[name][key] for key in ("precision", "recall", "f1-score", "support")
        ]
    assert {*found["per_class"]} == {"per", "work-of-art", "地点"}
