"""The section `search`: which of many settings are tried, and which trials are given up early."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Section

TRIALS = 20


class SearchConfig(Section):
    """Look for the best settings, by Optuna. What is searched are the keys with several values or a range: `KEY=A,B`,
    `KEY=range(1,9)`, `KEY=interval(0,0.5)`, `KEY=log(1e-5,1e-3)`; in a recipe, those of `hydra.sweeper.params`."""

    name: Literal["random", "tpe", "grid"] = "tpe"
    """`random` draws each trial anew, `tpe` near those that did well, `grid` takes every combination."""

    trials: int | None = Field(default=None, ge=1)
    """How many settings to try. Unset: 20, or the whole grid. The same command with more goes on with the search."""

    seed: int = Field(default=0, ge=0)
    """Seed of the draws. Apart from the run's `seed`, which all trials share."""

    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials stop early. `median`: those worse than the median of the others, as far along as these are."""

    timeout: float | None = Field(default=None, gt=0)
    """Seconds after which no further trial starts."""
