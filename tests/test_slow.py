"""What takes minutes: `make test-slow`."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

from llmft.config.folders import shipped
from llmft.schema.metric import METRICS

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[int, str, str]]
SPLITS = ("train", "validation", "test")


def test_minilm_on_sst2(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """Three epochs, three seeds; about half an hour on two cores. Measured: 0.8891, 0.9001, 0.8880."""
    data = shared("sst2")
    files = [
        f"dataset.{split}={data / name}"
        for split, name in (("train", "train.csv"), ("validation", "dev.csv"), ("test", "test.csv"))
    ]
    found = []
    for seed in range(3):
        words = (
            "+recipe=bert_textcls",
            "dataset=csv",
            *files,
            "trainer.epochs=3",
            "trainer.batch_size=32",
            f"seed={seed}",
        )
        assert llmft("finetune", *words, f"run.dir={seed}")[0] == 0
        found.append(json.loads((here / f"{seed}/metrics.json").read_text())["test"]["accuracy"])
    assert mean(found) >= 0.88


IMAGES = [
    ("mnist", ["+recipe=mnist_mlp"], 0.93),
    ("mnist", ["+recipe=mnist_mlp", "model=image_cnn"], 0.965),
    ("cifar10_subset", ["+recipe=cifar_resnet"], 0.54),
    ("cifar10_subset", ["+recipe=image_folder", "task.size=96"], 0.72),
    ("hymenoptera", ["+recipe=image_folder"], 0.905),
    ("hymenoptera", ["+recipe=image_cls"], 0.93),
]


@pytest.mark.parametrize(
    ("name", "words", "least"), IMAGES, ids=lambda value: " ".join(value) if isinstance(value, list) else str(value)
)
def test_images(
    name: str, words: list[str], least: float, llmft: Run, shared: Callable[[str], Path], here: Path
) -> None:
    """Three seeds of the recipes as they are; a minute to ten each. Measured: docs/images.md."""
    pytest.importorskip("timm")
    data = shared(name)
    test = "val" if name == "hymenoptera" else "test"
    files = ["dataset=images", f"dataset.train={data / 'train'}", f"dataset.test={data / test}"]
    files = ["dataset=idx", f"dataset.path={data}"] if name == "mnist" else files
    found = []
    for seed in range(3):
        code, _, err = llmft("finetune", *words, *files, f"seed={seed}", f"run.dir={seed}")
        assert code == 0, err
        found.append(json.loads((here / f"{seed}/metrics.json").read_text())["test"]["accuracy"])
    assert mean(found) >= least


@pytest.mark.parametrize("model", ["rt_detr", "centernet"])
def test_detection_on_bccd(model: str, llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """The recipe as it is; five and three minutes of one thread. Measured: docs/images.md."""
    pytest.importorskip("faster_coco_eval")
    data = shared("bccd")
    names = zip(SPLITS, ("train", "val", "test"), strict=True)
    files = [f"dataset.{split}={data / 'coco' / name}.json" for split, name in names]
    words = ("dataset=coco", *files, f"dataset.images={data / 'VOC/JPEGImages'}", f"model={model}")
    code, _, err = llmft("finetune", "+recipe=detection", *words, "run.dir=run")
    assert code == 0, err
    found = json.loads((here / "run/metrics.json").read_text())["test"]
    assert found["map50"] >= 0.62
    assert found["map"] >= 0.27


def test_minilm_on_stsb(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """Three seeds; about eight minutes on two cores. Measured: 0.8349 ± 0.0020."""
    data = shared("stsb")
    files = [
        f"dataset.{split}={data / name}.tsv"
        for split, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
    ]
    found = []
    for seed in range(3):
        assert llmft("finetune", "+recipe=bert_sts", "dataset=csv", *files, f"seed={seed}", f"run.dir={seed}")[0] == 0
        found.append(json.loads((here / f"{seed}/metrics.json").read_text())["test"]["pearson"])
    assert mean(found) >= 0.82


def test_minilm_on_wnut17(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """Three seeds of the recipe as it is; about a quarter of an hour on two cores. Measured: 0.4440, 0.4326, 0.4450."""
    data = shared("wnut17")
    files = [
        f"dataset.{split}={data / name}.conll" for split, name in zip(SPLITS, ("train", "dev", "test"), strict=True)
    ]
    found = []
    for seed in range(3):
        assert llmft("finetune", "+recipe=bert_ner", "dataset=conll", *files, f"seed={seed}", f"run.dir={seed}")[0] == 0
        found.append(json.loads((here / f"{seed}/metrics.json").read_text())["test"]["f1"])
    assert mean(found) >= 0.42


def test_gpt_char_on_tiny_shakespeare(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """nanoGPT's setting for a CPU; about a minute on two cores. Measured: 1.8812."""
    text = (shared("tinyshakespeare") / "input.txt").read_bytes().decode()
    cut = len(text) * 9 // 10
    for name, part in (("train", text[:cut]), ("test", text[cut:])):
        (here / f"{name}.txt").write_bytes(part.encode())
    files = ("dataset.train=train.txt", "dataset.test=test.txt", "dataset.unit=file", "dataset.split.validation=0")
    assert llmft("pretrain", "+recipe=gpt_char", "dataset=text", *files, "run.dir=run")[0] == 0
    found = json.loads((here / "run/metrics.json").read_text())["test"]
    assert found["tokens"] == len(text) - cut + 1
    assert found["loss"] <= 1.91


@pytest.mark.parametrize("recipe", sorted(file.stem for file in shipped("recipes").glob("*.yaml")))
def test_a_recipe_keeps_its_promise(recipe: str, llmft: Run, here: Path) -> None:
    from llmft.config.load import load
    from llmft.front.recipes import command_of

    command = command_of(recipe)
    expect = load(command, [f"+recipe={recipe}"]).expect
    assert expect is not None
    assert llmft(command, f"+recipe={recipe}", "run.dir=run")[0] == 0
    found = json.loads((here / "run/metrics.json").read_text())["test"][expect.metric]
    assert found >= expect.at_least if METRICS[expect.metric] else found <= expect.at_least


def test_minilm_on_semeval(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """The recipe as it is, on SemEval-2010 Task 8; about eight minutes on two cores. Measured: 0.8416."""
    data = shared("semeval2010_task8")
    words = (
        "dataset=semeval",
        f"dataset.train={data / 'TRAIN_FILE.TXT'}",
        f"dataset.test={data / 'TEST_FILE_FULL.TXT'}",
    )
    code, _, err = llmft("finetune", "+recipe=bert_relation", *words, "run.dir=run")
    assert code == 0, err
    assert json.loads((here / "run/metrics.json").read_text())["test"]["semeval_f1"] >= 0.75


def test_the_mlp_on_adult(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    """The recipe as it is, on files of one's own. Measured: accuracy 0.8480, ROC AUC 0.9049."""
    data = shared("adult")
    words = ("dataset=csv", f"dataset.train={data / 'train.csv'}", f"dataset.test={data / 'test.csv'}")
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", *words, "dataset.columns.label=income", "run.dir=run")
    assert code == 0, err
    test = json.loads((here / "run/metrics.json").read_text())["test"]
    assert test["accuracy"] >= 0.845
    assert test["roc_auc"] >= 0.895
