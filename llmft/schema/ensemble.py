"""The section `ensemble`: several runs that answer together."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Section


class EnsembleConfig(Section):
    """Several runs that answer together: `llmft eval RUN RUN ensemble=mean`. A sweep's folder names all its runs."""

    name: Literal["mean", "vote"] = "mean"
    """`mean` of the probabilities, or of the numbers; `vote`: what most runs answer, and among equals the mean."""

    weights: list[float] | None = None
    """How much each run counts, in the order of the runs, from 0 on. Unset: all alike."""

    runs: list[str] = Field(default_factory=list)
    """The folders of the runs: the words after `llmft eval`."""
