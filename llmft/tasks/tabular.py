"""One label of many for a row of a table; llmft.tasks.columns has what is done with its columns."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from datasets import Dataset

from llmft.schema import task as schema
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem
from llmft.tasks import labels
from llmft.tasks.columns import TableColumns, learn_columns
from llmft.tasks.facts import read_facts, write_facts
from llmft.tasks.task import Answer, Features, Task


@dataclass
class TableState:
    """What was learnt of the labels and of each column."""

    labels: list[str]
    columns: TableColumns

    def save(self, folder: Path) -> None:
        facts = asdict(self)
        write_facts(folder, facts | facts.pop("columns"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_facts(folder)
        columns = {part.name: facts.pop(part.name) for part in fields(TableColumns) if part.name in facts}
        return cls(columns=TableColumns(**columns), **facts)


class Tabular(Task[TableState]):
    """Is a tumour malignant, does a customer leave, what earns a household?"""

    config = schema.Tabular
    columns: ClassVar = {"features": Column("features"), "label": Column("label")}
    head = "AutoModelForSequenceClassification"
    state = TableState

    def __init__(self, config: schema.Tabular) -> None:
        self.options = config

    def fit(self, train: Dataset, model: ModelConfig) -> TableState:
        columns = learn_columns(train["features"][:], self.options)
        return TableState(labels.learn(train["label"][:], self.options.labels), columns)

    def needed(self, state: TableState) -> dict[str, Any]:
        columns = state.columns
        sizes = {"num_numbers": columns.num_numbers, "category_sizes": columns.category_sizes}
        return labels.needed(state.labels) | sizes

    def check(self, rows: Dataset, state: TableState, split: str) -> list[Problem]:
        return state.columns.check(rows, split) + labels.check(rows, state.labels, split)

    def notes(self, state: TableState) -> list[str]:
        return state.columns.notes()

    def encode(self, rows: dict[str, list[Any]], state: TableState) -> Features:
        encoded = state.columns.encode(rows["features"])
        features: Features = {key: values.tolist() for key, values in encoded._asdict().items()}
        features["row"] = list(range(len(rows["features"])))
        if "label" in rows:
            places = {name: place for place, name in enumerate(state.labels)}
            features["labels"] = [places[label] for label in rows["label"]]
        return features

    def collator(self, state: TableState) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        kinds = {"numbers": torch.float32, "missing": torch.float32, "categories": torch.long, "labels": torch.long}

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            return {key: torch.tensor([f[key] for f in features], dtype=kinds[key]) for key in features[0]}

        return collate

    def decode(self, outputs: list[Any], rows: list[int], state: TableState) -> list[Answer]:
        return labels.decode(outputs, state.labels)

    def metrics(self, answers: list[Answer], references: Dataset, state: TableState) -> dict[str, Any]:
        return labels.metrics(answers, references, state.labels)

    def shown(self, row: dict[str, Any]) -> str:
        return ", ".join(f"{name}={value}" for name, value in row["features"].items())

    def synthetic(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """What is heavy depends on the colour; size says nothing, and is sometimes missing."""
        rng = random.Random(seed)
        features, names = [], []
        for _ in range(rows):
            red, heavy = rng.random() < 0.5, rng.random() < 0.5
            weight = (0.8 if red else -0.8) + (1 if heavy else -1) * rng.uniform(0.4, 2.0)
            size = None if rng.random() < 0.1 else rng.gauss(5, 2)
            features.append({"weight": weight, "size": size, "colour": "red" if red else "blue"})
            names.append("heavy" if heavy else "light")
        return {"features": features, "label": names}
