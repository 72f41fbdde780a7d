"""The simple model beside the trained one: what it scores, when it is fitted, and that it changes nothing else."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.models.boosting import BoostingConfig, BoostingForClassification
from llmft.schema.problem import UserError
from llmft.tasks.text import tfidf
from llmft.training import comparisons as module
from llmft.training.comparisons import baseline
from llmft.training.evaluation import Split
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]

TOKENS = {
    "It's 3.5 kg": ["It", "s", "3", "5", "kg"],
    "手机很好 good": ["手", "机", "很", "好", "good"],
    "Ёлка, naïve": ["Ёлка", "naïve"],
    "ありがとう": ["あ", "り", "が", "と", "う"],
    "ไทย": ["ไ", "ท", "ย"],
}


@pytest.mark.parametrize("text", TOKENS)
def test_words_of_any_script(text: str) -> None:
    assert re.findall(tfidf.TOKEN, text) == TOKENS[text]


def test_pairs_are_compared() -> None:
    texts = [["a dog runs", "a cat sleeps"], ["a dog runs", "birds sing"]]
    cells = tfidf.matrices({"train": texts}, 2)["train"].toarray()
    assert cells[:, -1] == pytest.approx([1.0, 0.0])


def test_a_label_without_rows_is_unlikely() -> None:
    cells = tfidf.matrices({"train": [["good", "bad", "good", "bad"]], "test": [["good"]]}, 3)
    found = tfidf.logits_of_one(cells, numpy.array([2, 0, 2, 0]), None, 3)["test"]
    assert found.argmax() == 2
    assert found[0, 1] == pytest.approx(-numpy.log(4))
    alone = tfidf.logits_of_one(cells, numpy.array([1, 1, 1, 1]), None, 2)["test"]
    assert alone[0].tolist() == [pytest.approx(-numpy.log(4)), 0.0]


def prepared(recipe: str, *words: str) -> tuple[Any, Any, Any, dict[str, Split]]:
    config = compose("finetune", [f"+recipe={recipe}", "smoke=true", "dataset.max_rows=200", *words])
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    task = task.fit(data["train"], config.model)
    return config, task, {name: Split(rows, encode(task, rows)) for name, rows in data.splits.items()}


PROBLEMS = {"single_label": ("accuracy", 0.9), "multi_label": ("f1_micro", 0.9), "regression": ("pearson", 0.8)}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("recipe", ["bert_textcls", "tabular_mlp"])
def test_every_problem_has_one_that_learns_the_synthetic_rows(recipe: str, problem: str) -> None:
    weighed = ["task.class_weights=balanced", "task.threshold=f1"] if problem != "regression" else []
    config, task, splits = prepared(recipe, f"task.problem={problem}", "task.baseline=true", *weighed)
    model, before = torch.nn.Linear(1, 1), torch.random.get_rng_state()
    found = baseline(config, task, model, splits, first=True)
    assert found is not None
    metric, good = PROBLEMS[problem]
    assert found.scores["test"][metric] >= good
    assert set(found.scores) == {"validation", "test"}
    assert torch.equal(before, torch.random.get_rng_state())
    again = baseline(config, task, model, splits, first=True)
    assert again is not None
    assert again.scores == found.scores


def test_of_a_table_it_is_what_model_boosting_gives(llmft: Run, here: Path) -> None:
    words = ("smoke=true", "dataset.max_rows=120", "task.baseline=true")
    assert llmft("finetune", "+recipe=tabular_mlp", *words, "run.dir=mlp")[0] == 0
    options = ("model.config={max_iter: 500, max_leaf_nodes: 15, min_samples_leaf: 5}", "run.dir=trees")
    assert llmft("finetune", "+recipe=tabular_boosting", *words[:2], *options)[0] == 0
    beside, alone = (json.loads((here / run / "metrics.json").read_text()) for run in ("mlp", "trees"))
    for name, value in beside["baseline"]["test"].items():
        assert value == pytest.approx(alone["test"][name], abs=1e-6)
    assert "baseline" not in alone
    assert beside["train"]["baseline_seconds"] > 0
    report = (here / "mlp/report.html").read_text()
    assert "Model and baseline on" in report
    assert "gradient boosting" in report


STREAMED = (
    "dataset=csv",
    "dataset.train=t.csv",
    "dataset.validation=v.csv",
    "dataset.test=v.csv",
    "dataset.streaming=true",
)
CASES = {
    (): True,
    ("task.baseline=false",): False,
    ("smoke=true",): False,
    ("smoke=true", "task.baseline=true"): True,
    (*STREAMED,): False,
    ("model=boosting",): False,
    ("model=boosting", "task.baseline=true"): True,
}


@pytest.mark.parametrize("words", CASES)
def test_when_it_is_fitted(words: tuple[str, ...]) -> None:
    config = compose("finetune", ["+recipe=tabular_mlp", *words])
    trees = BoostingForClassification(BoostingConfig(num_labels=2))
    model = trees if config.model.name.endswith("boosting") else torch.nn.Linear(1, 1)
    assert module.wants_baseline(config, model, 50_000, first=True) is CASES[words]
    asked = config.task.baseline is True  # type: ignore[attr-defined]
    assert module.wants_baseline(config, model, 50_001, first=True) is asked
    assert module.wants_baseline(config, model, 10, first=False) is asked


def test_a_stream_has_none() -> None:
    words = [
        "+recipe=tabular_mlp",
        "dataset=csv",
        "dataset.train=t.csv",
        "dataset.streaming=true",
        "task.baseline=true",
    ]
    with pytest.raises(UserError, match="a baseline needs all rows in memory"):
        compose("finetune", words)


def test_a_run_does_not_fail_by_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config, task, splits = prepared("tabular_mlp", "task.baseline=true")

    def broken(*_: Any) -> Any:
        raise ValueError("no such thing")

    monkeypatch.setattr(type(task), "baseline", broken)
    assert baseline(config, task, torch.nn.Linear(1, 1), splits, first=True) is None
    assert "there is no baseline, it could not be fitted: no such thing" in capsys.readouterr().out
    splits = {"train": replace(splits["train"])}
    monkeypatch.undo()
    found = baseline(config, task, torch.nn.Linear(1, 1), splits, first=True)
    assert found is not None
    assert found.scores == {}


@pytest.mark.slow
def test_a_sweep_fits_one_for_each_fold_and_the_weights_are_the_same(
    llmft: Run, write: Callable[[str, str], Path], here: Path
) -> None:
    write("t.csv", "n,m,label\n" + "".join(f"{i * 7 % 50},{i % 3},{'ab'[i * 7 % 50 > 20]}\n" for i in range(100)))
    words = ("+recipe=tabular_linear", "dataset=csv", "dataset.train=t.csv", "trainer.max_steps=2")
    sweep = [sys.executable, "-m", "llmft", "finetune", "-m", *words, "dataset.folds=2", "seed=0,1", "run.dir=folds"]
    out = subprocess.run(sweep, check=True, capture_output=True, text=True, cwd=here).stdout
    assert re.search(r"baseline   gradient boosting: accuracy [\d.]+ ± [\d.]+ \(validation\)", out)
    jobs = json.loads((here / "folds/summary.json").read_text())["jobs"]
    first = [(job["values"]["seed"], job["values"]["dataset.fold"]) for job in jobs if job["baseline"]]
    assert first == [(0, 0), (0, 1)]
    alone = ("dataset.folds=2", "dataset.fold=0", "run.dir=alone", "task.baseline=false")
    assert llmft("finetune", *words, *alone)[0] == 0
    weights = [here / job["folder"] for job in [{"folder": "alone"}, {"folder": f"folds/{jobs[0]['folder']}"}]]
    digests = [json.loads((folder / "manifest.json").read_text())["weights"] for folder in weights]
    assert digests[0] == digests[1]
