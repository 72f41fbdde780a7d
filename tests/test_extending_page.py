"""docs/extending.md: its package is made as the page shows it, found by its entry point, trained and scored."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PAGE = (Path(__file__).resolve().parents[1] / "docs/extending.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def package(install: Callable[..., None]) -> None:
    """The package of the page."""
    (point,) = tomllib.loads(block("toml"))["project"]["entry-points"]["llmft.tasks"].items()
    install("my_package", block("python"), *point)


def test_the_task_of_the_page_is_trained_and_scored(package: None, llmft: Run, write: Write, here: Path) -> None:
    labels = ("low", "normal", "high")
    write("urgent.csv", "text,label\n" + "".join(f"ticket {i} {labels[i % 3]},{labels[i % 3]}\n" for i in range(90)))
    words = shlex.split(block("sh"))
    picks = (
        "trainer.max_steps=6",
        "trainer.eval_every=2",
        "trainer.save_every=2",
        "trainer.metric_for_best=mean_steps",
    )
    code, out, err = llmft(*words[1:], "smoke=true", *picks, "optimizer.lr=0.01", "run.dir=run")
    assert code == 0, err
    found = json.loads((here / "run/metrics.json").read_text())["test"]["mean_steps"]
    answers = [json.loads(line) for line in (here / "run/predictions/test.jsonl").read_text().splitlines()]
    steps = [abs(labels.index(row["answer"]) - labels.index(row["label"])) for row in answers]
    assert found == pytest.approx(sum(steps) / len(steps))
    assert "mean_steps" in out
    events = [json.loads(line) for line in (here / "run/events.jsonl").read_text().splitlines()]
    seen = [event["mean_steps"] for event in events if event["split"] == "validation"]
    best = json.loads((here / "run/metrics.json").read_text())["validation"]["mean_steps"]
    assert (len(seen), best) == (3, min(seen))
    assert max(seen) > best, "else the test says nothing"
    code, _, err = llmft(*words[1:], "smoke=true", "++task.distanc=1")
    assert (code, "Did you mean task.distance?" in err) == (2, True)


def test_its_loss_is_the_cross_entropy_and_the_expected_steps(package: None, here: Path) -> None:
    """Two rows, three labels, worked out by hand: equal logits expect 1 step from a label at the end, 2/3 from the middle."""
    import torch
    from my_package import Urgency, UrgencyConfig
    from transformers.modeling_outputs import SequenceClassifierOutput

    def model(labels: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(loss=torch.tensor(1.0), logits=torch.zeros(2, 3))

    loss = Urgency(UrgencyConfig(distance=3.0)).objective.loss(model, {"labels": torch.tensor([0, 1])})
    assert loss.item() == pytest.approx(1.0 + 3.0 * (1 + 2 / 3) / 2)
