"""The section of the task on tables."""

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llmft.schema.section import as_texts
from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig
from llmft.tasks.targets.config import TargetConfig


class Tabular(TargetConfig, TaskConfig):
    """Classification or regression for rows of a table."""

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
    """Classification or regression for rows of a table."""

    numbers: list[str] = Field(default_factory=list)
    """Columns of numbers; any other value in them is an error. A column that is not listed counts as numbers if all its
    values are."""

    categories: list[str] = Field(default_factory=list)
    """Columns of categories, although their values look like numbers, such as postal codes."""

    dates: list[str] = Field(default_factory=list)
    """Columns of dates; any other value in them is an error. A column that is not listed counts as dates if all its
    values are."""

    texts: list[str] = Field(default_factory=list)
    """Columns of free text, such as a review, which become features by TF-IDF and a truncated SVD, both fitted to the
    training rows only. A column is only treated as text if it is listed here."""

    text_size: int = Field(default=64, ge=1, le=1024)
    """Largest number of features that a text column becomes. More keep more of the text, and take more time."""

    ignore: list[str] = Field(default_factory=list)
    """Columns to leave out. Columns with a single value and columns that number the rows are left out anyway."""

    missing: Annotated[list[str], BeforeValidator(as_texts)] = Field(default_factory=list)
    """Cells that mean a missing value, such as `'—'` or `-1`, besides the usual ones: an empty cell, `NA`, `null`, `?`,
    `#N/A`."""

    scaling: Literal["standard", "quantile"] = "standard"
    """Scale numbers by mean and standard deviation (`standard`), or by their quantiles to a normal distribution
    (`quantile`), which helps if a few values are far larger than the rest."""

    bins: int = Field(default=0, ge=0, le=1000)
    """linear, mlp, ft_transformer: encode each number by at most this many bins with equally many training rows
    (piecewise-linear encoding), so that the model can learn a different effect in each. 0: only the scaled number."""

    min_count: int = Field(default=2, ge=1)
    """A category, or a word of a text column, that occurs in fewer training rows counts as unseen."""

    baseline: bool | None = None
    """Fit gradient boosting to the same rows as a baseline and show its metrics. Unset: yes for up to 50,000 training
    rows if the model is another one; in a sweep, once for each set of rows."""

    importance: bool | None = None
    """Show in the report how much each column matters: how much the metric falls when its cells are shuffled among
    1,000 validation or test rows. Unset: yes, except with `smoke=true`; in a sweep, once for each set of rows."""

    @model_validator(mode="after")
    def _one_kind_a_column(self) -> Self:
        chosen = Counter([*self.numbers, *self.categories, *self.dates, *self.texts, *self.ignore])
        if twice := [name for name, count in chosen.items() if count > 1]:
            names = ", ".join(map(repr, twice))
            raise ValueError(f"numbers, categories, dates, texts and ignore must name a column once, got {names} twice")
        return self
