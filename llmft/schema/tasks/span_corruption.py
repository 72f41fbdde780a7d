"""The section `task` of span corruption."""

from typing import Literal

from pydantic import Field

from llmft.schema.language_model import LanguageModelConfig


class SpanCorruption(LanguageModelConfig):
    """Runs of tokens that are cut out of a text, as T5 learns: an encoder reads the rest, a decoder writes them."""

    name: Literal["span_corruption"] = "span_corruption"
    """Runs of tokens that are cut out of a text, as T5 learns: an encoder reads the rest, a decoder writes them."""

    density: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are cut out."""

    mean_length: float = Field(default=3.0, ge=1)
    """Tokens of such a run, on average."""
