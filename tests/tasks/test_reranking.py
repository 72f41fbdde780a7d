"""Rerankers: losses by hand, the order of candidates, and rows that say nothing."""

import math
from typing import Any

import pytest
import torch

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.arrow import to_dataset
from llmft.data.source import Table
from llmft.schema.problem import UserError
from llmft.tasks.task import Task
from llmft.training.features import encode

QUERIES, TEXTS = ["where is it", "where is it", "who", "who"], ["In Ulm.", "In a box.", "Ann.", "It is late."]


def made(*words: str, **rows: list[Any]) -> Task[Any]:
    """The fitted task, for these rows."""
    task = tasks.build(compose("finetune", ["+recipe=reranker", "smoke=true", *words]).task)
    config = compose("finetune", ["+recipe=reranker", "smoke=true", *words])
    return task.fit(to_dataset(Table(rows, [str(row) for row in range(len(rows["text"]))])), config.model)


def encoded(task: Task[Any], **rows: list[Any]) -> list[dict[str, Any]]:
    features = encode(task, Table(rows, ["row"] * len(rows["text"])))
    return features.__getitems__(list(range(len(features))))


def test_a_loss_is_its_formula() -> None:
    rows: dict[str, list[Any]] = {"text": QUERIES[:3:2], "text_pair": TEXTS[:3:2], "negative": [["x", "y"], ["z"]]}
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0])
    task = made(**rows)
    batch = task.objective.collate(encoded(task, **rows))
    assert batch["sizes"].tolist() == [3, 2]
    assert batch["labels"].tolist() == [1, 0, 0, 1, 0]
    first = -math.log(math.e / (math.e + 1 + 1 / math.e))
    second = -math.log(math.exp(0.5) / (math.exp(0.5) + math.exp(2)))
    assert task.objective.compare(logits, batch).item() == pytest.approx((first + second) / 2)

    binary = made("task.loss=binary", **rows)
    plus = [math.log1p(math.exp(value)) for value in (-1.0, 0.0, -1.0, -0.5, 2.0)]
    assert binary.objective.compare(logits, batch).item() == pytest.approx((sum(plus[:3]) / 3 + sum(plus[3:]) / 2) / 2)


def test_labels_are_brought_to_0_to_1() -> None:
    """The loss is then that of torch, and of sentence-transformers' BinaryCrossEntropyLoss, which calls it."""
    task = made("task.loss=binary", text=QUERIES, text_pair=TEXTS, label=[0.0, 5.0, 2.5, 0.0])
    batch = task.objective.collate(encoded(task, text=QUERIES, text_pair=TEXTS, label=[0.0, 5.0, 2.5, 0.0]))
    logits = torch.tensor([1.0, -1.0, 0.5, 3.0])
    expected = torch.nn.BCEWithLogitsLoss()(logits, torch.tensor([0.0, 1.0, 0.5, 0.0]))
    assert task.objective.compare(logits, batch).item() == pytest.approx(expected.item(), abs=1e-5)


def test_rows_of_one_query_are_one_list() -> None:
    """The right text of the first query is second; that of the other has the score of a wrong one, which comes first."""
    task = made("task.loss=binary", text=QUERIES, text_pair=TEXTS, label=[0.0, 1.0, 1.0, 0.0])
    asides = [
        {"query": query, "texts": [text], "labels": [label]}
        for query, text, label in zip(QUERIES, TEXTS, (0.0, 1.0, 1.0, 0.0), strict=True)
    ]
    outputs = [
        (torch.tensor([score]).numpy(), aside) for score, aside in zip((2.0, 1.0, 0.0, 0.0), asides, strict=True)
    ]
    answers = task.decode(outputs, [0, 1, 2, 3])
    assert [found["ranks"] for found in answers] == [[2], [2], [2], [2]]
    assert answers[0]["answer"] == pytest.approx(1 / (1 + math.exp(-2)))
    metrics = task.score(answers, None)  # type: ignore[arg-type]
    assert metrics["mrr@10"] == 0.5
    assert metrics["ndcg@10"] == pytest.approx(1 / math.log2(3))
    parts = [task.row_score(found, None) for found in answers]
    assert [part.whole for part in parts] == [1, 0, 1, 0]
    assert sum(part.part for part in parts) / 2 == pytest.approx(metrics["ndcg@10"])


def test_a_query_without_a_right_text_is_left_out_and_said() -> None:
    rows: dict[str, list[Any]] = {"text": QUERIES, "text_pair": TEXTS, "label": [0.0, 1.0, 0.0, 0.0]}
    task = made("task.loss=binary", **rows)
    (note,) = task.notes_on(to_dataset(Table(rows, list("abcd"))), "test")  # type: ignore[attr-defined]
    assert note == "test: 1 of 2 queries have no text with a label of at least 0.5, and are left out of the metrics"


BAD: dict[str, tuple[str, dict[str, list[Any]], str]] = {
    "neither": ("binary", {"text": QUERIES, "text_pair": TEXTS}, "neither labels nor negatives"),
    "one label": ("binary", {"text": QUERIES, "text_pair": TEXTS, "label": [1.0] * 4}, "one number only"),
    "no negatives": ("listwise", {"text": QUERIES, "text_pair": TEXTS, "negative": [[]] * 4}, "no row of train"),
    "a right one": (
        "listwise",
        {"text": QUERIES, "text_pair": TEXTS, "negative": [["x", "In Ulm."], ["y"], [], []]},
        "among its neg",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_say_nothing_are_refused(name: str) -> None:
    loss, rows, what = BAD[name]
    with pytest.raises(UserError, match=what):
        task = made(f"task.loss={loss}", **rows)
        if problems := task.check(Table(rows, list("abcd")), "train"):
            raise UserError(problems)
