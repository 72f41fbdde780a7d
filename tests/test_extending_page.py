"""docs/extending.md: its package is made as the page shows it, found by its entry point, trained and scored."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmft.schema.tasks import plugins

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PAGE = (Path(__file__).resolve().parents[1] / "docs/extending.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def package(write: Write, here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of the page, installed as far as Python can tell."""
    (point,) = re.findall(r'^(urgency) = "(.*)"$', block("toml"), re.MULTILINE)
    write("site/my_package/__init__.py", block("python"))
    write("site/my_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    write("site/my_package-1.0.dist-info/entry_points.txt", f"[llmft.tasks]\n{point[0]} = {point[1]}\n")
    monkeypatch.syspath_prepend(str(here / "site"))
    plugins.cache_clear()
    yield
    plugins.cache_clear()
    sys.modules.pop("my_package", None)


def test_the_task_of_the_page_is_trained_and_scored(package: None, llmft: Run, write: Write, here: Path) -> None:
    labels = ("low", "normal", "high")
    write("urgent.csv", "text,label\n" + "".join(f"ticket {i} {labels[i % 3]},{labels[i % 3]}\n" for i in range(90)))
    words = shlex.split(block("sh"))
    code, out, err = llmft(*words[1:], "smoke=true", "trainer.max_steps=1", "run.dir=run")
    assert code == 0, err
    found = json.loads((here / "run/metrics.json").read_text())["test"]["mean_steps"]
    answers = [json.loads(line) for line in (here / "run/predictions/test.jsonl").read_text().splitlines()]
    steps = [abs(labels.index(row["answer"]) - labels.index(row["label"])) for row in answers]
    assert found == pytest.approx(sum(steps) / len(steps))
    assert "mean_steps" in out
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
