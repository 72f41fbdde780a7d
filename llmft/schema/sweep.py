"""The section `sweep`: how the jobs of `llmft finetune -m` share the machine."""

from typing import Annotated

from pydantic import Field

from llmft.schema.section import Section


class SweepConfig(Section):
    """Many runs by one command, `llmft finetune -m`."""

    jobs: int = Field(default=1, ge=1)
    """Jobs that run at a time; each gets its share of the processor's cores."""

    gpus: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    """Numbers of GPUs, such as `[0,1]`: one job at a time on each, instead of `jobs`. Unset: all jobs see all GPUs."""
