"""The section `tracking`: who else is told the numbers of a run."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Section


class TrackingConfig(Section):
    """Trackers, which draw the numbers of many runs side by side. Keys and addresses come from the environment."""

    to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(default_factory=list)
    """Trackers that get every number of events.jsonl, the final scores and the configuration; none by default."""

    project: str = Field(default="llmft", min_length=1, max_length=100)
    """What the runs of a subject are called together: a project of wandb and trackio, an experiment of mlflow."""
