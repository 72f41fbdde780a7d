"""The sections of the tasks that put texts side by side."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.section import Section
from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig

Form = Literal["pairs", "scores", "labels"]


class PromptsConfig(Section):
    """Texts that are put in front of every text of a role."""

    query: str | None = None
    """In front of `text`, such as `query: ` for E5. Unset: what the folder of `model.path` says, mostly nothing."""

    passage: str | None = None
    """In front of `text_pair` and `negative`, such as `passage: `. Unset: as for `query`."""


class Embedding(TaskConfig):
    """Text embeddings: a vector for each text, so that texts of similar meaning are near each other."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    forms: ClassVar[dict[str, Form]] = {
        "in_batch": "pairs",
        "triplet": "pairs",
        "cosine": "scores",
        "cosent": "scores",
        "batch_hard": "labels",
        "supervised_contrastive": "labels",
    }
    searches: ClassVar[bool] = True
    decoding: ClassVar[tuple[str, ...]] = ("top_k", "negatives", "negative_margin")
    answered: ClassVar[tuple[str, ...]] = ("answer", "score", "left_out", "error")
    best: ClassVar[dict[Form, str]] = {"pairs": "ndcg@10", "scores": "spearman", "labels": "accuracy"}
    then: ClassVar[str] = "predict {run} predict.text='...'"

    name: Literal["embedding"] = "embedding"
    """Text embeddings: a vector for each text, so that texts of similar meaning are near each other."""

    loss: Literal["in_batch", "triplet", "cosine", "cosent", "batch_hard", "supervised_contrastive"] = "in_batch"
    """The loss of training, which says what a row holds. Pairs of a text and what belongs to it, `text_pair`:
    `in_batch`, where the pairs of the other rows of a batch are the wrong ones, or `triplet`, where a column `negative`
    has one. Pairs with a number in `label` that says how alike they are: `cosent`, which reads the order of the numbers
    alone, or `cosine`, which wants the cosine to be the number. Texts with a class in `label`: `batch_hard` or
    `supervised_contrastive`."""

    scale: float = Field(default=20.0, gt=0)
    """in_batch, cosent, supervised_contrastive: what cosines are multiplied by, the inverse of the temperature."""

    symmetric: bool = False
    """in_batch: also find the text for each `text_pair`; the loss is the mean of both directions."""

    margin: float = Field(default=5.0, gt=0)
    """triplet, batch_hard: how much farther away, in Euclidean distance, a wrong text must be than a right one."""

    chunk: int | None = Field(default=None, ge=1)
    """Texts whose activations are in memory at once. Gradients of the whole batch stay exactly the same, so
    `trainer.batch_size` can be much larger than what fits; each text is computed twice. Unset: all of a batch."""

    matryoshka: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    """Train the first values of a vector to be a vector by themselves, such as `[384,192,96]`: the loss is the sum over
    these lengths."""

    pooling: Literal["mean", "cls", "last", "max"] | None = None
    """How the vectors of the tokens become one: their mean, the first token's, the last token's, or the largest of each
    dimension. Unset: what the folder of `model.path` says, as sentence-transformers saves it, else `mean`."""

    normalize: bool | None = None
    """Give all vectors the length 1. Unset: what the folder of `model.path` says, else true."""

    prompts: PromptsConfig = PromptsConfig()

    max_length: int = Field(default=128, ge=4, le=131072)
    """Longest text in tokens, its prompt included. Longer ones are cut, and the share that is cut is printed."""

    top_k: int = Field(default=5, ge=0, le=1000)
    """predict with `dataset.corpus`: how many passages answer a query. 0: the answer is its vector."""

    negatives: int = Field(default=0, ge=0, le=1000)
    """predict with `dataset.corpus`, for rows with a `text_pair`: find so many hard negatives for each row, passages
    that are near the query and do not belong to it, for the column `negative` of another training. `left_out` says why
    others are none. 0: none."""

    negative_margin: float = Field(default=0.95, gt=0, le=1)
    """negatives: a passage whose cosine is above this share of the text_pair's is left out, since it may be a right
    answer that nobody has marked."""

    @property
    def form(self) -> Form:
        """What a row holds."""
        return self.forms[self.loss]

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint if `trainer.metric_for_best` is unset."""
        return self.best[self.form]

    @property
    def compares_rows(self) -> bool:
        """Whether the loss compares the rows of a batch, so that a smaller batch is another loss."""
        return self.loss not in ("cosine", "triplet")

    @model_validator(mode="after")
    def _keys_are_read(self) -> Self:
        if self.symmetric and self.loss != "in_batch":
            raise ValueError(f"symmetric must be false with loss={self.loss}: it is of loss=in_batch")
        if len(set(self.matryoshka)) < len(self.matryoshka):
            raise ValueError("matryoshka must list each length once")
        return self


class Reranking(TaskConfig):
    """Reranking: a number for a query and a text together, by which the candidates of a query are put in order."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER

    name: Literal["reranking"] = "reranking"
    """Reranking: a number for a query and a text together, by which the candidates of a query are put in order."""

    loss: Literal["binary", "listwise"] = "binary"
    """The loss of training. `binary`: cross entropy of each candidate by itself, for rows with a `label`, 0 or 1 or a
    number between, and for rows with `negative`. `listwise`: cross entropy of the right candidates of a row among all
    of its candidates, for rows with `negative`."""

    negatives: int | None = Field(default=None, ge=1)
    """Read at most this many texts of `negative`, the first ones, in training. Unset: all."""

    max_length: int = Field(default=256, ge=8, le=131072)
    """Longest query and text together, in tokens. The text of a longer pair is cut, and the share that is cut is
    printed."""

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint if `trainer.metric_for_best` is unset."""
        return "ndcg@10"
