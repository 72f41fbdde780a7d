"""A label, several labels or a number for a row of a table; columns.py has what is done with its columns."""

import random
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from safetensors.numpy import load_file, save_file

from llmft.data.source import Rows, Table
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem
from llmft.tasks.explaining import Ask, of_target
from llmft.tasks.tables import config as sections
from llmft.tasks.tables.columns import TableColumns, learn_columns
from llmft.tasks.tables.number_columns import FLAG
from llmft.tasks.tables.text_columns import TextColumn
from llmft.tasks.targets import problems
from llmft.tasks.targets.problems import TargetState, TargetTask
from llmft.tasks.task import Answer, Features, read_facts, write_facts

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

COMPONENTS = "texts.safetensors"  # a file beside task.json, in which these matrices would be 20 MB of text


@dataclass
class TableState(TargetState):
    """What was learned of the labels and of each column."""

    columns: TableColumns

    @property
    def notes(self) -> list[str]:
        return self.columns.notes()

    def save(self, folder: Path) -> None:
        self.save_columns(folder, asdict(self.columns))

    def save_columns(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write `facts`, those of the columns, and the target; matrices go to a file of their own."""
        facts = {"target": problems.to_facts(self.target)} | facts
        found = {name: text.pop("components") for name, text in facts["texts"].items()}
        if found:  # None marks a column of few terms, which needs no SVD
            save_file({name: matrix for name, matrix in found.items() if matrix is not None}, folder / COMPONENTS)
        write_facts(folder, facts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_facts(folder)
        columns = cls.load_columns(folder, facts)
        return cls(problems.from_facts(facts), TableColumns(**columns))

    @classmethod
    def load_columns(
        cls, folder: Path, facts: dict[str, Any], kind: type[TableColumns] = TableColumns
    ) -> dict[str, Any]:
        """Remove the fields of the columns from `facts` and return them."""
        if "forms" not in facts and "numbers" in facts:  # earlier, true and false were 1 and 0 in all columns
            facts["forms"] = {name: {"style": FLAG, "sign": ""} for name in facts["numbers"]}
        if texts := facts.get("texts"):
            components = load_file(folder / COMPONENTS)
            facts["texts"] = {n: TextColumn(**text, components=components.get(n)) for n, text in texts.items()}
        # Fields that a later version has added are not there, and take their defaults.
        return {part.name: facts.pop(part.name) for part in fields(kind) if part.name in facts}


class Tabular(TargetTask[TableState]):
    """Is a tumor malignant, which products does a customer buy, what earns a household?"""

    config: ClassVar[type[sections.TableSection]] = sections.Tabular
    head = "AutoModelForSequenceClassification"
    state_class: type[TableState] = TableState
    fixed: ClassVar = ("numbers", "missing", "categories")
    dtypes: ClassVar = {"categories": "int64"}  # of a table without categories, whose rows are empty lists
    options: sections.TableSection

    @property
    def columns(self) -> dict[str, Column]:
        # A mark for missing values in this table, such as -1, is one in the label column too.
        label = replace(problems.column(self.options), missing=tuple(self.options.missing))
        return {"features": Column("features"), "label": label}

    def learn(self, train: "Dataset", model: ModelConfig) -> TableState:
        columns = learn_columns(train["features"][:], self.options)
        return TableState(problems.fit(train, self.options), columns)

    def model_kwargs(self) -> dict[str, Any]:
        columns = self.state.columns
        sizes = {"num_numbers": columns.num_numbers, "category_sizes": columns.category_sizes}
        bins = {"bin_edges": columns.bin_edges} if columns.bin_edges else {}
        return self.state.target.model_kwargs() | sizes | bins

    def check(self, rows: Rows, split: str) -> list[Problem]:
        """A column that a typed row of `predict` leaves out is a missing value."""
        # A file without a column is more likely the wrong file.
        lenient = self.state.inference == "row"
        return self.state.columns.check(rows, split, lenient) + self.state.target.check(rows, split)

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """Notes on the labels of training rows; for other rows, how they differ from training."""
        new = self.state.columns.notes_of_rows(rows, split) if rows is not None and split != "train" else []
        return super().notes_on(rows, split, features) + new

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        encoded = self.state.columns.encode(rows["features"])
        # As lists, the form in which Arrow and the cache keep features.
        features: Features = {key: values.tolist() for key, values in encoded._asdict().items()}
        features["row"] = list(range(len(rows["features"])))
        if "label" in rows:
            features["labels"] = self.state.target.encode(rows["label"])
        return features

    def measure_inputs(self, rows: "Rows") -> dict[str, list[float | str | None]]:
        found = self.state.columns.measurements(rows["features"][:])
        return {f"column {name}": values for name, values in found.items()}

    def input_positions(self) -> dict[str, dict[str, list[int]]]:
        return self.state.columns.positions()

    def baseline(self, splits: "dict[str, Dataset]", seed: int) -> tuple[str, dict[str, list[Any]]]:
        # A model is made of torch, which encoding and decoding do without.
        import torch

        from llmft.models.boosting import LOSSES, BoostingConfig, BoostingForClassification

        def whole(rows: "Dataset") -> dict[str, torch.Tensor]:
            """All rows in one batch, with the weights of `task.class_weights`."""
            encoded = self.state.columns.encode(rows["features"][:])
            labels = torch.tensor(self.state.target.encode(rows["label"][:]))
            weights = self.state.target.row_weights(labels.numpy())
            batch = {
                "numbers": torch.tensor(encoded.numbers).float(),
                "missing": torch.tensor(encoded.missing).float(),
                "categories": torch.tensor(encoded.categories),
                "labels": labels,
            }
            return batch if weights is None else batch | {"weights": torch.from_numpy(weights)}

        model = BoostingForClassification(BoostingConfig(**self.model_kwargs()))
        batches = {name: whole(rows) for name, rows in splits.items()}
        # Losses of networks that trees cannot minimize, such as focal: the baseline is then fitted by its default.
        loss = self.options.loss if self.options.loss in LOSSES else None
        model.fit(batches["train"], batches.get("validation"), loss, seed, torch.get_num_threads())
        answered = {name: model.predict_rows(batch) for name, batch in batches.items() if name != "train"}
        return "gradient boosting", answered

    def format_input(self, row: dict[str, Any]) -> str:
        return ", ".join(f"{name}={value}" for name, value in row["features"].items())

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """The weight of each column: what is lost, on average, where it has a typical value of the training rows."""
        columns, found = self.state.columns, []
        typical = columns.typical_cells()
        others = [(name, cell) for name, cells in typical.items() for cell in cells]
        for row, answer in zip(rows["features"], answers, strict=True):
            subject, plain = of_target(answer), columns.plain_row(row)
            asked = [plain, *(plain | {name: cell} for name, cell in others)]
            ids = list(map(str, range(len(asked))))
            whole, *strengths = map(subject.strength, ask(Table({"features": asked}, ids)))
            left = {name: list[float]() for name in typical}
            for (name, _), strength in zip(others, strengths, strict=True):
                left[name].append(strength)
            parts = [{"column": name, "value": row.get(name)} for name in typical]
            found.append(subject.explanation(parts, whole, [sum(own) / len(own) for own in left.values()]))
        return found

    def example_row(self) -> dict[str, Any]:
        return self.state.columns.example_row()

    def describe_cells(self) -> dict[str, tuple[str, list[str]]]:
        columns = self.state.columns
        found: dict[str, tuple[str, list[str]]] = {name: ("number", []) for name in columns.numbers}
        found |= {name: ("category", list(values)) for name, values in columns.categories.items()}
        return found | {name: ("date", []) for name in columns.dates} | {name: ("text", []) for name in columns.texts}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """What is heavy depends on the colour; size says nothing, and is sometimes missing."""
        rng = random.Random(seed)  # seeded, so that smoke runs and their pinned losses repeat
        features, labels = [], []
        for _ in range(rows):
            red, heavy = rng.random() < 0.5, rng.random() < 0.5
            # The threshold between light and heavy differs by color, so that no single column decides the label.
            weight = (0.8 if red else -0.8) + (1 if heavy else -1) * rng.uniform(0.4, 2.0)
            size = None if rng.random() < 0.1 else rng.gauss(5, 2)
            features.append({"weight": weight, "size": size, "colour": "red" if red else "blue"})
            labels.append(self._synthetic_label(weight, red, heavy))
        return {"features": features, "label": labels}

    def _synthetic_label(self, weight: float, red: bool, heavy: bool) -> Any:
        """Heavy or light; which of heavy and bright it is; or its weight relative to others of its color."""
        if self.options.problem == "single_label":
            return "heavy" if heavy else "light"
        if self.options.problem == "multi_label":
            return [name for name, yes in (("bright", red), ("heavy", heavy)) if yes]
        return weight - (0.8 if red else -0.8)
