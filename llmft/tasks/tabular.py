"""A label, several labels or a number for a row of a table.

Numbers are standardised, categories numbered, missing values marked.
"""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy
import torch
from datasets import Dataset

from llmft.data.table import listed
from llmft.schema import task as schema
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks import problems
from llmft.tasks.facts import read_facts, write_facts
from llmft.tasks.problems import TargetTask
from llmft.tasks.target import Target
from llmft.tasks.task import Features

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


def is_missing(value: Any) -> bool:
    """Whether a cell says nothing."""
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING) or value != value


def as_number(value: Any) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


@dataclass
class TableState:
    """What was learnt of each column."""

    target: Target
    numbers: dict[str, list[float]]
    """Mean and standard deviation of each number column."""
    categories: dict[str, list[str]]
    """The values of each category column, the most frequent first."""

    def save(self, folder: Path) -> None:
        write_facts(folder, asdict(self) | {"target": problems.to_facts(self.target)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_facts(folder)
        return cls(problems.from_facts(facts), **facts)


class Tabular(TargetTask[TableState]):
    """Is a tumour malignant, which products does a customer buy, what earns a household?"""

    config = schema.Tabular
    head = "AutoModelForSequenceClassification"
    state = TableState
    options: schema.Tabular

    def __init__(self, config: schema.Tabular) -> None:
        self.options = config

    @property
    def columns(self) -> dict[str, Column]:
        return {"features": Column("features"), "label": problems.column(self.options)}

    def fit(self, train: Dataset, model: ModelConfig) -> TableState:
        rows = train["features"][:]
        numbers: dict[str, list[float]] = {}
        categories: dict[str, list[str]] = {}
        strange = [
            Problem(f"task.{key}", f"there is no column {name!r}", hint=f"They are {', '.join(rows[0])}.")
            for key in ("numbers", "categories")
            for name in getattr(self.options, key)
            if name not in rows[0]
        ]
        if strange:
            raise UserError(strange)
        for name in rows[0]:
            cells = [row[name] for row in rows if not is_missing(row[name])]
            values = [number for cell in cells if (number := as_number(cell)) is not None]
            all_numbers = len(values) == len(cells) > 0 and name not in self.options.categories
            if all_numbers or name in self.options.numbers:
                mean = float(numpy.mean(values)) if values else 0.0
                # A column of one value has no deviation; 1 keeps it at zero.
                numbers[name] = [mean, float(numpy.std(values)) or 1.0 if values else 1.0]
            else:
                categories[name] = [value for value, _ in Counter(map(str, cells)).most_common()]
        return TableState(problems.fit(train, self.options), numbers, categories)

    def needed(self, state: TableState) -> dict[str, Any]:
        sizes = [len(values) for values in state.categories.values()]
        return state.target.needed() | {"num_numbers": len(state.numbers), "category_sizes": sizes}

    def check(self, rows: Dataset, state: TableState, split: str) -> list[Problem]:
        table = rows["features"][:]
        lacking = [name for name in (*state.numbers, *state.categories) if name not in table[0]]
        if lacking:
            return [Problem(f"dataset.{split}", f"has no column {', '.join(map(repr, lacking))}, which training had")]
        wrong = [
            Problem(rows[i]["id"], f"{name} is {row[name]!r}, not a number ({split})")
            for i, row in enumerate(table)
            for name in state.numbers
            if not is_missing(row[name]) and as_number(row[name]) is None
        ]
        return listed(wrong) + state.target.check(rows, split)

    def encode(self, rows: dict[str, list[Any]], state: TableState) -> Features:
        table = rows["features"]
        numbers, missing, categories = [], [], []
        codes = {name: {v: i for i, v in enumerate(values, 1)} for name, values in state.categories.items()}
        for row in table:
            cells = [None if is_missing(row[name]) else as_number(row[name]) for name in state.numbers]
            scales = state.numbers.values()
            numbers.append(
                [0.0 if c is None else (c - mean) / std for c, (mean, std) in zip(cells, scales, strict=True)]
            )
            missing.append([float(cell is None) for cell in cells])
            categories.append(
                [0 if is_missing(row[name]) else code.get(str(row[name]), 0) for name, code in codes.items()]
            )
        features: Features = {
            "numbers": numbers,
            "missing": missing,
            "categories": categories,
            "row": list(range(len(table))),
        }
        if "label" in rows:
            features["labels"] = state.target.encode(rows["label"])
        return features

    def collator(self, state: TableState) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        kinds = {"numbers": torch.float32, "missing": torch.float32, "categories": torch.long}

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            return {key: torch.tensor([f[key] for f in features], dtype=kinds.get(key)) for key in features[0]}

        return collate

    def shown(self, row: dict[str, Any]) -> str:
        return ", ".join(f"{name}={value}" for name, value in row["features"].items())

    def synthetic(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """What is heavy depends on the colour; size says nothing, and is sometimes missing."""
        rng = random.Random(seed)
        features, labels = [], []
        for _ in range(rows):
            red, heavy = rng.random() < 0.5, rng.random() < 0.5
            weight = (0.8 if red else -0.8) + (1 if heavy else -1) * rng.uniform(0.4, 2.0)
            size = None if rng.random() < 0.1 else rng.gauss(5, 2)
            features.append({"weight": weight, "size": size, "colour": "red" if red else "blue"})
            labels.append(self._synthetic_label(weight, red, heavy))
        return {"features": features, "label": labels}

    def _synthetic_label(self, weight: float, red: bool, heavy: bool) -> Any:
        """Heavy or light; what it is of heavy and bright; or by how much it weighs more than others of its colour."""
        if self.options.problem == "single_label":
            return "heavy" if heavy else "light"
        if self.options.problem == "multi_label":
            return [name for name, yes in (("bright", red), ("heavy", heavy)) if yes]
        return weight - (0.8 if red else -0.8)
