"""The section of the task on tables."""

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llmft.schema.section import as_texts
from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig
from llmft.tasks.targets.config import TargetConfig


class Tabular(TargetConfig, TaskConfig):
    """A label, several labels or a number for a row of a table."""

    best: ClassVar[dict[str, str]] = TargetConfig.best | {"regression": "r2"}
    tiny: ClassVar[dict[str, Any]] = {"hidden_sizes": [16], "dropout": 0.0}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {
        "linear": {},
        "ft_transformer": TINY_TRANSFORMER,
        "boosting": {"max_iter": 20, "max_leaf_nodes": 4, "min_samples_leaf": 2},
    }
    of_data: ClassVar[tuple[str, ...]] = (
        "labels",
        "class_weights",
        "numbers",
        "categories",
        "dates",
        "texts",
        "ignore",
        "missing",
    )

    name: Literal["tabular"] = "tabular"
    """A label, several labels or a number for a row of a table."""

    numbers: list[str] = Field(default_factory=list)
    """Columns where any value that is not a number is an error. Others count as numbers if all their values are."""

    categories: list[str] = Field(default_factory=list)
    """Columns that are categories although their values look like numbers, such as postal codes."""

    dates: list[str] = Field(default_factory=list)
    """Columns where any value that is not a date is an error. Others count as dates if all their values are."""

    texts: list[str] = Field(default_factory=list)
    """Columns of free text, such as a review. Their words become numbers by TF-IDF and a truncated SVD, both learnt
    from the training rows alone. None is taken for one without being named here."""

    text_size: int = Field(default=64, ge=1, le=1024)
    """How many numbers a text becomes, at most. More say more, and cost more."""

    ignore: list[str] = Field(default_factory=list)
    """Columns to leave out. Left out without asking: those of one value, and those that number the rows."""

    missing: Annotated[list[str], BeforeValidator(as_texts)] = Field(default_factory=list)
    """Cells that stand for no value, such as `'—'` or `-1`, besides the usual: nothing, `NA`, `null`, `?`, `#N/A`."""

    scaling: Literal["standard", "quantile"] = "standard"
    """Numbers by mean and deviation, or by quantiles to the normal distribution, which tames long tails."""

    bins: int = Field(default=0, ge=0, le=1000)
    """linear, mlp, ft_transformer: this many bins of each number at most, of as many training rows each, by which the
    model sees where it lies and not only how large it is (piecewise-linear encoding). 0: none."""

    min_count: int = Field(default=2, ge=1)
    """A category, or a word of a text column, in fewer training rows than this counts as unseen."""

    baseline: bool | None = None
    """Fit gradient boosting to the same rows, and show its scores beside those of the model. Unset: for up to 50,000
    training rows of another model, in a sweep once for each set of rows."""

    importance: bool | None = None
    """Show in the report how much each column matters: what the score loses once its cells change places among 1,000
    validation rows, or test rows. Unset: yes, except for `smoke=true`; in a sweep once for each set of rows."""

    @model_validator(mode="after")
    def _one_kind_a_column(self) -> Self:
        chosen = Counter([*self.numbers, *self.categories, *self.dates, *self.texts, *self.ignore])
        if twice := [name for name, count in chosen.items() if count > 1]:
            names = ", ".join(map(repr, twice))
            raise ValueError(f"names {names} twice among numbers, categories, dates, texts and ignore")
        return self
