"""A run on folders of images and masks: eval, predict, and export say the same."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from llmft.cli import main
from llmft.data.masks import from_text, read_mask, write_mask
from llmft.tasks.images import shapes

Run = Callable[..., tuple[int, str, str]]
SIZES = [(64, 64), (50, 64), (64, 40), (30, 45)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, with masks of 0 and 255 for what is there; lists of names."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    found = shapes.scenes(36, 0, telling=True)
    for number, (image, mask) in enumerate(zip(found["image"], found["mask"], strict=True)):
        width, height = SIZES[number % len(SIZES)]
        picture = Image.open(io.BytesIO(image["bytes"])).crop((0, 0, width, height))
        picture.save(folder / f"images/{number:02}.png")
        white = (read_mask(mask).values[:height, :width] > 0).astype(numpy.uint8) * 255
        Image.fromarray(white).save(folder / f"masks/{number:02}.png")
    for split, numbers in (("train", range(24)), ("test", range(24, 36))):
        (folder / f"{split}.txt").write_text("".join(f"{number:02}\n" for number in numbers))
    return folder


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    files = ["dataset=masks", f"dataset.train={data}/train.txt", f"dataset.test={data}/test.txt"]
    words = ["smoke=true", "trainer.max_steps=20", "task.fit=pad", "task.labels=[ground,thing]"]
    assert main(["finetune", "+recipe=segmentation", *files, *words, f"run.dir={data}/run"]) == 0
    return data / "run"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_run_has_answers_of_the_size_of_their_images(run: Path, data: Path) -> None:
    task = json.loads((run / "model/task.json").read_text())
    assert (task["labels"], task["values"], task["ignored"]) == (["ground", "thing"], [0, 255], None)
    answers = lines(run / "predictions/test.jsonl")
    assert [answer["id"] for answer in answers] == [f"images/{number}.png" for number in range(24, 36)]
    for answer in answers:
        mask = from_text(answer["mask"])
        assert mask.shape[::-1] == Image.open(data / answer["id"]).size
        assert answer["answer"]["thing"] == pytest.approx((mask == 1).mean())
        truth = read_mask({"path": str(data / "masks" / Path(answer["id"]).name), "bytes": None}).values
        assert numpy.array_equal(from_text(answer["label"]["mask"]), truth // 255)
    # The pooled IoU, by hand.
    pairs = [(from_text(answer["mask"]) == 1, from_text(answer["label"]["mask"]) == 1) for answer in answers]
    both = sum((one & other).sum() for one, other in pairs)
    either = sum((one | other).sum() for one, other in pairs)
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    assert metrics["iou"] == pytest.approx(both / either)
    assert metrics["dice"] == pytest.approx(2 * both / (both + either))


def test_predict_gives_the_same_answers_and_writes_masks(run: Path, data: Path, here: Path, llmft: Run) -> None:
    names = [f"{data}/images/{number}.png" for number in range(24, 36)]
    (here / "rows.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in [*names, names[0]]))
    code, out, err = llmft("predict", str(run), "predict.input=rows.jsonl", "predict.masks=masks")
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    for answer, kept in zip(answers, lines(run / "predictions/test.jsonl"), strict=False):
        found = read_mask({"path": answer["mask"], "bytes": None})
        assert found.labels == ["ground", "thing"]
        assert numpy.array_equal(found.values, from_text(kept["mask"]))
    assert [Path(answer["mask"]).name for answer in answers] == [
        *(f"{number}.png" for number in range(24, 36)),
        "24-2.png",  # the same image again: nothing is written over
    ]
    # They can be trained on: the names are in the files.
    assert Image.open(here / "masks/24.png").mode == "P"
    code, _, err = llmft("predict", str(run), "predict.input=rows.jsonl", "predict.masks=masks")
    assert code == 2
    assert "has files already" in err


def test_only_answers_with_masks_can_be_written_as_masks(llmft: Run, here: Path) -> None:
    (here / "rows.csv").write_text("text\nx\n")
    words = ["+recipe=bert_textcls", "smoke=true", "trainer.max_steps=1", "run.dir=text"]
    assert llmft("finetune", *words)[0] == 0
    code, _, err = llmft("predict", "text", "predict.input=rows.csv", "predict.masks=masks")
    assert code == 2
    assert "have no masks" in err


@pytest.mark.parametrize("model", ["unet", pytest.param("small_segformer", marks=pytest.mark.slow)])
def test_an_export_agrees_pixel_by_pixel(run: Path, data: Path, here: Path, llmft: Run, model: str) -> None:
    pytest.importorskip("onnxruntime")
    if model != "unet":
        words = ["+recipe=segmentation", f"model={model}", "smoke=true", "trainer.max_steps=2", "run.dir=run"]
        assert llmft("finetune", *words)[0] == 0
        run = here / "run"
    code, _, err = llmft("export", str(run), "run.dir=exported")
    assert code == 0, err
    facts = json.loads((here / "exported/export.json").read_text())
    assert facts["outputs"]["logits"]["shape"][:2] == ["batch", 2 if model == "unet" else 4]
    parity = facts["parity"]
    assert max(parity["difference"], *(shape["difference"] for shape in parity["shapes"])) <= 1e-4
    code, _, err = llmft("eval", "exported", "run.dir=again")
    assert code == 0, err
    first, second = (json.loads((folder / "metrics.json").read_text())["test"] for folder in (run, here / "again"))
    assert first["iou"] == pytest.approx(second["iou"], abs=1e-3)
    # The same pixels in the answers of the run, of eval and predict of the export, for images of four sizes.
    (here / "rows.jsonl").write_text(
        "".join(json.dumps({"image": f"{data}/images/{number}.png"}) + "\n" for number in range(24, 36))
    )
    code, out, err = llmft("predict", "exported", "predict.input=rows.jsonl")
    assert code == 0, err
    found = [lines(run / "predictions/test.jsonl"), lines(here / "again/predictions/test.jsonl")]
    found = [found[0][:12], found[1][:12], [json.loads(line) for line in out.splitlines()]]
    if model == "unet":
        for kept, again, asked in zip(*found, strict=True):
            mask = from_text(kept["mask"])
            for other in (again, asked):
                # Where two labels are nearly equal, the sixth digit may decide.
                assert (from_text(other["mask"]) != mask).mean() <= 1e-3
                assert other["answer"] == pytest.approx(kept["answer"], abs=1e-3)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: (data / "masks/03.png").unlink(), "has no mask 03 in"),
        (lambda data: Image.new("L", (9, 9)).save(data / "masks/03.png"), "has 9 x 9 pixels, and its image 30 x 45"),
        (lambda data: Image.new("RGB", (30, 45)).save(data / "masks/03.png"), "has RGB colors and no indices"),
        (
            lambda data: Image.new("L", (30, 45), 7).save(data / "masks/03.png"),
            "and 1, 2, 3, 4, 5, 6 never occur in train",
        ),
        (lambda data: (data / "masks/03.png").write_bytes(b""), "is empty"),
        (
            lambda data: (data / "masks/03.png").write_bytes(write_mask(numpy.zeros((45, 30), numpy.uint8))[:60]),
            "03.png is broken",
        ),
    ],
)
def test_what_is_wrong_is_told_before_training(data: Path, here: Path, llmft: Run, spoil: Any, why: str) -> None:
    shutil.copytree(data, here / "copy", ignore=shutil.ignore_patterns("run"))
    spoil(here / "copy")
    words = ["+recipe=segmentation", "smoke=true", "dataset=masks", "dataset.train=copy/train.txt", "run.dir=run"]
    code, _, err = llmft("finetune", *words, "dataset.test=copy/test.txt")
    assert code == 2
    assert why in err
    assert not (here / "run").exists()


def test_runs_of_pixels_train_the_model_that_masks_train(data: Path, here: Path, llmft: Run) -> None:
    found = []
    for split, numbers in (("train", range(24)), ("test", range(24, 36))):
        table = ["ImageId,EncodedPixels"]
        for number in numbers:
            image = f"{number:02}"
            down = (read_mask({"path": str(data / f"masks/{image}.png"), "bytes": None}).values > 0).T.ravel()
            # Where a run starts, and where the next pixel is none of it; counted from 1.
            edges = numpy.flatnonzero(numpy.diff(down, prepend=False, append=False)) + 1
            runs = " ".join(f"{start} {end - start}" for start, end in edges.reshape(-1, 2))
            table.append(f"{image},{runs}")
        (here / f"{split}.csv").write_text("\n".join(table) + "\n")
    for name, file in {"masks": f"{data}/{{}}.txt", "runs": "{}.csv"}.items():
        files = [f"dataset={name}", *(f"dataset.{split}={file.format(split)}" for split in ("train", "test"))]
        more = ["task.labels=[background,foreground]"] if name == "masks" else [f"dataset.images={data}/images"]
        words = ["+recipe=segmentation", "smoke=true", "trainer.max_steps=3", "dataset.split.validation=0"]
        code, _, err = llmft("finetune", *words, *files, *more, f"run.dir={name}")
        assert code == 0, err
        metrics = json.loads((here / name / "metrics.json").read_text())
        answers = [(row["label"], row["answer"], row["mask"]) for row in lines(here / name / "predictions/test.jsonl")]
        found.append((metrics["train"]["loss"], metrics["test"], answers))
    assert len(found[0][2]) == 12
    assert found[0] == found[1]
