"""What a task is: the only thing that commands, training and reports know of it."""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy
import pyarrow
import torch
from datasets import Dataset

from llmft.models.labelled import IGNORED
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import TaskConfig

GUIDE = "CONTRIBUTING.md shows a task as it is written now."
FORMAT = 2  # of RUN/model/task.json
READ = (1, FORMAT)  # 1 had `labels` where `target` is now: see tasks/targets/problems.py

Features = dict[str, list[Any]]
Answer = dict[str, Any]
"""`answer`, what the model says of a row, and what it says about it, such as `scores`."""


class RowScore(NamedTuple):
    """What one row adds to a score: over all rows, the score is the sum of the parts by the sum of the wholes."""

    metric: str
    part: float
    whole: float = 1.0


class State(Protocol):
    """All that encoding and decoding need beyond the weights; kept in RUN/model."""

    def save(self, folder: Path) -> None:
        """Write it below `folder`."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Keep what a task learnt from the training rows as `task.json`, beside the weights."""
    text = json.dumps({"format": FORMAT, **facts}, ensure_ascii=False, indent=2)
    (folder / "task.json").write_text(text + "\n", encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """What `write_facts` kept.

    Raises:
        OSError: where there is no such file.
        ValueError: for a file that is broken, or of another format.
    """
    facts = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    if (found := facts.pop("format", None)) not in READ:
        raise ValueError(f"task.json has format {found}; this llmft reads formats {READ[0]} to {FORMAT}")
    return dict(facts)


S = TypeVar("S", bound=State)
RENAMED = {
    "fit": "learn",
    "needed": "model_kwargs",
    "counted": "loss_weight",
    "of_loss": "metrics_from_loss",
    "first_answers": "reference_scores",
    "tunes": "calibrates",
    "tuned": "calibrate",
    "asked": "for_inference",
    "asked_file": "for_inference",
    "asked_columns": "inference_columns",
    "talks": "chat_state",
    "inputs": "input_positions",
    "numbers": "flatten",
    "readout": "export_outputs",
    "made_up": "example_row",
    "thresholds_by_label": "label_thresholds",
    "metrics": "score",
    "shown": "format_input",
    "written": "format_answer",
    "pieces": "mark_trained",
    "highlights": "spans",
    "answers": "describe_answers",
    "badness": "error_score",
    "how_bad": "format_error",
    "synthetic": "synthetic_rows",
}
"""Methods of a task in version 0.1.0, and what they are called now."""


class Task(ABC, Generic[S]):
    """A kind of problem, from its rows to its answers."""

    config: ClassVar[type[TaskConfig]]
    """The section of the configuration, for tasks of other packages."""
    head: ClassVar[str]
    """The Auto class of transformers that puts the head on the model."""
    corpus: ClassVar[bool] = False
    """Whether its rows are raw text, read a part at a time by data/corpus.py, with the columns that it names."""
    state_class: type[S]
    """What it learns of the training rows."""
    state: S
    """What it has learnt: there once `fit` or `load` has given back the task."""
    default_input_role: ClassVar[str] = "text"
    """The role that `predict.text` and a line of a .txt file fill."""
    loss_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a batch that the task reads itself, and no model takes."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def __init_subclass__(cls) -> None:
        """Refuse a task that was written for 0.1.0: its methods would never be called.

        Raises:
            UserError: with the new name of each method, and of those that still take `state`.
        """
        super().__init_subclass__()
        own = {name: method for name, method in vars(cls).items() if inspect.isfunction(method) or name == "tunes"}
        found = [f"{old} is now called {RENAMED[old]}" for old in own if old in RENAMED]
        takes = [name for name, method in own.items() if "state" in inspect.signature(method).parameters]
        found += [f"{name} takes no state: what was learnt is self.state" for name in takes if name not in RENAMED]
        if isinstance(vars(cls).get("state"), type):
            found.append("the class of the state is now called state_class")
        if found:
            raise UserError([Problem(f"{cls.__module__}.{cls.__name__}", what, hint=GUIDE) for what in found])

    def fit(self, train: Dataset, model: ModelConfig) -> Self:
        """The task with what it has learnt from the training rows. No weights are loaded.

        Args:
            train: of streamed rows, a sample in which every label occurs.
        """
        return self.with_state(self.learn(train, model))

    def with_state(self, state: S) -> Self:
        """The same task with this state; the task itself stays as it is."""
        other = copy(self)
        other.state = state
        return other

    def save(self, folder: Path) -> None:
        """Write what was learnt below `folder`."""
        self.state.save(folder)

    def load(self, folder: Path) -> Self:
        """The task with what `save` wrote."""
        return self.with_state(self.state_class.load(folder))

    @property
    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The roles that the task's data must fill."""

    @abstractmethod
    def learn(self, train: Dataset, model: ModelConfig) -> S:
        """Labels, vocabularies and scales of the training rows, for `fit`."""

    @abstractmethod
    def model_kwargs(self) -> dict[str, Any]:
        """What the model's configuration must be for this state, such as the number of labels.

        `added_tokens` says how many of the tokenizer's tokens the task has added: pretrained weights get rows for them.
        """

    @abstractmethod
    def check(self, rows: Dataset, split: str) -> list[Problem]:
        """What a split, or a part of it, holds that the state cannot express."""

    def notes(self) -> list[str]:
        """What was learnt that the user should know, a line each."""
        return []

    def notes_of_features(self, features: pyarrow.Table, split: str) -> list[str]:
        """What the features of training tell the user, a line each.

        Raises:
            UserError: where there is nothing to learn from them.
        """
        return []

    def notes_of_rows(self, rows: Dataset, split: str) -> list[str]:
        """What the rows of a split hold that the user should know, a line each: what is odd in `train`, and what of
        other rows is unlike training. Those of `predict` have no labels.
        """
        return []

    @abstractmethod
    def encode(self, rows: dict[str, list[Any]]) -> Features:
        """Columns of features for a slice of rows: one or many features a row.

        `row` is the place of a feature's row in the slice. `length`, if there, groups features into batches, and `cut`
        marks features that lost some of their row; the other keys go to the collator, except for `aside`: what `decode`
        must know of a feature beside its output, such as where its tokens stand in a text. It then gets pairs of both.
        """

    @abstractmethod
    def collator(self) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        """What makes a batch of features."""

    def loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss of a batch that training makes small. Default: the model's own."""
        loss: torch.Tensor = model(**batch).loss
        return loss

    def reference_scores(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> list[float]:
        """One number a feature that the first weights give, for a loss that compares with them: `TaskConfig.refers`.

        It is computed once before training. The features of train and validation then have it as `reference`.
        """
        raise NotImplementedError

    def row_weights(self, labels: torch.Tensor) -> torch.Tensor | None:
        """How much each training row counts for a model that is fitted, of the shape of `labels`. Default: 1."""
        return None

    def baseline(self, splits: dict[str, Dataset], seed: int) -> tuple[str, dict[str, list[Any]]]:
        """A simple model fitted to the rows of train, for a task whose section has the key `baseline`.

        Returns:
            its name, and by split its outputs, one a row as `decode` takes them.
        """
        raise NotImplementedError

    def input_positions(self) -> dict[str, dict[str, list[int]]]:
        """The columns of a table that a model reads, each with the places of its values, by key of a feature.

        Default: none, as a text has no parts that could change places.
        """
        return {}

    def loss_weight(self, batch: dict[str, torch.Tensor]) -> int:
        """What the loss of a batch is a mean over: its rows, or, of a language model, the tokens that have a label.

        Batches of one step, and of an evaluation, weigh as much as they hold of it.
        """
        return len(next(iter(batch.values())))

    def metrics_from_loss(self, loss: float) -> dict[str, float]:
        """The scores that a mean loss is, such as `perplexity` of a language model. Default: itself."""
        return {"loss": loss}

    def predict(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[Any, float | None]:
        """The outputs of a batch, one a feature, and the mean loss where there are labels. Default: a forward pass."""
        output = model(**batch)
        return output.logits.float().cpu().numpy(), None if output.loss is None else output.loss.item()

    def flatten(self, outputs: list[Any]) -> numpy.ndarray:
        """Outputs as one array of numbers, by which two models that should be the same are compared."""
        return numpy.concatenate([numpy.ravel(output) for output in outputs])

    def for_inference(self, strict: bool = False) -> Self:
        """The task for rows of `llmft predict`, where they or their answers differ from those that `eval` scores.

        Args:
            strict: for the columns of a whole file, which must all be there; a typed row may leave some out.
        """
        return self

    def chat_state(self) -> Any:
        """The ChatState by which its models answer in turns; None where they don't."""
        return None

    def inference_columns(self, filled: set[str]) -> dict[str, Column]:
        """The roles of rows of `llmft predict` in which these are filled. Default: those of all data."""
        return self.columns

    @property
    def calibrates(self) -> bool:
        """Whether `tuned` has anything to learn; it costs a pass over the validation rows."""
        return False

    def calibrate(self, outputs: list[Any], references: Dataset) -> Self:
        """The state with what is decided on validation rows once the best weights are there, such as thresholds.

        Args:
            outputs: of the validation rows, in their order.
        """
        return self

    def export_outputs(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """What an exported program says beside its logits (B, outputs), such as `scores`. Default: nothing."""
        return {}

    def formula(self) -> str:
        """How logits become answers, in a sentence for who has the weights alone. Default: nothing is to be said."""
        return ""

    def example_row(self) -> dict[str, Any] | None:
        """A made-up row for the card of an export to answer without llmft; None where that takes more than a card says.

        None of the user's rows: a card may be published.
        """
        return None

    def label_thresholds(self) -> dict[str, float]:
        """The score from which on a label is given, where that is decided label by label. Default: none."""
        return {}

    def uncalibrated(self) -> Self:
        """The state for scores that several models made together: no temperature of one of them made them."""
        return self

    @abstractmethod
    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        """Answers, one a row in the order of rows; `rows[i]` is the row of `outputs[i]`."""

    @abstractmethod
    def score(self, answers: list[Answer], references: Dataset) -> dict[str, Any]:
        """Scores of answers against the rows that they answer."""

    @abstractmethod
    def format_input(self, row: dict[str, Any]) -> str:
        """The input of a row, as reports and predictions show it."""

    def mark_trained(self, feature: dict[str, Any], row: dict[str, Any]) -> list[tuple[str, bool]]:
        """A training feature in pieces as the model sees it, each with whether it is trained.

        Default: its tokens, of which those are trained that have a label of their own; the texts of an encoder and a
        decoder; or, where there are no tokens, the row.
        """
        tokenizer, ids, labels = (
            getattr(self.state, "tokenizer", None),
            feature.get("input_ids"),
            feature.get("labels", []),
        )
        if tokenizer is None or ids is None:
            return [(self.format_input(row), False)]
        if "Seq2Seq" in self.head:
            return [(tokenizer.decode(ids), False), ("\n", False), (tokenizer.decode(labels), True)]
        by_token = isinstance(labels, list) and len(labels) == len(ids) and isinstance(labels[0], int)
        trained = [label != IGNORED for label in labels] if by_token else [False] * len(ids)
        runs = groupby(zip(ids, trained, strict=True), key=itemgetter(1))
        return [(tokenizer.decode([token for token, _ in run]), own) for own, run in runs]

    def reference(self, row: dict[str, Any]) -> Any:
        """The right answer of a row as predictions keep it, of the form that `answer` has; None where there is none."""
        return row.get("label")

    def describe_answers(self) -> str:
        """What is said of a row, in a few words: `2 labels: bad, good`, `a text`."""
        return ""

    def error_score(self, answer: Answer, reference: Any) -> float:
        """How wrong an answer is, for the report to show the worst; 0 for a right one."""
        if answer["answer"] == reference or reference is None:
            return 0.0
        return max(float(answer.get("scores", {}).get(str(answer["answer"]), 0.0)), 1e-9)

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """The score that `llmft runs compare` tests for significance, of one row. Default: whether it is right."""
        return RowScore("accuracy", float(answer["answer"] == reference))

    def format_error(self, badness: float) -> str:
        """A `badness` as the report shows it. Default: how sure the wrong answer was; nothing where that is unknown."""
        return f"{100 * badness:.1f}%" if badness > 1e-9 else ""

    def format_answer(self, answer: Any) -> str:
        """An answer, or a right one, as a report shows it."""
        return str(answer)

    def spans(self, answer: Any) -> list[tuple[int, int, str]]:
        """The places of `shown` that an answer names, for reports to mark them: start, end and label, in characters.

        Default: none.
        """
        return []

    @abstractmethod
    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up rows by role that a tiny model can learn."""
