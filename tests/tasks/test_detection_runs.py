"""A run of a small RT-DETR: its answers as drawings, and its export, whose boxes may come in another order."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForObjectDetection

pytest.importorskip("faster_coco_eval")

from llmft.cli import main
from llmft.models.weights import load
from llmft.tasks.images.shapes import scenes

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
