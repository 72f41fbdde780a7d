"""A run of a small RT-DETR: its answers as drawings, and its export, whose boxes may come in another order."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForObjectDetection

pytest.importorskip("faster_coco_eval")

from llmft import tasks
from llmft.cli import main
from llmft.config.load import load as compose
from llmft.data.pipeline import load as data
from llmft.models.build import build
from llmft.models.weights import load
from llmft.tasks.images.config import ObjectDetection
from llmft.tasks.images.shapes import KINDS, scenes
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run of the recipe."""
    folder = tmp_path_factory.mktemp("detection")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMFT_CACHE", str(folder / "cache"))
        words = ["+recipe=detection", "smoke=true", "trainer.keep_finished=true", f"run.dir={folder / 'run'}"]
        assert main(["finetune", *words]) == 0
    return folder / "run"


def test_checkpoints_have_the_names_of_the_model(trained: Path) -> None:
    """transformers writes RT-DETR's weights by other names: the best checkpoint, and a resumed run, could not be read."""
    model = AutoModelForObjectDetection.from_pretrained(trained / "model")
    best = max(trained.glob("checkpoint*/checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for weight in model.parameters():
        weight.data.zero_()
    load(model, best / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_predict_draws_the_answers(trained: Path, here: Path, llmft: Run) -> None:
    for number, cell in enumerate(scenes(2, seed=1)["image"]):
        (here / f"{number}.png").write_bytes(cell["bytes"])
    (here / "rows.jsonl").write_text(
        "".join(json.dumps({"image": name}) + "\n" for name in ("0.png", "1.png", "2.png"))
    )
    code, out, err = llmft("predict", str(trained), "predict.input=rows.jsonl", "predict.draw=drawn")
    assert code == 0, err
    first, second, missing = map(json.loads, out.splitlines())
    assert "2.png" in missing["error"]
    for name, answer in (("0", first), ("1", second)):
        assert Path(answer["drawing"]).name == f"{name}.png"
        drawn, image = Image.open(answer["drawing"]), Image.open(here / f"{name}.png")
        assert drawn.size == image.size
        assert (drawn.convert("RGB").tobytes() != image.convert("RGB").tobytes()) == bool(answer["answer"])
        for box in answer["answer"]:
            assert box.keys() == {"label", "score", "box"}
            assert box["box"][0] + box["box"][2] <= image.width + 0.02
    assert llmft("predict", str(trained), "predict.input=rows.jsonl", "predict.draw=drawn")[0] == 2  # has files


@pytest.mark.slow  # tracing RT-DETR takes half a minute
def test_an_export_finds_the_same_boxes(trained: Path, here: Path, llmft: Run) -> None:
    pytest.importorskip("onnxruntime")
    code, _, err = llmft("export", str(trained), "run.dir=exported")
    assert code == 0, err
    facts = json.loads((here / "exported/export.json").read_text())
    assert facts["inputs"]["pixel_values"]["shape"] == ["batch", 3, 64, 64]
    assert facts["outputs"]["pred_boxes"]["shape"] == ["batch", 20, 4]
    assert facts["parity"]["difference"] <= 1e-4
    assert {shape["inputs"]["pixel_values"][0] for shape in facts["parity"]["shapes"]} == {1, 2, 3, 5, 8}
    code, _, err = llmft("eval", "exported", "run.dir=again")
    assert code == 0, err
    again, before = (json.loads((folder / "metrics.json").read_text())["test"] for folder in (here / "again", trained))
    assert again["map"] == pytest.approx(before["map"], abs=1e-4)
    assert "loss" not in again  # it needs the queries and the matching of the model that was trained


def annotated(here: Path, split: str, rows: int, seed: int) -> None:
    """SPLIT/images/*.png with their boxes as COCO, Pascal VOC, YOLO, and CSV have them. The second has none."""
    found = scenes(rows, seed)
    found["boxes"][1] = []
    for part in ("images", "labels", "Annotations"):
        (here / split / part).mkdir(parents=True)
    tree: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    tree["categories"] = [{"id": number, "name": name} for number, name in enumerate(KINDS)]
    lines = ["image,label,xmin,ymin,xmax,ymax"]
    for number, (cell, boxes) in enumerate(zip(found["image"], found["boxes"], strict=True)):
        name, objects, shares = f"{number:02}", "", ""
        (here / split / f"images/{name}.png").write_bytes(cell["bytes"])
        tree["images"].append({"id": number, "file_name": f"{name}.png"})
        for box in boxes:
            (x, y, width, height), kind = box["box"], KINDS.index(box["label"])
            place = len(tree["annotations"]) + 1
            tree["annotations"].append({"id": place, "image_id": number, "category_id": kind, "bbox": box["box"]})
            sides = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + width}</xmax><ymax>{y + height}</ymax>"
            objects += f"<object><name>{box['label']}</name><bndbox>{sides}</bndbox></object>"
            # Of a side of 64, shares are exact.
            shares += f"{kind} {(x + width / 2) / 64} {(y + height / 2) / 64} {width / 64} {height / 64}\n"
            lines.append(f"images/{name}.png,{box['label']},{x},{y},{x + width},{y + height}")
        if not boxes:
            lines.append(f"images/{name}.png,,,,,")
        (here / split / f"labels/{name}.txt").write_text(shares)
        text = f"<annotation><filename>{name}.png</filename>{objects}</annotation>"
        (here / split / f"Annotations/{name}.xml").write_text(text)
    (here / split / "data.yaml").write_text(f"names: [{', '.join(KINDS)}]\n")
    (here / split / "coco.json").write_text(json.dumps(tree))
    (here / split / "boxes.csv").write_text("\n".join(lines) + "\n")


SOURCES = {"coco": "coco.json", "voc": "Annotations", "yolo": "images", "boxes": "boxes.csv"}


def test_the_same_boxes_in_every_format_train_the_same_model(llmft: Run, here: Path) -> None:
    for split, rows, seed in (("train", 10, 0), ("test", 6, 1)):
        annotated(here, split, rows, seed)
    words = ["+recipe=detection", "model=centernet", "optimizer.backbone_lr=null", "smoke=true", "trainer.max_steps=4"]
    found = {}
    for name, file in SOURCES.items():
        files = [f"dataset={name}", f"dataset.train=train/{file}", f"dataset.test=test/{file}"]
        code, _, err = llmft("finetune", *words, *files, "dataset.split.validation=0", f"run.dir={name}")
        assert code == 0, err
        metrics = json.loads((here / name / "metrics.json").read_text())
        answers = [json.loads(line) for line in (here / name / "predictions/test.jsonl").read_text().splitlines()]
        found[name] = (metrics["train"]["loss"], metrics["test"], [(a["label"], a["answer"]) for a in answers])
    assert len(found["coco"][2]) == 6
    assert found["voc"] == found["yolo"] == found["boxes"] == found["coco"]
    # The run evaluates rows of another format, and predict answers the images.
    code, _, err = llmft("eval", "coco", "dataset=voc", "dataset.test=test/Annotations", "run.dir=again")
    assert code == 0, err
    assert json.loads((here / "again/metrics.json").read_text())["test"] == found["coco"][1]
    code, out, err = llmft("predict", "coco", "predict.input=test/images")
    assert code == 0, err
    assert [json.loads(line)["answer"] for line in out.splitlines()] == [answer for _, answer in found["coco"][2]]


def test_a_test_split_without_any_box_is_scored_and_reported(llmft: Run, here: Path) -> None:
    for split, rows, seed in (("train", 6, 0), ("test", 3, 1)):
        annotated(here, split, rows, seed)
    tree = json.loads((here / "test/coco.json").read_text())
    (here / "test/coco.json").write_text(json.dumps(tree | {"annotations": []}))
    words = ["+recipe=detection", "model=centernet", "optimizer.backbone_lr=null", "smoke=true", "trainer.max_steps=1"]
    files = ["dataset=coco", "dataset.train=train/coco.json", "dataset.test=test/coco.json"]
    code, out, err = llmft("finetune", *words, *files, "dataset.split.validation=0", "run.dir=run")
    assert code == 0, err
    assert "test: no image has boxes, so that all scores of boxes are 0" in out
    assert json.loads((here / "run/metrics.json").read_text())["test"]["per_class"] == {}
    assert "Per label" not in (here / "run/report.html").read_text() + (here / "run/README.md").read_text()


@pytest.mark.parametrize("architecture", sorted(ObjectDetection.tiny_of))
def test_a_smoke_run_of_every_architecture_that_the_docs_name_trains(architecture: str) -> None:
    """One step of loss and gradient, and finite outputs."""
    words = ["+recipe=detection", "smoke=true", "model=random", f"model.architecture={architecture}"]
    config = compose("finetune", [*words, "optimizer.backbone_lr=null"])
    task = tasks.build(config.task)
    rows = data(config.dataset, task)["train"]
    task = task.fit(rows, config.model)
    model = build(config.model, task.head, task.model_kwargs()).train()
    loss = task.objective.loss(model, task.objective.collate(encode(task, rows).__getitems__([0, 1, 2, 3])))
    loss.backward()
    assert torch.isfinite(loss)
    trained = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in trained)
    assert len(trained) > 10
