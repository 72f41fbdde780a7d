"""The sections `optimizer` and `scheduler`: how the weights follow the gradient."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.schema.section import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """The update rule."""

    name: Literal["adamw", "sgd"] = "adamw"
    """The update rule."""

    lr: float = Field(default=5e-5, gt=0, le=100)
    """Peak learning rate."""

    weight_decay: float = Field(default=0.01, ge=0, le=10)
    """Pull of the weights towards zero; biases and normalisation layers have none."""

    betas: tuple[Share, Share] = (0.9, 0.999)
    """adamw: decay of the running means of the gradient and of its square."""

    eps: float = Field(default=1e-8, gt=0)
    """adamw: added to the denominator."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """sgd: share of the last step that goes on."""

    nesterov: bool = False
    """sgd: look ahead along the momentum."""


class SchedulerConfig(Section):
    """The learning rate over time."""

    name: Literal["linear", "cosine", "constant"] = "linear"
    """Shape after the warm-up: straight to zero, half a cosine to zero, or level."""

    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of all steps in which the rate rises from zero to its peak."""

    warmup_steps: int = Field(default=0, ge=0)
    """The same as a number of steps; if it is above 0, it counts and `warmup_ratio` does not."""
