"""A run with an adapter, from its announcement to what `eval` makes of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import transformers
from safetensors.torch import load_file

from llmft.models import adapters
from llmft.training.merging import LIMIT, relative

Run = Callable[..., tuple[int, str, str]]
SMOKE = ("finetune", "+recipe=bert_textcls", "smoke=true", "run.dir=run")


def read(file: Path) -> Any:
    return json.loads(file.read_text())


@pytest.mark.parametrize("kind", ["lora", "dora", "prefix"])
def test_eval_gives_the_numbers_of_training(kind: str, llmft: Run, here: Path) -> None:
    code, out, err = llmft(*SMOKE, f"adapter={kind}", "optimizer.lr=0.01", "trainer.keep_finished=true")
    assert (code, err) == (0, "")
    assert f"  adapter   {kind} of " in out
    assert "with the head, 0." in out
    metrics = read(here / "run/metrics.json")
    checkpoint = load_file(next((here / "run/checkpoints").iterdir()) / "model.safetensors")
    assert {name for name in checkpoint if "lora_" not in name and "prompt_encoder" not in name} == {
        f"{'base_model.' if kind == 'prefix' else ''}classifier.modules_to_save.default.{part}"
        for part in ("weight", "bias")
    }
    assert (here / "run/adapter/adapter_model.safetensors").is_file()
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert read(here / "again/metrics.json") == {split: metrics[split] for split in ("validation", "test")}
    for split in ("validation", "test"):
        first, second = (here / f"{folder}/predictions/{split}.jsonl" for folder in ("run", "again"))
        assert first.read_text() == second.read_text()
    card, plain = (here / "run/README.md").read_text(), transformers.AutoModelForSequenceClassification
    if kind == "prefix":
        assert "merged_rows" not in metrics["train"]
        assert "The prefix is not merged into the weights" in card
        assert read(here / "run/manifest.json")["weights"].keys() == {"base/model.safetensors"}
        with pytest.raises((OSError, ValueError)):
            plain.from_pretrained(here / "run/model")
    else:
        assert metrics["train"]["merged_rows"] == 16
        assert 0 < metrics["train"]["merged_difference"] < 1e-5
        assert metrics["train"]["merged_equal_answers"] == 1
        assert f"The adapter ({kind}) is merged into the weights" in card
        _, report = plain.from_pretrained(here / "run/model", output_loading_info=True)
        assert not any(report.values())


def test_a_table_can_have_one_too(llmft: Run, here: Path) -> None:
    code, out, err = llmft("finetune", "+recipe=tabular_mlp", "smoke=true", "adapter=lora", "run.dir=run")
    assert (code, err) == (0, "")
    assert "lora of rank 8 in 1 module (0)" in out


@pytest.mark.parametrize("problem", ["regression", "multi_label"])
def test_the_merged_model_answers_alike_whatever_is_asked(problem: str, llmft: Run, here: Path) -> None:
    code, _, err = llmft(*SMOKE, "adapter=lora", "optimizer.lr=0.01", f"task.problem={problem}")
    assert (code, err) == (0, "")
    assert read(here / "run/metrics.json")["train"]["merged_equal_answers"] == 1


def test_a_merged_model_that_answers_otherwise_is_no_model(llmft: Run, here: Path, monkeypatch: Any) -> None:
    plain = adapters.merge

    def faulty(model: Any) -> Any:
        found = plain(model)
        found.classifier.weight.data *= 1.01
        return found

    monkeypatch.setattr(adapters, "merge", faulty)
    code, _, err = llmft(*SMOKE, "adapter=lora")
    assert code == 1
    assert "failed: the merged model answers differently from the trained one: outputs differ by " in err
    assert (here / "run/adapter/adapter_model.safetensors").is_file()
    assert not (here / "run/model").exists()
    assert read(here / "run/manifest.json")["status"] == "failed"


def test_without_peft_it_says_how_to_get_it(llmft: Run, here: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmft.schema.problem.find_spec", lambda name: None)
    code, _, err = llmft(*SMOKE, "adapter=lora")
    assert code == 2
    assert "adapter  lora needs the package peft, which is not installed" in err
    assert "Install it: pip install 'llmft[peft]'" in err
    assert llmft(*SMOKE)[0] == 0


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [
        ([3.5, 3.0], [3.5, 3.0001], False),
        ([3.56], [3.62], True),
        ([0.0, 0.0], [0.0, 0.0], False),
        ([1.0, float("nan")], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, float("nan")], True),
        ([1.0, float("inf")], [1.0, 5.0], True),
    ],
)
def test_a_difference_that_is_no_number_is_one(before: list[float], after: list[float], fails: bool) -> None:
    assert (not relative(numpy.array(before), numpy.array(after)) <= LIMIT) == fails


def test_losses_are_compared_where_texts_are_written(llmft: Run, here: Path, monkeypatch: Any) -> None:
    """A small fault leaves the likeliest words as they are."""
    plain, words = adapters.merge, ("finetune", "+recipe=t5_translation", "smoke=true", "run.dir=run", "adapter=lora")

    def faulty(model: Any) -> Any:
        found = plain(model)
        found.lm_head.weight.data *= 1.005
        return found

    monkeypatch.setattr(adapters, "merge", faulty)
    code, _, err = llmft(*words, "trainer.max_steps=2")
    assert code == 1, err
    assert "failed: the merged model answers differently from the trained one: outputs differ by " in err
