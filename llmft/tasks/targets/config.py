"""What is answered where it is labels or a number: the keys that several tasks share."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from llmft.schema.metric import METRICS_OF
from llmft.schema.section import Section, as_texts, no_booleans


def label_name(text: str) -> str:
    """A label as all files write it: `True` of Python and `TRUE` of a workbook are `true`, as in JSON."""
    return text.lower() if text.lower() in ("true", "false") else text


def _as_labels(values: Any) -> Any:
    texts = as_texts(values)
    if not isinstance(texts, list):
        return values
    if len(set(map(str, texts))) < max(len(texts), 2):
        raise ValueError("needs two labels or more, each once")
    return [label_name(text) if isinstance(text, str) else text for text in texts]


def _by_label(values: Any) -> Any:
    """`{0: 1, 1: 3}` is written without quotes, too."""
    if not isinstance(values, dict):
        return values
    no_booleans(values)
    return {label_name(str(label)): value for label, value in values.items()}


Labels = Annotated[list[str], BeforeValidator(_as_labels)]
Weights = dict[str, Annotated[float, Field(gt=0)]]
ProblemType = Literal["single_label", "multi_label", "regression"]


class TargetConfig(Section):
    """What is answered, how that is trained, and how scores become answers."""

    best: ClassVar[dict[str, str]] = {"single_label": "accuracy", "multi_label": "f1_micro", "regression": "pearson"}
    """The metric of each problem that picks the best checkpoint."""

    problem: ProblemType = "single_label"
    """What `label` holds: one label of many, several of them (or none), or a number."""

    labels: Labels | None = None
    """All labels, in the order of the model's outputs. Unset: the labels of the training split, sorted."""

    separator: str = Field(default=",", min_length=1)
    """multi_label: what stands between the labels of a cell, as in `red,round`. JSON and parquet may hold lists."""

    loss: Literal["cross_entropy", "focal", "mse", "mae", "huber"] | None = None
    """What training makes small. Labels: `cross_entropy` (unset) or `focal`; numbers: `mse` (unset), `mae` or `huber`.
    The loss of evaluations is always the plain one, cross entropy or mse, so that runs can be compared."""

    focal_gamma: float = Field(default=2.0, ge=0)
    """focal: how much less an example counts that the model is sure of."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """cross_entropy: the share of a target that is spread evenly over all labels."""

    class_weights: Annotated[Literal["balanced"] | Weights | None, BeforeValidator(_by_label)] = None
    """How much the rows of a label count, `{LABEL: WEIGHT}`, 1 for those left out. `balanced`: all labels count alike
    in sum. In multi_label the weight is that of the rows that have the label."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["f1", "accuracy", "matthews"] = 0.5
    """The score from which a label is given: of the second of two labels, or of each in multi_label. A metric: the one
    that makes it best on the validation rows."""

    calibrate: bool = False
    """Divide the model's logits by the temperature that fits the validation rows best, so that scores are shares."""

    @property
    def metric(self) -> str:
        """The metric that picks the best checkpoint unless `trainer.metric_for_best` says otherwise."""
        return self.best[self.problem]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that there are for this problem."""
        return tuple(METRICS_OF[self.problem])
