"""The section of the task that recommends items to users."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.tasks import TaskConfig


class Recommendation(TaskConfig):
    """Items for a user, ranked or rated, learned from interactions."""

    tiny: ClassVar[dict[str, Any]] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {
        "gru4rec": {"hidden_size": 16},
        "bpr": {"factors": 8},
        "svdpp": {"factors": 4},
        "ials": {"factors": 8, "iterations": 3},
        "popularity": {},
        "item_neighbors": {},
        "user_neighbors": {},
    }
    of_data: ClassVar[tuple[str, ...]] = ("like_from", "scale", "min_per_user", "min_per_item")
    streams: ClassVar[bool] = False
    prefixes: ClassVar[bool] = False
    decoding: ClassVar[tuple[str, ...]] = ("top_k", "ks")
    files: ClassVar[str] = "dataset=csv dataset.test=YOUR.csv"
    then: ClassVar[str] = "predict {run} predict.text=USER"
    answered: ClassVar[tuple[str, ...]] = ("answer", "scores", "by", "error")

    name: Literal["recommendation"] = "recommendation"
    """Items for a user, ranked or rated, learned from interactions."""

    problem: Literal["ranking", "rating"] = "ranking"
    """`ranking`: list the items that a user has next; every interaction counts alike. `rating`: predict the rating that
    a user gives to an item."""

    top_k: int = Field(default=10, ge=1, le=100)
    """How many items an answer lists."""

    ks: list[int] = Field(default_factory=lambda: [10], min_length=1)
    """The k of each metric: `[5,10]` reports `ndcg@5`, `ndcg@10`, and so on. The first one selects the checkpoint."""

    max_length: int = Field(default=50, ge=1, le=10_000)
    """How many of the last items of a history a model reads. Longer ones are split in training, so that each item is
    learned once, and cut in answers."""

    repeat: bool = False
    """Whether a user may have an item again. If false, only the first interaction with an item counts (of ratings the
    last), and the history is not listed; if true, all count, and it may be listed."""

    like_from: float | None = None
    """Only interactions with at least this rating count, such as 4. Unset: all of them, disliked items included."""

    scale: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """The lowest and the highest rating, such as `[1,5]`; others are an error. Unset: any number."""

    min_per_user: int = Field(default=1, ge=1)
    """Leave out users with fewer interactions, and items with fewer than `min_per_item`, until all have them. It is
    done before rows are split."""

    min_per_item: int = Field(default=1, ge=1)
    """Leave out items with fewer interactions."""

    baseline: bool | None = None
    """Score the most popular items as a baseline. Unset: yes, except for models without training."""

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint."""
        return "rmse" if self.problem == "rating" else f"ndcg@{self.ks[0]}"

    @model_validator(mode="after")
    def _numbers_make_sense(self) -> Self:
        if any(not 1 <= k <= 1000 for k in self.ks) or len(set(self.ks)) < len(self.ks):
            raise ValueError("ks must be different numbers from 1 to 1,000")
        if self.scale and self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale must have the lower rating first, got {self.scale}")
        return self
