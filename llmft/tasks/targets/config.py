"""What several tasks share: the target is a label, several labels, or a number."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from llmft.schema.metric import METRICS_OF
from llmft.schema.section import Section, as_texts, no_booleans


def label_name(text: str) -> str:
    """The label in its spelling for all file formats: Python's `True` and a workbook's `TRUE` become `true`, as in
    JSON."""
    return text.lower() if text.lower() in ("true", "false") else text


def _as_labels(values: Any) -> Any:
    texts = as_texts(values)
    if not isinstance(texts, list):
        return values
    if len(set(map(str, texts))) < max(len(texts), 2):
        raise ValueError("must list two labels or more, each once")
    return [label_name(text) if isinstance(text, str) else text for text in texts]


def _by_label(values: Any) -> Any:
    """Labels such as in `{0: 1, 1: 3}` need no quotes."""
    if not isinstance(values, dict):
        return values
    no_booleans(values)
    return {label_name(str(label)): value for label, value in values.items()}


Labels = Annotated[list[str], BeforeValidator(_as_labels)]
Weights = dict[str, Annotated[float, Field(gt=0)]]
ProblemType = Literal["single_label", "multi_label", "regression"]


class TargetConfig(Section):
    """The target, the loss, and how scores become answers."""

    best: ClassVar[dict[str, str]] = {"single_label": "accuracy", "multi_label": "f1_micro", "regression": "pearson"}
    """Problem -> the metric that selects its best checkpoint."""

    problem: ProblemType = "single_label"
    """What the column `label` holds: one label, several labels or none, or a number."""

    labels: Labels | None = None
    """All labels, in the order of the model's outputs. Unset: the labels of the training split, sorted."""

    separator: str = Field(default=",", min_length=1)
    """multi_label: the character between the labels in a cell, as in `red,round`. JSON and parquet may hold lists."""

    loss: Literal["cross_entropy", "focal", "mse", "mae", "huber"] | None = None
    """The loss of training. For labels `cross_entropy` (the default) or `focal`; for numbers `mse` (the default),
    `mae`, or `huber`. Evaluation always reports cross entropy or mse, so that runs can be compared."""

    focal_gamma: float = Field(default=2.0, ge=0)
    """focal: how strongly rows that the model already gets right are discounted. 0 is cross entropy; 2 is the value of
    the paper."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """cross_entropy: share of the target probability that is spread evenly over all labels. 0.1 makes scores less
    extreme."""

    class_weights: Annotated[Literal["balanced"] | Weights | None, BeforeValidator(_by_label)] = None
    """Weight of each label in the loss, `{LABEL: WEIGHT}`; 1 for labels that are not listed. `balanced`: each label has
    the same total weight, which helps rare labels. With multi_label, the weight applies to the rows that have the
    label."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["f1", "accuracy", "matthews"] = 0.5
    """The score from which a label is given: the second of two labels, or each one with multi_label. A metric: the
    threshold that is best for it on the validation rows."""

    calibrate: bool = False
    """Temperature scaling: divide the logits by the temperature that fits the validation rows best, so that a score of
    0.8 is right in about 80% of rows. Answers stay the same unless `threshold` is set."""

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint if `trainer.metric_for_best` is unset."""
        return self.best[self.problem]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of this problem."""
        return tuple(METRICS_OF[self.problem])
