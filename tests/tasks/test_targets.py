"""What the tasks learn of the column `label`, and how it is kept."""

import json
from pathlib import Path

import numpy
import pytest
import torch

from llmft.schema.problem import UserError
from llmft.tasks.targets.config import TargetConfig
from llmft.tasks.targets.multi_label import MultiLabel
from llmft.tasks.targets.problems import from_facts, to_facts
from llmft.tasks.targets.regression import Regression
from llmft.tasks.targets.single_label import SingleLabel
from llmft.tasks.targets.target import Target
from llmft.tasks.task import read_facts, write_facts


def test_numbers_are_standardised_and_put_back() -> None:
    target = Regression.fit([10.0, 20.0, 60.0], TargetConfig(problem="regression"))
    assert target == Regression(30.0, pytest.approx((1400 / 3) ** 0.5))
    outputs = numpy.array(target.encode([-5.0, 30.0, 1e6]))[:, None]
    assert [answer["answer"] for answer in target.decode(outputs)] == pytest.approx([-5.0, 30.0, 1e6])


@pytest.mark.parametrize(("labels", "what"), [([4.0, 4.0], "one number only, 4"), ([], "no number")])
def test_one_number_is_nothing_to_learn(labels: list[float], what: str) -> None:
    with pytest.raises(UserError, match=what):
        Regression.fit(labels, TargetConfig(problem="regression"))


WEIGHTS = [
    ("single_label", ["a", "a", "a", "b"], None, None),
    ("single_label", ["a", "a", "a", "b"], "balanced", [4 / 6, 2.0]),
    ("single_label", ["a", "a", "a", "b"], {"b": 5}, [1.0, 5.0]),
    ("single_label", ["0", "1", "1", "1"], {0: 3}, [3.0, 1.0]),
    ("multi_label", [["a"], ["a", "b"], ["a"], []], "balanced", [1 / 3, 3.0]),
    ("multi_label", [["a"], ["a", "b"]], "balanced", [1.0, 1.0]),
]


@pytest.mark.parametrize(("problem", "labels", "wanted", "expected"), WEIGHTS)
def test_weights_of_labels(problem: str, labels: list[str], wanted: object, expected: list[float] | None) -> None:
    kind = {"single_label": SingleLabel, "multi_label": MultiLabel}[problem]
    weights = kind.fit(labels, TargetConfig(problem=problem, class_weights=wanted)).weights
    assert weights == (None if expected is None else pytest.approx(expected))


def test_weights_of_labels_that_there_are_not() -> None:
    with pytest.raises(UserError, match=r"no label 'c'\. They are a, b"):
        SingleLabel.fit(["a", "b"], TargetConfig(class_weights={"c": 2}))


def test_several_labels_become_a_table_and_come_back() -> None:
    target = MultiLabel.fit([["red"], [], ["round", "red"]], TargetConfig(problem="multi_label", threshold=0.25))
    assert (target.labels, target.thresholds) == (["red", "round"], [0.25, 0.25])
    assert target.encode([["round"], [], ["round", "red"]]) == [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    assert [answer["answer"] for answer in target.decode(numpy.array([[-9.0, 9.0], [-9.0, -9.0], [9.0, 9.0]]))] == [
        ["round"],
        [],
        ["red", "round"],
    ]


@pytest.mark.parametrize(
    "target",
    [
        SingleLabel(["a", "b"], [1.0, 2.0], 1.5, 0.3),
        MultiLabel(["a", "b"], [0.3, 0.4], None, 0.7),
        Regression(3.0, 2.0),
    ],
)
def test_a_target_comes_back_as_it_was_kept(target: Target, here: Path) -> None:
    write_facts(here, {"target": to_facts(target), "other": 1})
    facts = read_facts(here)
    assert from_facts(facts) == target
    assert facts == {"other": 1}


def test_the_task_json_of_older_runs_is_read(here: Path) -> None:
    (here / "task.json").write_text(json.dumps({"format": 1, "labels": ["a", "b"], "max_length": 8, "pair": False}))
    facts = read_facts(here)
    assert from_facts(facts) == SingleLabel(["a", "b"])
    assert facts == {"max_length": 8, "pair": False}


def test_a_task_json_of_a_later_llmft_is_refused(here: Path) -> None:
    (here / "task.json").write_text('{"format": 3, "target": {}}')
    with pytest.raises(ValueError, match="format 3; this llmft reads formats 1 to 2"):
        read_facts(here)


NOTES = {
    "how many rows each has": (["a", "b", "a"], {}, ["train: rows by label: a 2, b 1"]),
    "many": (
        [letter for place, letter in enumerate("abcdefghij") for _ in range(10 - place)],
        {"class_weights": {"a": 2}},
        ["train: rows by label: a 10, b 9, c 8, d 7, e 6, f 5, g 4, h 3, and 2 others down to 1"],
    ),
    "an uneven share": (
        ["a"] * 20 + ["b"] * 2,
        {},
        [
            "train: rows by label: a 20, b 2",
            "train: the most frequent label has 10 times the rows of the rarest; task.class_weights=balanced lets all labels count alike",
        ],
    ),
    "weights that are set": (["a"] * 20 + ["b"] * 2, {"class_weights": "balanced"}, ["train: rows by label: a 20, b 2"]),
    "a declared label that no row has": (
        ["a", "b"],
        {"labels": ["a", "b", "c"]},
        ["train: rows by label: a 1, b 1", "train: no row has the label c, which task.labels declares"],
    ),
    "labels that differ by case": (
        ["billing"] * 3 + ["Billing", "bug"],
        {},
        [
            "train: rows by label: billing 3, Billing 1, bug 1",
            "train: labels that differ only in case or spaces: 'billing' (3 rows) and 'Billing' (1 row)",
        ],
    ),
    "one letter as two characters": (
        ["caf\u00e9", "cafe\u0301"],
        {},
        [
            "train: rows by label: caf\u00e9 1, cafe\u0301 1",
            "train: labels that differ only in case or spaces: 'caf\u00e9' (1 row) and 'cafe\u0301' (1 row)",
        ],
    ),
    "several labels in one": (
        ["a|b", "b|c", "a", "c"],
        {},
        [
            "train: rows by label: a|b 1, b|c 1, a 1, c 1",
            "train: 2 of 4 labels hold '|', such as 'a|b': is task.problem=multi_label task.separator='|' meant?",
        ],
    ),
    "signs in names": (["Rock; Pop", "Jazz, Blues", "Salsa"], {}, ["train: rows by label: Rock; Pop 1, Jazz, Blues 1, Salsa 1"]),
    "lists": (
        ["['a']", "['b']"],
        {},
        [
            "train: rows by label: ['a'] 1, ['b'] 1",
            "train: all labels look like lists, such as ['a']: is task.problem=multi_label meant?",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_what_is_said_of_labels(name: str) -> None:
    labels, options, notes = NOTES[name]
    config = TargetConfig(**options)
    assert SingleLabel.fit(labels, config).notes(labels, config) == notes


def test_what_is_said_of_several_labels() -> None:
    config = TargetConfig(problem="multi_label")
    cells = [["a;b"], ["b;c", "d"], [], ["a;c"], ["d"]]
    assert MultiLabel.fit(cells, config).notes(cells, config) == [
        "train: rows by label: d 2, a;b 1, b;c 1, a;c 1; without a label 1",
        "train: 3 of 4 labels hold ';', such as 'a;b': is task.separator=';' meant?",
    ]
    assert Regression(0.0, 1.0).notes([1.0], TargetConfig(problem="regression")) == []


READOUTS = [
    (SingleLabel(["a", "b", "c"], temperature=2.5), "`scores` are `softmax(logits / 2.5)`; the answer is the label with the highest."),
    (SingleLabel(["a", "b", "c"]), "`scores` are `softmax(logits)`; the answer is the label with the highest."),
    (MultiLabel(["a", "b", "c"], [0.5] * 3, temperature=0.5), "`scores` are `sigmoid(logits / 0.5)`; the answer is each label whose score reaches its own of `target.thresholds` in `task.json`."),
]  # fmt: skip


@pytest.mark.parametrize(("target", "formula"), READOUTS)
def test_a_program_reads_logits_as_decode_does(target: Target, formula: str) -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5], [30.0, -40.0, 0.0]])
    expected = [list(answer["scores"].values()) for answer in target.decode(logits.double().numpy())]
    assert target.export_outputs(logits)["scores"].numpy() == pytest.approx(numpy.array(expected), abs=1e-6)
    assert target.formula() == formula


def test_a_program_gives_numbers_on_their_own_scale() -> None:
    target = Regression(1000.0, 250.0)
    assert target.export_outputs(torch.tensor([[-2.0], [0.5]]))["answer"].tolist() == [[500.0], [1125.0]]
    assert target.formula() == "The answer is `logits * 250 + 1000`."
    two = SingleLabel(["no", "yes"], threshold=0.3)
    assert (
        two.formula() == "`scores` are `softmax(logits)`; the answer is 'yes' if its score is at least 0.3, else 'no'."
    )
