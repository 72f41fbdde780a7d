"""The sections `optimizer` and `scheduler`: how the weights follow the gradient."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.schema.execution import Every
from llmft.schema.section import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """The update rule."""

    name: Literal["adam", "adamw", "sgd", "rmsprop", "adagrad", "adafactor", "lion", "muon"] = "adamw"
    """The update rule."""

    lr: float = Field(default=5e-5, gt=0, le=100)
    """Peak learning rate."""

    weight_decay: float = Field(default=0.01, ge=0, le=10)
    """Pull of the weights towards zero. adamw, adafactor, lion, muon: decoupled, a step takes `lr * weight_decay * w`
    off a weight. adam, sgd, rmsprop, adagrad: `weight_decay * w` is added to the gradient, as `l2` does."""

    l1: float = Field(default=0.0, ge=0)
    """Strength of the penalty on the sum of all weights' absolute values, proximal: after each step a weight moves by
    `lr * l1` towards zero and stops there, so that weights become exactly 0."""

    l2: float = Field(default=0.0, ge=0)
    """Strength of the penalty `l2 / 2 * w²`, by its gradient `l2 * w`, which is added after clipping. The logged loss
    is without penalties."""

    no_decay: list[Literal["bias", "norm", "embeddings"]] = Field(default=["bias", "norm"])
    """Kinds of weights that `weight_decay`, `l1` and `l2` leave alone."""

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Layer-wise learning rates: the head has `lr`, and each layer this share of the rate of the layer above it;
    embeddings have the lowest."""

    betas: tuple[Share, Share] = (0.9, 0.999)
    """adam, adamw, lion, muon: decay of the running means. adam, adamw, and muon where it is AdamW: of the gradient and
    of its square. lion: in the update, and of the mean that is kept."""

    eps: float = Field(default=1e-8, gt=0)
    """adam, adamw, muon, rmsprop, adagrad: added to the denominator."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """sgd, rmsprop: share of the last step that goes on. muon: of the mean of gradients."""

    nesterov: bool = False
    """sgd: look ahead along the momentum."""

    alpha: float = Field(default=0.99, ge=0, lt=1)
    """rmsprop: decay of the running mean of the squared gradient."""

    beta2_decay: float = Field(default=-0.8, ge=-1, le=0)
    """adafactor: at step t the running mean of the squared gradient keeps the share `1 - t ** beta2_decay`."""


class SchedulerConfig(Section):
    """The learning rate over time."""

    name: Literal[
        "constant",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "step",
        "exponential",
        "polynomial",
        "inverse_sqrt",
        "plateau",
        "wsd",
    ] = "linear"
    """Shape after the warm-up."""

    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of all steps in which the rate rises from zero to its peak."""

    warmup_steps: int = Field(default=0, ge=0)
    """The same as a number of steps; if it is above 0, it counts and `warmup_ratio` does not."""

    min_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Where the rate ends, as a share of its peak. step, exponential, inverse_sqrt, plateau: it never falls below."""

    cycles: int = Field(default=1, ge=1)
    """cosine_with_restarts: how many times it falls; between them it jumps back to the peak."""

    gamma: float = Field(default=0.1, gt=0, lt=1)
    """step, exponential: what is left of the rate after `every`."""

    every: Every = "epoch"
    """step, exponential: so many steps, or an `epoch`. `step` falls at their end, `exponential` all the way."""

    power: float = Field(default=2.0, gt=0)
    """polynomial: the power of the share of steps that is left; 1 is a straight line."""

    decay_ratio: float = Field(default=0.1, gt=0, le=1)
    """wsd: share of all steps, at their end, in which the rate falls in a straight line."""

    factor: float = Field(default=0.5, gt=0, lt=1)
    """plateau: what is left of the rate after evaluations without a better score."""

    patience: int = Field(default=1, ge=0)
    """plateau: evaluations without a better score that change nothing; the next one lowers the rate."""


# Which names read a key; what is not here is read by all.
READ_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "optimizer": {
        "betas": ("adam", "adamw", "lion", "muon"),
        "eps": ("adam", "adamw", "muon", "rmsprop", "adagrad"),
        "momentum": ("sgd", "rmsprop", "muon"),
        "nesterov": ("sgd",),
        "alpha": ("rmsprop",),
        "beta2_decay": ("adafactor",),
    },
    "scheduler": {
        **dict.fromkeys(
            ("warmup_ratio", "warmup_steps"),
            ("constant", "linear", "cosine", "cosine_with_restarts", "step", "exponential", "polynomial",
             "inverse_sqrt", "wsd"),
        ),
        "min_ratio": ("linear", "cosine", "cosine_with_restarts", "step", "exponential", "polynomial", "inverse_sqrt",
                      "plateau", "wsd"),
        "cycles": ("cosine_with_restarts",),
        "gamma": ("step", "exponential"),
        "every": ("step", "exponential"),
        "power": ("polynomial",),
        "decay_ratio": ("wsd",),
        "factor": ("plateau",),
        "patience": ("plateau",),
    },
}  # fmt: skip
"""By section, then by key."""
