"""Data sets of the hub: what is done with what the hub gives, and the way out where there is no network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.data.read import TYPES_GUESSED, _download, read_hub
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from llmft.tasks.images.shapes import classified
from tests.data.test_pipeline import Texts

HUB = {"format": "hub", "path": "someone/reviews", "train": "train", "test": "test", "split": {"validation": 0}}


def of(**keys: Any) -> DatasetConfig:
    return DatasetConfig.model_validate(HUB | keys)


def test_classes_come_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(path: str, subset: str | None, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((path, subset, split, revision))
        features = datasets.Features(
            {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["差", "好"])}
        )
        rows = {"sentence": [f"{split} {i}" for i in range(4)], "label": [0, 1, 1, 0]}
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load(of(subset="zh", revision="abc", columns={"text": "sentence"}), Texts())
    assert data["train"]["label"][:] == ["差", "好", "好", "差"]
    assert data["test"]["id"][:] == ["test:1", "test:2", "test:3", "test:4"]
    assert asked == [("someone/reviews", "zh", "train", "abc"), ("someone/reviews", "zh", "test", "abc")]


def test_so_do_those_of_each_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*_: Any, split: str, **__: Any) -> datasets.Dataset:
        tags = datasets.ClassLabel(names=["O", "B-地点"])
        features = datasets.Features(
            {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(tags)}
        )
        return datasets.Dataset.from_dict({"tokens": [[split, "北京"]], "ner_tags": [[0, 1]]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    task = tasks.build(compose("finetune", ["+recipe=bert_ner"]).task)
    data = load(of(columns={"tags": "ner_tags"}), task)
    assert data["train"]["tags"][:] == [["O", "B-地点"]]


def test_a_row_without_a_class_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hidden test splits of the hub label every row -1."""

    def fake(*_: Any, split: str, **__: Any) -> datasets.Dataset:
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
        labels = [-1, -1] if split == "test" else [0, 1]
        return datasets.Dataset.from_dict({"text": [f"{split}x", f"{split}y"], "label": labels}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    with pytest.raises(UserError, match=r"test:1 +has no label"):
        load(of(), Texts())


CELLS = ["007", "NA", "0.12345678901234567", "2024-05-03", "1e5", "null", " 3", "1_000"]
README = """---
configs:
- config_name: plain
  data_files: [{split: train, path: "*.train.csv"}]
- config_name: semi
  sep: ";"
  names: [text, label]
  data_files: [{split: train, path: "semi.dat.csv"}]
- config_name: skipped
  skiprows: 1
  data_files: [{split: train, path: "skipped.csv"}]
dataset_info:
- config_name: plain
  features: [{name: text, dtype: string}, {name: label, dtype: {class_label: {names: {"0": bad, "1": good}}}}]
---
"""


@pytest.fixture
def repository(write: Callable[..., Path]) -> str:
    """A folder as a repository of the hub is: files, and a README that says how to read them."""
    write("repo/README.md", README)
    write("repo/a.train.csv", "text,label\n" + "".join(f'"{cell}",{i % 2}\n' for i, cell in enumerate(CELLS)))
    rows = [{"text": cell, "label": i % 2, "n": 0.12345678901234567} for i, cell in enumerate(CELLS)]
    write("objects/b.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    write("lines/c.txt", "".join(f"{cell}\r\n" for cell in CELLS))
    write("repo/semi.dat.csv", "Yes, sir;007\nno;NA\n")
    write("repo/skipped.csv", "by somebody\ntext,label\na,x\nb,y\n")
    return "repo"


def test_files_of_a_repository_are_read_as_files_are(repository: str) -> None:
    csv = read_hub(of(path=repository, subset="plain"), "train", "train")
    assert csv.columns == {"text": CELLS, "label": ["bad", "good"] * 4}
    assert (csv.ids[0], csv.left_out) == ("a.train.csv:2", {})
    jsonl = read_hub(of(path="objects"), "train", "train")
    assert jsonl.columns == {"text": CELLS, "label": [0, 1] * 4, "n": [0.12345678901234567] * 8}
    assert read_hub(of(path="lines"), "train", "train").columns == {"text": CELLS}
    semi = read_hub(of(path=repository, subset="semi"), "train", "train")
    assert semi.columns == {"text": ["Yes, sir", "no"], "label": ["007", "NA"]}


def test_what_only_datasets_can_read_is_said(repository: str, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(here / "cache"))
    table = read_hub(of(path=repository, subset="skipped"), "train", "train")
    assert table.columns == {"text": ["a", "b"], "label": ["x", "y"]}
    assert table.left_out == {TYPES_GUESSED: 2}


def test_a_file_of_the_hub_is_fetched_by_its_revision(
    monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    asked = []

    def fake(*names: str, **keys: str) -> str:
        asked.append((names, keys))
        return str(write("blob.csv", "a\n"))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    place = _download("hf://datasets/someone/reviews@refs%2Fpr%2F1/data/train.csv")
    assert place == (Path("blob.csv").resolve(), "data/train.csv")
    assert asked == [(("someone/reviews", "data/train.csv"), {"repo_type": "dataset", "revision": "refs/pr/1"})]


def test_without_a_network_the_way_out_is_said() -> None:
    with pytest.raises(UserError) as error:
        load(of(), Texts())
    text = str(error.value)
    assert "someone/reviews (train) cannot be read" in text
    assert "hf download --repo-type dataset someone/reviews" in text


def test_images_come_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = classified(4, seed=0)["image"]

    def fake(*_: Any, split: str, **__: Any) -> datasets.Dataset:
        features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        part = cells[:2] if split == "train" else cells[2:]
        return datasets.Dataset.from_dict({"img": part, "label": [0, 1]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    task = tasks.build(compose("finetune", ["+recipe=image_cls"]).task)
    data = load(of(columns={"image": "img"}), task)
    assert data["train"]["image"][:] == cells[:2]
    assert data["test"]["label"][:] == ["cat", "dog"]
