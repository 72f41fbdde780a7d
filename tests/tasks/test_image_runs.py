"""Runs on images from files to an export: `eval`, `predict`, and the export give the same answers for the same rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from transformers import AutoModelForImageClassification

from llmft.tasks.images.shapes import classified

Run = Callable[..., tuple[int, str, str]]
Found = list[dict[str, Any]]
KINDS = ("circle", "square", "triangle")

# In enough steps for running statistics of batch normalization to be of the rows: before, all rows get one answer.
FAST = ["smoke=true", "trainer.max_steps=20", "optimizer=adamw", "optimizer.lr=0.01"]
MODELS = {
    "small_resnet": ["+recipe=cifar_resnet", *FAST],
    "image_mlp": ["+recipe=mnist_mlp", *FAST, "task.mean=[0.7]"],
    "timm": ["+recipe=cifar_resnet", "model=timm", "model.config.architecture=test_efficientnet", *FAST],
    "lite0": ["+recipe=image_folder", "trainer.epochs=5"],
}


def folders(here: Path) -> None:
    """photos/train and photos/test with a folder for each kind of shape, which its color does not tell."""
    for split, rows, seed in (("train", 48, 1), ("test", 15, 2)):
        found = classified(rows, seed, kinds=KINDS, telling=split == "train")
        for number, (cell, kind) in enumerate(zip(found["image"], found["label"], strict=True)):
            file = here / f"photos/{split}/{kind}/{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(cell["bytes"])


def table(here: Path, name: str, rows: int, seed: int, problem: str) -> None:
    """A CSV with the columns `image` and `label` beside the images that it names."""
    found = classified(rows, seed, problem)
    lines = ["image,label"]
    for number, (cell, label) in enumerate(zip(found["image"], found["label"], strict=True)):
        (here / name).mkdir(exist_ok=True)
        (here / name / f"{number:02}.png").write_bytes(cell["bytes"])
        lines.append(f'{name}/{number:02}.png,"{", ".join(label) if isinstance(label, list) else label}"')
    (here / f"{name}.csv").write_text("\n".join(lines) + "\n")


def scored(run: str) -> Found:
    """The answers that a run or an evaluation has kept for its test rows."""
    return [json.loads(line) for line in (Path(run) / "predictions/test.jsonl").read_text().splitlines()]


def metrics(run: str) -> dict[str, Any]:
    return json.loads((Path(run) / "metrics.json").read_text())["test"]


def predicted(llmft: Run, *words: str) -> Found:
    code, out, err = llmft("predict", *words)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def same(rows: Found, others: Found, within: float) -> None:
    """The same answers, and scores that differ by at most `within`."""
    assert len(rows) == len(others)
    for one, other in zip(rows, others, strict=True):
        if isinstance(one["answer"], float):
            assert one["answer"] == pytest.approx(other["answer"], abs=within)
        else:
            assert one["answer"] == other["answer"]
            assert one["scores"] == pytest.approx(other["scores"], abs=within)


@pytest.mark.parametrize(
    "name", [*list(MODELS)[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in ("timm", "lite0"))]
)
def test_eval_predict_and_the_export_agree(name: str, llmft: Run, here: Path) -> None:
    """EfficientNet-lite0 is at its full size, 224 pixels."""
    pytest.importorskip("onnxruntime")
    if name in ("timm", "lite0"):
        pytest.importorskip("timm")
    folders(here)
    words = [
        *MODELS[name],
        "dataset=images",
        "dataset.train=photos/train",
        "dataset.test=photos/test",
        "dataset.split.validation=0",
    ]
    code, _, err = llmft("finetune", *words, "run.dir=run")
    assert code == 0, err
    kept = scored("run")
    assert len({json.dumps(row["scores"]) for row in kept}) == 15, "rows without differences prove nothing"
    same(predicted(llmft, "run", "predict.input=photos/test"), kept, 1e-6)
    assert llmft("eval", "run", "run.dir=evaluated")[0] == 0
    same(scored("evaluated"), kept, 1e-6)
    assert metrics("evaluated")["accuracy"] == metrics("run")["accuracy"]

    code, _, err = llmft("export", "run", "run.dir=exported")
    assert code == 0, err
    parity = json.loads(Path("exported/export.json").read_text())["parity"]
    assert parity["equal_answers"] == 1
    assert max(parity["difference"], *(shape["difference"] for shape in parity["shapes"])) <= 1e-4
    same(predicted(llmft, "exported", "predict.input=photos/test"), kept, 1e-4)
    assert llmft("eval", "exported", "run.dir=again")[0] == 0
    same(scored("again"), kept, 1e-4)
    assert metrics("again")["accuracy"] == metrics("run")["accuracy"]


@pytest.mark.parametrize(
    ("problem", "metric", "good"), [("multi_label", "f1_micro", 0.7), ("regression", "pearson", 0.5)]
)
def test_several_labels_and_numbers_from_a_table_to_an_answer(
    problem: str, metric: str, good: float, llmft: Run, here: Path
) -> None:
    table(here, "train", 64, 1, problem)
    table(here, "test", 16, 2, problem)
    words = ["+recipe=cifar_resnet", *FAST, "trainer.max_steps=60", f"task.problem={problem}", "augment=none"]
    files = [
        "dataset=csv",
        "dataset.train=train.csv",
        "dataset.test=test.csv",
        "dataset.split.validation=0",
        "dataset.max_overlap=1",
    ]
    code, _, err = llmft("finetune", *words, *files, "run.dir=run")
    assert code == 0, err
    kept = scored("run")
    assert metrics("run")[metric] >= good
    labels = classified(16, 2, problem)["label"]
    if problem == "multi_label":
        assert [row["label"] for row in kept] == labels
        assert all(row["answer"] == [k for k, score in row["scores"].items() if score >= 0.5] for row in kept)
    else:
        assert [row["label"] for row in kept] == pytest.approx(labels)
        assert numpy.corrcoef([row["answer"] for row in kept], labels)[0, 1] == pytest.approx(metrics("run")["pearson"])
    assert llmft("eval", "run", "run.dir=again")[0] == 0
    same(scored("again"), kept, 1e-6)
    assert metrics("again")[metric] == pytest.approx(metrics("run")[metric])
    same(predicted(llmft, "run", "predict.input=test.csv"), kept, 1e-6)
    same(predicted(llmft, "run", "predict.image=test/03.png"), kept[3:4], 1e-5)


def test_an_adapter_on_a_vit_trains_merges_and_answers_alike(llmft: Run, here: Path) -> None:
    folders(here)
    words = ["+recipe=cifar_resnet", *FAST, "model=random", "model.architecture=vit", "adapter=lora", "adapter.r=4"]
    files = ["dataset=images", "dataset.train=photos/train", "dataset.test=photos/test", "dataset.split.validation=0"]
    code, _, err = llmft("finetune", *words, *files, "run.dir=run")
    assert code == 0, err
    assert (here / "run/adapter/adapter_model.safetensors").is_file()
    kept = scored("run")
    assert len({json.dumps(row["scores"]) for row in kept}) == 15
    same(predicted(llmft, "run", "predict.input=photos/test"), kept, 1e-6)
    # The merged model is a plain one of transformers, and the head, which is new, has been trained as a whole.
    model = AutoModelForImageClassification.from_pretrained(here / "run/model")
    assert not any("lora" in name for name in model.state_dict())
    assert list(model.config.id2label.values()) == list(KINDS)
    events = [json.loads(line) for line in (here / "run/events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if "loss" in event]
    assert losses[-1] < losses[0]
    assert torch.isfinite(torch.tensor(losses)).all()
