"""The section `task` of span corruption."""

from typing import ClassVar, Literal

from pydantic import Field

from llmft.schema.language_model import LanguageModelConfig


class SpanCorruption(LanguageModelConfig):
    """Runs of tokens that are cut out of a text, as T5 learns: an encoder reads the rest, a decoder writes them."""

    then: ClassVar[str] = "finetune +recipe=t5_summary model.path={run} dataset=csv dataset.train=YOUR.csv"

    name: Literal["span_corruption"] = "span_corruption"
    """Runs of tokens that are cut out of a text, as T5 learns: an encoder reads the rest, a decoder writes them."""

    density: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are cut out."""

    mean_length: float = Field(default=3.0, ge=1)
    """Tokens of such a run, on average."""
