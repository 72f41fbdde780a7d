"""What holds for every model of tables."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification

from llmft.models.build import build
from llmft.models.table_models import PiecewiseLinear
from llmft.schema.model import ModelConfig

Run = Callable[..., tuple[int, str, str]]
HEAD = "AutoModelForSequenceClassification"
COLUMNS = {"num_numbers": 2, "category_sizes": [3, 1]}
SIZES: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"hidden_sizes": [8], "dropout": 0.0},
    "ft_transformer": {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "attention_dropout": 0.0,
        "feed_forward_dropout": 0.0,
    },
}
# Training loss of six steps of the model with seed 0, in float32.
LOSSES = {
    "linear": [1.0986, 1.0463, 0.9989, 0.956, 0.9174, 0.8822],
    "mlp": [1.0986, 1.0773, 1.0534, 1.0255, 0.9938, 0.9591],
    "ft_transformer": [1.138, 1.3287, 1.0387, 1.0777, 0.9778, 0.9503],
}


BINS = {"bin_edges": [[-1.0, 0.0, 2.0], [0.0, 1.0]]}


def model(name: str, **needed: Any) -> transformers.PreTrainedModel:
    transformers.set_seed(0)
    wanted = ModelConfig(architecture=name, init="random", config=SIZES[name])
    return build(wanted, HEAD, {"num_labels": 3, **COLUMNS, **needed})


def batch(rows: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    missing = (torch.rand(rows, 2, generator=generator) < 0.2).float()
    sizes = (4, 2)
    return {
        "numbers": torch.randn(rows, 2, generator=generator) * (1 - missing),
        "missing": missing,
        "categories": torch.stack([torch.randint(size, (rows,), generator=generator) for size in sizes], dim=1),
    }


LABELS = {
    "single_label_classification": (3, torch.arange(16) % 3, torch.nn.functional.cross_entropy),
    "multi_label_classification": (
        3,
        (torch.arange(48).reshape(16, 3) % 2).float(),
        torch.nn.functional.binary_cross_entropy_with_logits,
    ),
    "regression": (1, torch.linspace(-1, 1, 16), lambda logits, labels: ((logits[:, 0] - labels) ** 2).mean()),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("problem", LABELS)
def test_the_loss_is_that_of_the_problem(name: str, problem: str) -> None:
    count, labels, expected = LABELS[problem]
    made = model(name, num_labels=count, problem_type=problem)
    output = made(**batch(), labels=labels)
    assert output.logits.shape == (16, count)
    assert output.loss.item() == pytest.approx(expected(output.logits, labels).item())
    assert made(**batch()).loss is None


@pytest.mark.parametrize("name", SIZES)
def test_six_steps_give_the_pinned_losses(name: str) -> None:
    made, labels = model(name), torch.arange(16) % 3
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.03)
    losses = []
    for _ in range(6):
        loss = made(**batch(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
    assert losses == pytest.approx(LOSSES[name], abs=2e-4)


def test_bins_by_hand() -> None:
    """Each bin's share below the number: full past its upper edge, empty before its lower one or where it is missing."""
    bins = PiecewiseLinear([[-1.0, 0.0, 2.0], [0.0, 1.0]])
    numbers = torch.tensor([[-0.75, 0.5], [1.5, 7.0], [-3.0, -0.1], [9.0, 0.0], [0.0, 0.0]])
    missing = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    expected = [[0.25, 0.0, 0.5], [1.0, 0.75, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert bins(numbers, missing).tolist() == expected


@pytest.mark.parametrize("name", SIZES)
def test_a_model_with_bins_can_tell_what_lies_between_two_edges(name: str) -> None:
    """Numbers from 0 to 2 are one class, those below and above the other, which no line parts."""
    torch.manual_seed(0)
    numbers = torch.linspace(-1, 2.9, 40)[:, None].repeat(1, 2)
    labels = ((numbers[:, 0] > 0) & (numbers[:, 0] < 2)).long()
    nothing = torch.zeros(40, 2)
    inputs = {"numbers": numbers, "missing": nothing, "categories": nothing.long()}
    made = model(name, num_labels=2, bin_edges=[[-1.0, 0.0, 0.1, 1.9, 2.0, 3.0], [0.0, 1.0]])
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1 if name == "linear" else 0.02)
    for _ in range(80):
        made(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert made.eval()(**inputs).logits.argmax(1).eq(labels).float().mean() >= 0.97


@pytest.mark.parametrize("name", SIZES)
def test_weights_of_versions_without_bins_have_none(name: str, here: Path) -> None:
    made = model(name)
    made.save_pretrained(here / "saved")
    facts = json.loads((here / "saved/config.json").read_text())
    facts.pop("bin_edges", None)
    (here / "saved/config.json").write_text(json.dumps(facts))
    again = AutoModelForSequenceClassification.from_pretrained(here / "saved")
    assert not hasattr(again, "bins")
    assert torch.equal(again(**batch()).logits, made.eval()(**batch()).logits)


def test_weights_without_bins_go_on_with_them(here: Path) -> None:
    """The edges are written where the weights lack them, and the first answers are those without bins."""
    before = model("ft_transformer").eval()
    before.save_pretrained(here / "saved")
    again = ModelConfig(path=str(here / "saved"), init="pretrained")
    made = build(again, HEAD, {"num_labels": 3, **COLUMNS, **BINS})
    assert made.bins.lower.tolist() == [-1.0, 0.0, 0.0]
    assert made.bins.width.tolist() == [1.0, 2.0, 1.0]
    assert made.bins.column.tolist() == [0, 0, 1]
    assert torch.equal(made.eval()(**batch()).logits, before(**batch()).logits)


@pytest.mark.parametrize("bins", [{}, BINS], ids=["", "bins"])
@pytest.mark.parametrize("name", SIZES)
def test_saved_weights_come_back(name: str, bins: dict[str, Any], here: Path) -> None:
    made = model(name, **bins)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    made.save_pretrained(here / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(here / "saved")
    assert torch.equal(again(**batch()).logits, made.eval()(**batch()).logits)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "columns", [{"num_numbers": 2, "category_sizes": []}, {"num_numbers": 0, "category_sizes": [3]}]
)
def test_numbers_or_categories_alone_are_enough(name: str, columns: dict[str, Any]) -> None:
    made = model(name, **columns)
    whole = batch()
    count, categories = columns["num_numbers"], len(columns["category_sizes"])
    inputs = {"numbers": whole["numbers"][:, :count], "missing": whole["missing"][:, :count]}
    made(**inputs, categories=whole["categories"][:, :categories], labels=torch.arange(16) % 3).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


@pytest.mark.parametrize(("recipe", "rate"), [("tabular_linear", 0.02), ("tabular_ft", 0.005)])
def test_a_recipe_runs_and_learns(recipe: str, rate: float, llmft: Run, here: Path) -> None:
    words = ("trainer.max_steps=60", "trainer.batch_size=32", "dataset.max_rows=256", f"optimizer.lr={rate}")
    code, _, err = llmft("finetune", f"+recipe={recipe}", "smoke=true", *words, "run.dir=run")
    assert code == 0, err
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.9
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert json.loads((here / "again/metrics.json").read_text())["test"] == metrics["test"]


def test_many_classes(llmft: Run, write: Callable[[str, str], Path], here: Path) -> None:
    """120 labels, each told by a category."""
    lines = [f"k{row % 120},{row % 7},label {row % 120}" for row in range(1200)]
    write("t.csv", "kind,n,label\n" + "\n".join(lines) + "\n")
    words = ("+recipe=tabular_linear", "dataset=csv", "dataset.train=t.csv", "dataset.max_overlap=1")
    more = ("optimizer.lr=0.3", "optimizer.weight_decay=0", "trainer.epochs=3", "run.dir=run")
    code, out, err = llmft("finetune", *words, *more)
    assert code == 0, err
    assert "120 labels" in out
    assert json.loads((here / "run/metrics.json").read_text())["test"]["accuracy"] == 1.0
