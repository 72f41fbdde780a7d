"""What a task is: how rows become features and answers, and how people see them. The rest of llmft knows this alone.

A task inherits `Task`, which is a `Codec` and a `Presenter`. What training minimizes is its objective, another class
(tasks/objective.py) that is imported when it is first used: nothing here imports torch or transformers, so that a
service can encode and decode rows without them. What only some tasks can do is in tasks/optional.py.
"""

import inspect
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar, final

import numpy

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import TaskConfig
from llmft.tasks.padding import Arrays, pad, pad_values, stack
from llmft.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

    from llmft.tasks.objective import Objective
    from llmft.tasks.targets.target import Target

GUIDE = "CONTRIBUTING.md shows a task as it is written now."
FORMAT = 2  # of RUN/model/task.json
READ = (1, FORMAT)  # 1 had `labels` where `target` is now: see tasks/targets/problems.py
UNSAVED = {"saved": False}
"""The metadata of a field of a state that is not written to RUN/model."""

Features = dict[str, list[Any]]
Answer = dict[str, Any]
"""`answer`, what the model says of a row, and what it says about it, such as `scores`."""


class RowScore(NamedTuple):
    """What one row adds to a metric, and how wrong its answer is.

    Over all rows, the metric is the sum of the parts divided by the sum of the wholes.
    """

    metric: str
    part: float
    whole: float = 1.0
    error: float = 0.0
    """By which the report finds the worst answers; 0 for a right one."""
    why: str = ""
    """The error as the report shows it."""


@dataclass
class State:
    """What a task learns from the training rows, beside the weights; kept in RUN/model. A task adds its fields.

    A field `tokenizer`, a Tokenizer or a fast one of transformers, is saved as transformers saves it. The others are
    saved as JSON in task.json, except for those with the metadata UNSAVED.
    """

    inference: Literal["", "row", "file"] = field(default="", init=False, repr=False, compare=False, metadata=UNSAVED)
    """Whether rows of `llmft predict` are encoded, and which: those of a whole file, or one that somebody typed."""

    def __post_init__(self) -> None:
        found = getattr(self, "tokenizer", None)
        if found is not None and not isinstance(found, Tokenizer):
            self.tokenizer = Tokenizer.of(found)

    @property
    def notes(self) -> list[str]:
        """What was learned that the user should know, a line each."""
        return []

    @property
    def description(self) -> str:
        """What the model answers, in a few words for the console: `2 labels: bad, good`."""
        return ""

    def facts(self) -> dict[str, Any]:
        """The fields that are saved in task.json, as JSON holds them."""
        kept = (each for each in fields(self) if each.metadata != UNSAVED and each.name != "tokenizer")
        return {each.name: getattr(self, each.name) for each in kept}

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> dict[str, Any]:
        """The fields that `facts` says."""
        return facts

    def save(self, folder: Path) -> None:
        """Write what was learned below `folder`."""
        if tokenizer := getattr(self, "tokenizer", None):
            tokenizer.save_pretrained(folder)
        write_facts(folder, self.facts())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        found = cls.of_facts(read_facts(folder))
        if any(each.name == "tokenizer" for each in fields(cls)):
            found["tokenizer"] = Tokenizer.load(folder)
        return cls(**found)


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write what a task learned from the training rows to `task.json`, beside the weights."""
    text = json.dumps({"format": FORMAT, **facts}, ensure_ascii=False, indent=2)
    (folder / "task.json").write_text(text + "\n", encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """Read what `write_facts` wrote.

    Raises:
        OSError: if there is no such file.
        ValueError: for a file that is broken, or has another format.
    """
    facts = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    if (found := facts.pop("format", None)) not in READ:
        raise ValueError(f"task.json has format {found}; this llmft reads formats {READ[0]} to {FORMAT}")
    return dict(facts)


S = TypeVar("S", bound=State)


class Codec(ABC, Generic[S]):
    """From rows to features, and from outputs of the model to answers and their metrics; on lists and numpy alone."""

    options: Any
    """The section of the configuration."""
    state: S
    """What was learned: there once `fit` or `load` has given back the task."""
    corpus: ClassVar[bool] = False
    """Whether its rows are raw text, read a part at a time by data/corpus.py, with the columns that it names."""
    only_scored: ClassVar[tuple[str, ...]] = ()
    """Keys of an answer that `score` alone reads. They are not written to files."""
    default_input_role: ClassVar[str] = "text"
    """The role that `predict.text` and a line of a .txt file fill."""
    padding_side: ClassVar[Literal["left", "right"] | None] = None
    """Where padding stands. None: where a model that classifies texts has it, see Tokenizer.padding_side."""
    dtypes: ClassVar[dict[str, str]] = {}
    """Types of arrays by key, where the values do not tell, such as those of an empty list."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Keys whose values are lists of numbers, of one length in all rows. Their features are rows of a matrix, so that a
    batch is made without a Python object for each number."""
    reads: ClassVar[str] = "logits"
    """The output of an exported program that `decode` takes, see `Objective.read`."""
    token_axis: ClassVar[int | None] = None
    """The axis of the output for a feature that runs over its tokens. None: it has no such axis."""

    @property
    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The roles that the task's data must fill. Rows of `llmft predict` need no targets."""

    @abstractmethod
    def learn(self, train: "Dataset", model: ModelConfig) -> S:
        """Learn labels, tokenizer, and scales from the training rows; of streamed rows, from a sample of them."""

    def check(self, rows: Rows, split: str) -> list[Problem]:
        """What a split, or a part of it, holds that the state cannot express. Default: nothing."""
        return []

    @abstractmethod
    def encode(self, rows: dict[str, list[Any]]) -> Features:
        """Columns of features for a slice of rows: one or many features a row.

        `row` is the place of a feature's row in the slice. `length`, if there, groups features into batches, and `cut`
        marks features that lost some of their row; the other keys go to the objective's `collate`, except for `aside`:
        what `decode` must know of a feature beside its output, such as where its tokens stand in a text. `decode` then
        gets pairs of an output and its aside.
        """

    def collate(self, features: list[dict[str, Any]]) -> Arrays:
        """The inputs of the model: tokens are padded and get an `attention_mask`, the rest is stacked.

        The objective makes its batches of it, and a service without torch its own.

        Args:
            features: those of `encode`, each as a dict, without `row`, `length`, `cut`, and `aside`.

        Returns:
            arrays (B, longest of the key) or (B, ...), int64 or float32.
        """
        if "input_ids" in features[0]:
            tokenizer = self.state.tokenizer
            return pad(features, pad_values(tokenizer), self.padding_side or tokenizer.padding_side)
        return {key: stack([feature[key] for feature in features], self.dtypes.get(key)) for key in features[0]}

    @final
    def unpad(self, outputs: numpy.ndarray, lengths: Sequence[int] | None) -> list[numpy.ndarray]:
        """The output for each feature of a batch, as `decode` takes them.

        Args:
            outputs: (B, ...), with padding on the right where the task has a `token_axis`.
            lengths: the tokens of each feature.
        """
        if self.token_axis is None or lengths is None:
            return list(outputs)
        before = (slice(None),) * self.token_axis
        # Copies: outputs of a whole split are held at once, and padding would be most of the memory.
        return [output[(*before, slice(length))].copy() for output, length in zip(outputs, lengths, strict=True)]

    @abstractmethod
    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        """Answers, one a row in the order of rows; `rows[i]` is the row of `outputs[i]`, which is a numpy array."""

    def output_difference(self, original: list[Any], exported: list[Any]) -> float:
        """How far the outputs of two models for the same rows are apart: 0 if they are alike, NaN if one is NaN.

        Default: max |a - b| / max |a|. A task overrides it if its outputs have no fixed order, or are no amounts.

        Args:
            original: of `unpad`, without asides.
        """
        # By the largest output and not element by element: a logit near 0 would make the ratio meaningless.
        pairs = [
            (numpy.asarray(a, numpy.float64), numpy.asarray(b, numpy.float64))
            for a, b in zip(original, exported, strict=True)
        ]
        apart, largest = [abs(a - b).max(initial=0) for a, b in pairs], [abs(a).max(initial=0) for a, _ in pairs]
        return float(numpy.max(apart) / max(numpy.max(largest), 1e-30))

    @abstractmethod
    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """The metrics of answers, given the rows that they answer."""


class Presenter(ABC):
    """How people see rows and answers: in reports, predictions, and comparisons of runs."""

    separator: ClassVar[str] = ", "
    """What a report shows between the parts of an answer that is a list."""
    no_answer: ClassVar[str] = "–"
    """What a report shows for an answer that is empty."""

    @abstractmethod
    def format_input(self, row: dict[str, Any]) -> str:
        """The input of a row, as reports and predictions show it."""

    def reference(self, row: dict[str, Any]) -> Any:
        """The right answer of a row as predictions keep it, of the form that `answer` has; None if there is none."""
        return row.get("label")

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """What a row adds to the metric that `llmft runs compare` tests, and how wrong its answer is.

        Default: whether it is right. A wrong answer is worse the surer the model was.

        Args:
            reference: as `reference` gives it; None only for a task on raw text.
        """
        if answer["answer"] == reference:
            return RowScore("accuracy", 1.0)
        sure = float(answer.get("scores", {}).get(str(answer["answer"]), 0.0))
        return RowScore("accuracy", 0.0, error=max(sure, 1e-9), why=f"{100 * sure:.1f}%" if sure > 1e-9 else "")

    @abstractmethod
    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up rows by role that a tiny model can learn, for `smoke=true` and the tests."""

    @final
    def format_answer(self, answer: Any) -> str:
        """An answer, or a reference, as a report shows it: text, number, list, parts of a text, or boxes."""
        if isinstance(answer, list) and answer and isinstance(answer[0], dict):
            if "box" in answer[0]:
                counts = Counter(part["label"] for part in answer if not part.get("crowd"))
                return ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or self.no_answer
            return "; ".join(
                f"{part['text']} ({part['label']})" if "label" in part else part["text"] for part in answer
            )
        if isinstance(answer, list) and answer and isinstance(answer[0], float):  # a vector
            return f"{len(answer)} numbers: {', '.join(f'{value:.4g}' for value in answer[:4])}, …"
        if isinstance(answer, dict):  # shares of labels; a reference has its mask beside them
            shares = answer.get("shares", answer)
            return self.separator.join(f"{label} {100 * share:.1f}%" for label, share in shares.items())
        if isinstance(answer, float):
            return f"{answer:,.4g}"
        if isinstance(answer, list):
            answer = self.separator.join(part if isinstance(part, str) else f"{part:,.4g}" for part in answer)
        text = "" if answer is None else str(answer)
        return text or self.no_answer


class Task(Codec[S], Presenter):
    """A kind of problem. Once it has learned from the training rows, it is one object with all that it needs."""

    config: ClassVar[type[TaskConfig]]
    """The section of the configuration, for tasks of other packages."""
    head: ClassVar[str]
    """The Auto class of transformers that puts the head on the model."""
    state_class: type[S]
    """What it learns from the training rows."""
    objective_class: ClassVar[str | type["Objective"]] = "llmft.tasks.objective:Objective"
    """What training minimizes: a class, or `module:name` of one that is imported when it is first used."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def __init_subclass__(cls) -> None:
        """Refuse a task that was written for an older contract: its methods would never be called.

        Raises:
            UserError: with the new name or place of each method, and of those that still take `state`.
        """
        super().__init_subclass__()
        own = {name: found for name, found in vars(cls).items() if inspect.isfunction(found) or name in PROPERTIES}
        found = [f"{old} {RENAMED[old]}" for old in own if old in RENAMED]
        methods = {name: method for name, method in own.items() if inspect.isfunction(method) and name not in RENAMED}
        takes = [name for name, method in methods.items() if "state" in inspect.signature(method).parameters]
        found += [f"{name} takes no state: what was learned is self.state" for name in takes]
        if isinstance(vars(cls).get("state"), type):
            found.append("the class of the state is now called state_class")
        kept = vars(cls).get("state_class", State)
        if not (isinstance(kept, type) and issubclass(kept, State)):
            found.append("state_class must inherit llmft.tasks.task.State, which saves and loads its fields")
        if found:
            raise UserError([Problem(f"{cls.__module__}.{cls.__name__}", what, hint=GUIDE) for what in found])

    @abstractmethod
    def model_kwargs(self) -> dict[str, Any]:
        """What the model's configuration must be for this state, such as the number of labels.

        `added_tokens` says how many of the tokenizer's tokens the task has added: pretrained weights get rows for them.
        """

    @final
    @cached_property
    def objective(self) -> "Objective":
        """What training minimizes, for this state."""
        kind = self.objective_class
        if isinstance(kind, str):
            module, _, name = kind.partition(":")
            kind = getattr(import_module(module), name)
        return kind(self)

    @final
    @property
    def target(self) -> "Target | None":
        """What was learned of the column `label`, for a task whose model has an output a label, or one number."""
        found: Target | None = getattr(self.state, "target", None)
        return found

    @final
    def fit(self, train: "Dataset", model: ModelConfig) -> Self:
        """The task with what it has learned from the training rows. No weights are loaded.

        Args:
            train: of streamed rows, a sample in which every label occurs.
        """
        return self.with_state(self.learn(train, model))

    @final
    def with_state(self, state: S) -> Self:
        """The same task with this state; the task itself stays as it is."""
        other = copy(self)
        other.__dict__.pop("objective", None)
        other.state = state
        return other

    @final
    def with_target(self, target: "Target") -> Self:
        """The same task with another target, such as one that is calibrated."""
        return self.with_state(replace(self.state, target=target))  # type: ignore[call-arg]

    @final
    def for_inference(self, rows: Literal["", "row", "file"] = "row") -> Self:
        """The task for rows of `llmft predict`, which may differ from those that `eval` scores.

        Args:
            rows: `file` for the columns of a whole file, which must all be there; a typed row may leave some out. Empty
                for answers as `eval` has them, with the keys that only `score` reads.
        """
        state = copy(self.state)
        state.inference = rows
        return self.with_state(state)

    @final
    def save(self, folder: Path) -> None:
        """Write what was learned below `folder`."""
        self.state.save(folder)

    @final
    def load(self, folder: Path) -> Self:
        """The task with what `save` wrote."""
        return self.with_state(self.state_class.load(folder))


OBJECTIVE = "now belongs to the objective: write a class for objective_class, see llmft/tasks/objective.py"
OF_THE_TARGET = "now belongs to self.state.target, see llmft/tasks/targets/target.py"
ROW_SCORE = "is now a part of row_score, which gives a RowScore with error and why"
OF_THE_STATE = "is now the property {} of the state"
ATTRIBUTES = "is now told by the form of the answer: set separator or no_answer"
PROPERTIES = ("tunes", "calibrates")

RENAMED = {
    # Of version 0.1.0.
    "fit": "is now called learn",
    "notes": OF_THE_STATE.format("notes"),
    "needed": "is now called model_kwargs",
    "counted": f"is now mean_over, an attribute; it {OBJECTIVE}",
    "of_loss": f"is now mean_over, an attribute; it {OBJECTIVE}",
    "first_answers": f"is now called reference_scores; it {OBJECTIVE}",
    "tunes": "is now called calibrates",
    "tuned": "is now called calibrate",
    "asked": "is now self.state.inference, which is set for rows of predict",
    "asked_file": "is now self.state.inference, which is set for rows of predict",
    "asked_columns": "is now a part of columns, which may look at self.state.inference",
    "talks": "is now called chat_state",
    "inputs": "is now called input_positions",
    "numbers": "is gone: outputs are compared as they are",
    "readout": f"is now called export_outputs; it {OF_THE_TARGET}",
    "made_up": "is now called example_row",
    "thresholds_by_label": f"is now called label_thresholds; it {OF_THE_TARGET}",
    "metrics": "is now called score",
    "shown": "is now called format_input",
    "written": ATTRIBUTES,
    "pieces": "is gone: a feature is shown by its tokens and their labels",
    "highlights": "is gone: parts of a text are told by their start, end and label",
    "answers": OF_THE_STATE.format("description"),
    "badness": ROW_SCORE,
    "how_bad": ROW_SCORE,
    "synthetic": "is now called synthetic_rows",
    # Of the months after it.
    "collator": f"is now called collate; it {OBJECTIVE}",
    "loss": OBJECTIVE,
    "predict": OBJECTIVE,
    "reference_scores": OBJECTIVE,
    "loss_weight": f"is now mean_over, an attribute; it {OBJECTIVE}",
    "metrics_from_loss": f"is now mean_over, an attribute; it {OBJECTIVE}",
    "for_inference": "is now self.state.inference, which is set for rows of predict",
    "inference_columns": "is now a part of columns, which may look at self.state.inference",
    "notes_of_rows": "is now a part of notes_on",
    "notes_of_features": "is now a part of notes_on",
    "row_weights": OF_THE_TARGET,
    "export_outputs": OF_THE_TARGET,
    "formula": OF_THE_TARGET,
    "label_thresholds": OF_THE_TARGET,
    "uncalibrated": OF_THE_TARGET,
    "describe_answers": OF_THE_STATE.format("description"),
    "error_score": ROW_SCORE,
    "format_error": ROW_SCORE,
    "format_answer": ATTRIBUTES,
    "mark_trained": "is gone: a feature is shown by its tokens and their labels",
    "spans": "is gone: parts of a text are told by their start, end and label",
    "flatten": "is gone: outputs are compared as they are",
}
"""Methods of a task in earlier versions, and where they are now."""
