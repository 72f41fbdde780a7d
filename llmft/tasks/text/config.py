"""The sections of the tasks on texts."""

from collections import Counter
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llmft.schema.metric import METRICS_OF
from llmft.schema.section import Section
from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig
from llmft.tasks.targets.config import TargetConfig


class ContrastiveConfig(Section):
    """Tuning the encoder on pairs of rows, before the head is trained: for a few labeled rows."""

    epochs: int = Field(default=0, ge=0)
    """How often all training rows are compared with each other. 0: the encoder is not tuned so. 20 is a good value for
    eight rows a label."""

    rows: int = Field(default=64, ge=2)
    """How many rows are compared at a time, each with all others."""

    encoder_lr: float = Field(default=5e-5, gt=0, le=1)
    """The largest learning rate of these epochs, which use AdamW."""

    loss: Literal["cosine", "supervised_contrastive"] = "cosine"
    """`cosine`: two rows of a label should have a cosine of 1, and others of 0, as in SetFit.
    `supervised_contrastive`: rows of a label should be nearer to each other than to the rest (Khosla et al. 2020)."""


class TextClassification(TargetConfig, TaskConfig):
    """Classification or regression for a text or a pair of texts."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER

    name: Literal["text_classification"] = "text_classification"
    """Classification or regression for a text or a pair of texts."""

    max_length: int = Field(default=128, ge=4, le=131072)
    """Longest input in tokens. Longer ones are cut, and the share that is cut is printed. Memory and time grow with
    it."""

    contrastive: ContrastiveConfig = ContrastiveConfig()

    baseline: bool | None = None
    """Fit a baseline to the same rows, TF-IDF with logistic regression (ridge regression for numbers), and show its
    metrics. Unset: yes for up to 50,000 training rows that are not streamed; in a sweep, once for each set of rows."""

    @property
    def tunes_encoder(self) -> bool:
        return self.contrastive.epochs > 0


class TokenClassification(TaskConfig):
    """Named entity recognition: find spans of words and label each, such as persons and places."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    of_data: ClassVar[tuple[str, ...]] = ("labels",)
    files: ClassVar[str] = "dataset=conll dataset.test=YOUR.conll"
    answered: ClassVar[tuple[str, ...]] = ("answer", "tokens", "tags", "error")

    name: Literal["token_classification"] = "token_classification"
    """Named entity recognition: find spans of words and label each, such as persons and places."""

    labels: list[str] | None = Field(default=None, min_length=1)
    """All entity labels, such as `[person, place]`. Unset: those of the training split, sorted."""

    max_length: int = Field(default=256, ge=8, le=131072)
    """Longest input in tokens. Longer texts are read in several windows of this length; nothing is cut off."""

    stride: int = Field(default=32, ge=0)
    """Tokens that a window shares with the one before it. Words in both get their answer from the window with more
    context."""

    @property
    def metric(self) -> str:
        return "f1"

    @model_validator(mode="after")
    def _labels_are_told_apart(self) -> Self:
        if self.labels and (twice := [label for label, count in Counter(self.labels).items() if count > 1]):
            raise ValueError(f"labels must list each label once, got {', '.join(map(repr, twice))} twice")
        return self

    @model_validator(mode="after")
    def _windows_move_on(self) -> Self:
        if 2 * self.stride > self.max_length:
            raise ValueError(f"stride must be at most half of max_length={self.max_length}, got {self.stride}")
        return self


class RelationExtraction(TargetConfig, TaskConfig):
    """Relation extraction: how two marked entities in a text are related."""

    # Macro F1: most sets have one large class `Other`, which would dominate accuracy.
    best: ClassVar[dict[str, str]] = {"single_label": "f1"}
    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER

    name: Literal["relation_extraction"] = "relation_extraction"
    """Relation extraction: how two marked entities in a text are related, direction included."""

    problem: Literal["single_label"] = "single_label"
    """One relation per row; a label such as `Other` stands for none."""

    max_length: int = Field(default=128, ge=8, le=131072)
    """Longest input in tokens. Longer ones are cut around the two entities, and the share that is cut is printed."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics for one label, and SemEval's."""
        return tuple(METRICS_OF[self.name])


class QuestionAnswering(TaskConfig):
    """Extractive question answering: find the span of a text that answers a question."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    streams: ClassVar[bool] = False
    searches: ClassVar[bool] = True
    decoding: ClassVar[tuple[str, ...]] = ("max_answer_length", "top_k", "retriever")
    files: ClassVar[str] = "dataset=squad dataset.test=YOUR.json"

    name: Literal["question_answering"] = "question_answering"
    """Extractive question answering: find the span of a text that answers a question."""

    max_length: int = Field(default=256, ge=16, le=131072)
    """Longest input in tokens, a question with part of its context. A longer context is read in several windows. A
    question may take half of it; the rest of the question is cut."""

    stride: int = Field(default=64, ge=0)
    """Tokens that two windows of a long context share. An answer longer than this may be split between windows and then
    cannot be found."""

    max_answer_length: int = Field(default=30, ge=1)
    """Longest answer in tokens. Longer spans are never chosen."""

    top_k: int = Field(default=5, ge=1)
    """For questions without a context: how many passages of `dataset.corpus` are found and read for each."""

    retriever: str = "bm25"
    """What finds passages: `bm25` by their words, or the name or folder of a run of task=embedding by their meaning.
    Such a run is not copied: it must stay where it is."""

    unanswerable: bool = False
    """Whether a context may hold no answer; the reference is then empty. The threshold for giving no answer is set on
    the validation rows."""

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint if `trainer.metric_for_best` is unset."""
        return "f1"

    @model_validator(mode="after")
    def _windows_move_on(self) -> Self:
        if self.stride >= least_context(self.max_length):
            raise ValueError(f"stride must be below half of max_length={self.max_length}, got {self.stride}")
        return self


def least_context(max_length: int) -> int:
    """Tokens that are left for the context next to the longest question."""
    return max_length // 2
