"""The sections of the tasks on tables: a label or a number of any table, and clicks."""

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llmft.schema.metric import METRICS_OF
from llmft.schema.section import as_texts
from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig
from llmft.tasks.targets.config import Labels, TargetConfig


class TableSection(TargetConfig, TaskConfig):
    """The columns of a table: what kind each has, and how it is encoded."""

    tiny: ClassVar[dict[str, Any]] = {"hidden_sizes": [16], "dropout": 0.0}
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


class Tabular(TableSection):
    """Classification or regression for rows of a table."""

    best: ClassVar[dict[str, str]] = TargetConfig.best | {"regression": "r2"}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {
        "linear": {},
        "ft_transformer": TINY_TRANSFORMER,
        "boosting": {"max_iter": 20, "max_leaf_nodes": 4, "min_samples_leaf": 2},
    }

    name: Literal["tabular"] = "tabular"
    """Classification or regression for rows of a table."""


class Ctr(TableSection):
    """The probability of a click, for rows of a user, an item, and what is known of both."""

    best: ClassVar[dict[str, str]] = {"single_label": "auc"}
    tiny: ClassVar[dict[str, Any]] = {"hidden_sizes": [16], "embedding_size": 4, "dropout": 0.0, "id_dropout": 0.0}
    of_data: ClassVar[tuple[str, ...]] = (*TableSection.of_data, "lists", "hash_buckets", "like_from")

    name: Literal["ctr"] = "ctr"
    """The probability of a click, for rows of a user, an item, and what is known of both."""

    problem: Literal["single_label"] = "single_label"
    """What the column `label` holds: whether the row is a click."""

    labels: Labels = Field(default=["0", "1"], min_length=2, max_length=2)
    """The two labels; the second one is the click."""

    like_from: float | None = None
    """For a label of numbers, such as ratings: from this number on, a row is a click. Unset: the column `label` holds
    one of `labels`."""

    lists: list[str] = Field(default_factory=list)
    """Columns with several values in a cell, such as genres. Their vectors are averaged."""

    list_separator: str | None = Field(default=None, min_length=1)
    """The text between the values of a list. Unset: for each column `|`, `;`, `,`, or a space, the first of these that
    some cell of it has. Lists of JSON need none."""

    max_list: int = Field(default=16, ge=1, le=1000)
    """How many values of a list are read, the first ones; a note counts rows with more."""

    user: str | None = None
    """The column that names the user: for GAUC, and for the history."""

    item: str | None = None
    """The column that names what is clicked. It and `history` have one vocabulary."""

    time: str | None = None
    """A column of numbers or dates. With `user` and `item`, a row gets the items that its user clicked before: those of
    training rows with an earlier time. The column is not a feature."""

    history: str | None = None
    """A column with the items that the user clicked before the row, the latest last, if the file has one."""

    max_history: int = Field(default=20, ge=0, le=1000)
    """How many items of the history are read, the latest ones. 0: none is built from `user`, `item`, and `time`."""

    hash_buckets: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)
    """Columns whose values are hashed instead of learned, `{COLUMN: BUCKETS}`. Values of one bucket share a vector. For
    columns of millions of values: a vocabulary takes memory, and with streaming a pass over all rows."""

    min_count: int = Field(default=2, ge=1)
    """A value that occurs in fewer training rows is unknown; all unknown values of a column share a vector."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of clicks."""
        return tuple(METRICS_OF["ctr"])

    @property
    def builds_history(self) -> bool:
        """Whether the task builds the history from the training rows."""
        return self.history is None and None not in (self.user, self.item, self.time) and self.max_history > 0

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if self.history is not None and self.item is None:
            raise ValueError("history needs item, the column with the same vocabulary: task.item=COLUMN")
        if self.history is not None and self.max_history == 0:
            raise ValueError("max_history must be 1 or more with history")
        if self.time is not None and self.history is None and not (self.user and self.item):
            raise ValueError("time is for the history, which needs user and item: task.user=COLUMN task.item=COLUMN")
        roles = [name for name in (self.user, self.item, self.time, self.history) if name is not None]
        others = [*self.lists, *(name for name in (self.time, self.history) if name is not None)]
        kinds = [*self.numbers, *self.dates, *self.texts, *self.categories, *self.hash_buckets]
        twice = sorted({name for name in roles if roles.count(name) > 1} | {name for name in others if name in kinds})
        if twice:
            raise ValueError(f"{', '.join(map(repr, twice))} must have one role")
        return self
