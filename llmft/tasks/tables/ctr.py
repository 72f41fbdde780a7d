"""The probability of a click: rows of a user, an item, and what is known of both; click_columns.py reads them."""

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy
from safetensors.numpy import load_file, save_file

from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.tables import config as sections
from llmft.tasks.tables.click_columns import ClickColumns, ClickLog, Parts, learn_clicks
from llmft.tasks.tables.id_columns import IdColumn
from llmft.tasks.tables.tabular import TableState, Tabular
from llmft.tasks.targets import problems
from llmft.tasks.task import Answer, RowScore, read_facts

if TYPE_CHECKING:
    from datasets import Dataset

LOG = "clicks.safetensors"  # beside task.json: the clicks of train by user
PART = 10_000  # rows of train that are read as Python objects at once


@dataclass
class ClickState(TableState):
    """What was learned of the labels, of each column, and of the clicks of each user."""

    columns: ClickColumns

    def save(self, folder: Path) -> None:
        facts = asdict(replace(self.columns, log=None))
        del facts["log"]
        self.save_columns(folder, facts)
        if self.columns.log is not None:
            save_file(vars(self.columns.log), folder / LOG)

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_facts(folder)
        found = cls.load_columns(folder, facts, ClickColumns)
        found["ids"] = {name: IdColumn(**column) for name, column in found["ids"].items()}
        log = ClickLog(**load_file(folder / LOG)) if (folder / LOG).is_file() else None
        return cls(problems.from_facts(facts), ClickColumns(**found, log=log))


class Ctr(Tabular):
    """Does a user click on an item?"""

    config = sections.Ctr
    state_class = ClickState
    state: ClickState
    options: sections.Ctr
    only_scored: ClassVar = ("logit",)

    @property
    def columns(self) -> dict[str, Column]:
        found = super().columns
        return found | {"label": replace(found["label"], at_least=self.options.like_from)}

    def learn(self, train: "Dataset", model: ModelConfig) -> ClickState:
        labels = train["label"][:]
        self._check_labels(train["id"][:], labels)
        columns = learn_clicks(train["features"][:], self.options)
        columns.learn_ids(lambda: _parts([train]), self.options)
        return ClickState(problems.fit(train, self.options), columns)

    def learn_all(self, chunks: "Iterable[Dataset]") -> Self:
        """The task with the vocabularies and the log of all streamed rows; `chunks` can be read several times."""
        columns = replace(self.state.columns, ids={n: replace(c) for n, c in self.state.columns.ids.items()})
        columns.learn_ids(lambda: _parts(chunks), self.options)
        return self.with_state(replace(self.state, columns=columns))

    def _check_labels(self, ids: list[str], labels: list[str]) -> None:
        """Raise UserError for a label that is none of the two, and for rows that have only one of them."""
        known = self.options.labels
        others = {label for label in labels if label not in known}
        if others:
            row = next(row for row, label in enumerate(labels) if label in others)
            words = sorted({*labels})
            hint = "For ratings, write task.like_from=NUMBER: from it on, a row is a click."
            if len(words) == 2:
                hint = f"If {words[1]!r} is the click, write task.labels=[{','.join(words)}]."
            what = f"must be {known[0]} or {known[1]}, got {labels[row]!r}; train has {len(words):,} different labels"
            raise UserError(Problem(ids[row], what, hint=hint), "the data")
        if len({*labels}) < 2:
            what = f"train has one label only, {labels[0]!r}; clicks are learned from both"
            raise UserError(Problem("dataset.columns.label", what), "the data")

    def model_kwargs(self) -> dict[str, Any]:
        columns = self.state.columns
        bins = {"bin_edges": columns.bin_edges} if columns.bin_edges else {}
        return self.state.target.model_kwargs() | columns.model_kwargs() | bins

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        answers = super().decode(outputs, rows)
        if self.state.inference:
            return answers
        # Probabilities near 1 are equal where their logits are not.
        logits = numpy.asarray(outputs, dtype=numpy.float64).reshape(-1, 2)
        heat = getattr(self.state.target, "temperature", 1.0)
        odds = ((logits[:, 1] - logits[:, 0]) / heat).tolist()
        return [answer | {"logit": logit} for answer, logit in zip(answers, odds, strict=True)]

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        from llmft.metrics.click_metrics import click_metrics

        clicks = numpy.array([label == self.options.labels[1] for label in references["label"][:]])
        users = self.state.columns.users_of(references["features"][:]) if self.state.columns.user else None
        said = numpy.array([answer["answer"] == self.options.labels[1] for answer in answers])
        found = click_metrics(numpy.array([answer["logit"] for answer in answers]), clicks, users)
        return {"accuracy": float((said == clicks).mean()), **found}

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """The log loss of the row: AUC is no mean over rows."""
        lost = -float(numpy.log(max(answer["scores"][reference], 1e-300)))
        return RowScore("log_loss", lost, error=lost, why=self.format_answer(lost))

    def baseline(self, splits: "dict[str, Dataset]", seed: int) -> tuple[str, dict[str, list[Any]]]:
        # One-hot ids and scaled numbers: what each of them is worth by itself.
        from sklearn.linear_model import LogisticRegression

        rows = {name: self._one_hot(split) for name, split in splits.items()}
        labels = self.state.target.encode(splits["train"]["label"][:])
        model = LogisticRegression(C=0.1, max_iter=200).fit(rows.pop("train"), labels)
        odds = {name: model.decision_function(matrix) for name, matrix in rows.items()}
        return "logistic regression", {name: list(numpy.stack([0 * z, z], axis=1)) for name, z in odds.items()}

    def _one_hot(self, rows: "Dataset") -> Any:
        """The sparse matrix (rows, numbers + ids); of a list each id counts by its share."""
        from scipy.sparse import csr_matrix, hstack

        columns = self.state.columns
        encoded = columns.encode(rows["features"][:])
        parts, start = [csr_matrix(encoded.numbers), csr_matrix(encoded.missing)], 0
        for column in columns.ids.values():
            ids = encoded.categories[:, start : start + column.width]
            start += column.width
            there = ids > 0
            shares = (there / numpy.maximum(there.sum(axis=1, keepdims=True), 1))[there]
            size = (columns.ids[column.shares] if column.shares else column).size + 1
            parts.append(csr_matrix((shares, (there.nonzero()[0], ids[there])), shape=(len(ids), size)))
        return hstack(parts).tocsr()

    def describe_cells(self) -> dict[str, tuple[str, list[str]]]:
        columns = self.state.columns
        own: dict[str, tuple[str, list[str]]] = {name: ("text", []) for name in columns.names}
        # A page offers the values of a short column; of a long one, people type them.
        few = {name: column.values for name, column in columns.ids.items() if len(column.values) <= 100}
        own |= {
            name: ("category", values) for name, values in few.items() if name in own and columns.ids[name].width == 1
        }
        return own | super().describe_cells()

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """A user clicks on items of the kind that the history shows; the price, sometimes missing, says nothing."""
        rng = random.Random(seed)
        features, labels = [], []
        options = self.options
        for number in range(rows):
            taste = rng.randrange(2)
            item = rng.randrange(8)
            clicked = [str(2 * rng.randrange(4) + taste) for _ in range(rng.randint(1, 4))]
            row: dict[str, Any] = {"price": None if rng.random() < 0.1 else round(rng.uniform(1, 9), 2)}
            row |= {options.user or "user": f"u{rng.randrange(16)}", options.item or "item": str(item)}
            row |= {"kind": "even" if item % 2 == 0 else "odd", options.history or "clicked": "|".join(clicked)}
            features.append(row | ({options.time: number} if options.time else {}))
            labels.append(options.labels[item % 2 == taste])
        return {"features": features, "label": labels}


def _parts(chunks: "Iterable[Dataset]") -> Parts:
    """The cells and labels of all rows, PART rows at a time."""
    for rows in chunks:
        for start in range(0, len(rows), PART):
            part = rows[start : start + PART]
            yield part["features"], part["label"]
