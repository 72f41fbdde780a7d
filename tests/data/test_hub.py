"""Data sets of the hub: what is done with what the hub gives, and the way out where there is no network."""

from typing import Any

import datasets
import pytest

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.load import load
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError
from tests.data.test_load import Texts

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


def test_without_a_network_the_way_out_is_said() -> None:
    with pytest.raises(UserError) as error:
        load(of(), Texts())
    text = str(error.value)
    assert "someone/reviews (train) cannot be read" in text
    assert "hf download --repo-type dataset someone/reviews" in text
