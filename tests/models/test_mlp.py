"""The MLP for tables, and what the task does to cells."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from llmft.models.table_models import MLPConfig, MLPForClassification
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError
from llmft.tasks.tables.config import Tabular as Options
from llmft.tasks.tables.tabular import Tabular

Run = Callable[..., tuple[int, str, str]]


def test_the_forward_pass_is_what_the_page_says() -> None:
    config = MLPConfig(num_numbers=1, category_sizes=[2], hidden_sizes=[2], embedding_size=1, dropout=0.0, num_labels=2)
    model = MLPForClassification(config).eval()
    weights = {
        "embeddings.0.weight": [[0.0], [1.0], [-1.0]],
        "layers.0.weight": [[1.0, 0.0, 2.0], [0.0, -1.0, 1.0]],
        "layers.0.bias": [0.5, 0.0],
        "classifier.weight": [[1.0, 1.0], [0.0, 2.0]],
        "classifier.bias": [0.0, 1.0],
    }
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    # number 3, present, category 1: hidden = relu(3 + 2 + 0.5, 0 + 1) = (5.5, 1); logits = (6.5, 3)
    # number 0, missing, category 2: hidden = relu(0 - 2 + 0.5, -1 - 1) = (0, 0); logits = (0, 1)
    output = model(
        torch.tensor([[3.0], [0.0]]), torch.tensor([[0.0], [1.0]]), torch.tensor([[1], [2]]), torch.tensor([0, 1])
    )
    assert torch.allclose(output.logits, torch.tensor([[6.5, 3.0], [0.0, 1.0]]))
    expected = (torch.log1p(torch.exp(torch.tensor(-3.5))) + torch.log1p(torch.exp(torch.tensor(-1.0)))) / 2
    assert output.loss.item() == pytest.approx(expected.item())


def rows(features: list[dict[str, Any]], labels: list[str] | None = None) -> Dataset:
    labels = labels or ["a", "b"] * (len(features) // 2)
    return Dataset.from_dict({"id": [f"t:{i}" for i in range(len(features))], "features": features, "label": labels})


TABLE = [{"age": 20, "town": "x", "zip": "10"}, {"age": 40, "town": "y", "zip": "20"}] * 2


def test_numbers_are_standardised_and_categories_numbered() -> None:
    task = Tabular(Options(categories=["zip"]))
    task = task.fit(rows(TABLE), ModelConfig())
    assert task.state.columns.numbers == {"age": [30.0, 10.0]}
    assert task.state.columns.categories == {"town": ["x", "y"], "zip": ["10", "20"]}
    seen = {"features": [{"age": 50, "town": "y", "zip": "10"}, {"age": None, "town": "new", "zip": "?"}]}
    features = task.encode(seen)
    assert features == {
        "numbers": [[2.0], [0.0]],
        "missing": [[0.0], [1.0]],
        "categories": [[2, 1], [0, 0]],
        "row": [0, 1],
    }


@pytest.mark.parametrize("empty", [None, "", " NA ", "null", "?", float("nan")])
def test_a_missing_number_is_marked_and_not_a_category(empty: Any) -> None:
    task = Tabular(Options())
    cells = (
        [{"x": v} for v in ("1", "3", "1", "3")] if isinstance(empty, str) else [{"x": v} for v in (1.0, 3.0, 1.0, 3.0)]
    )
    task = task.fit(rows([*cells, {"x": empty}, {"x": empty}]), ModelConfig())
    assert task.state.columns.numbers == {"x": [2.0, 1.0]}
    assert task.encode({"features": [{"x": empty}]})["missing"] == [[1.0]]


WRONG = {
    "a text in a number column": ({"numbers": ["age"]}, [{"age": "old", "town": "x", "zip": "1"}], "age is 'old', not a number"),
    "a column that is gone": ({}, [{"age": "1", "town": "x"}], "has no column 'zip', which training had; it has age, town. Rename its columns, or add"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_does_not_fit_is_named(name: str) -> None:
    options, found, what = WRONG[name]
    task = Tabular(Options.model_validate(options))
    task = task.fit(rows(TABLE), ModelConfig())
    problems = task.check(rows(found, ["a"]), "test")
    assert what in str(problems[0])


def test_a_column_that_is_not_there_cannot_be_a_category() -> None:
    with pytest.raises(UserError, match="there is no column 'colour'"):
        Tabular(Options(categories=["colour"])).fit(rows(TABLE), ModelConfig())


def test_a_table_from_words_to_answers(llmft: Run, write: Callable[[str, str], Path], here: Path) -> None:
    """Numbers, categories and holes of a CSV; `eval` on a file with a value that training never saw."""
    lines = [
        f"{i % 7},{'红' if i % 2 else '蓝'},{'' if i % 5 == 0 else i},{'是' if i % 2 else '否'}" for i in range(200)
    ]
    write("t.csv", "size,颜色,n,答案\n" + "\n".join(lines) + "\n")
    words = (
        "+recipe=tabular_mlp",
        "dataset=csv",
        "dataset.train=t.csv",
        "dataset.columns.label=答案",
        "run.dir=run",
        "trainer.metric_for_best=loss",
    )
    code, _, err = llmft("finetune", *words)
    assert code == 0, err
    assert json.loads((here / "run/metrics.json").read_text())["test"]["accuracy"] == 1.0
    write("new.csv", "size,颜色,n,答案\n1,绿,3,是\n2,蓝,,否\n")
    code, _, err = llmft("eval", "run", "dataset=csv", "dataset.test=new.csv", "run.dir=again")
    assert code == 0, err
