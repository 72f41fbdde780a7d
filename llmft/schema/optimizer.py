"""The sections `optimizer` and `scheduler`: how weights are updated, and the learning rate over time."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.schema.execution import Every
from llmft.schema.section import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """The update rule for the weights."""

    name: Literal["adam", "adamw", "sgd", "rmsprop", "adagrad", "adafactor", "lion", "muon"] = "adamw"
    """The update rule. adamw is the usual choice for transformers. `llmft help optimizer` says what each one is for."""

    lr: float = Field(default=5e-5, gt=0, le=100)
    """Peak learning rate. The default is usual for fine-tuning all weights of a pretrained transformer; adapters and
    models trained from scratch need about 10 times as much. Lower it if the loss jumps, raise it if it hardly falls."""

    weight_decay: float = Field(default=0.01, ge=0, le=10)
    """How strongly weights are pulled towards zero, against overfitting. adamw, adafactor, lion, muon: decoupled, each
    step subtracts `lr * weight_decay * w` from a weight. adam, sgd, rmsprop, adagrad: `weight_decay * w` is added to
    the gradient, as `l2` does."""

    l1: float = Field(default=0.0, ge=0)
    """Strength of the L1 penalty, the sum of the absolute weights. Proximal: after each step a weight moves by `lr *
    l1` towards zero and stops there, so that weights become exactly 0."""

    l2: float = Field(default=0.0, ge=0)
    """Strength of the L2 penalty `l2 / 2 * w²`. Its gradient `l2 * w` is added after clipping. The logged loss does not
    include penalties."""

    no_decay: list[Literal["bias", "norm", "embeddings"]] = Field(default=["bias", "norm"])
    """Kinds of weights that `weight_decay`, `l1`, and `l2` leave alone."""

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Layer-wise learning rate decay: the head trains at `lr`, and each layer at this share of the rate of the layer
    above it; embeddings have the lowest. 1: the same rate everywhere. Try 0.8 to 0.95 if fine-tuning forgets what was
    pretrained."""

    backbone_lr: float | None = Field(default=None, gt=0, le=100)
    """Learning rate of the backbone of a model for images, or else of the base model below the head: what is
    pretrained. Unset: `lr`. A fifth to a tenth of `lr` is usual where the other weights are new."""

    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the running means. adam, adamw, and the AdamW part of muon: of the gradient, and of its square. lion: in
    the update, and of the mean that is kept."""

    eps: float = Field(default=1e-8, gt=0)
    """adam, adamw, muon, rmsprop, adagrad: added to the denominator, so that it is never zero."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """sgd, rmsprop: share of the previous step that is added to this one. muon: decay of the running mean of
    gradients."""

    nesterov: bool = False
    """sgd: use Nesterov momentum."""

    alpha: float = Field(default=0.99, ge=0, lt=1)
    """rmsprop: decay of the running mean of the squared gradient."""

    beta2_decay: float = Field(default=-0.8, ge=-1, le=0)
    """adafactor: at step t, the running mean of the squared gradient keeps the share `1 - t ** beta2_decay`."""


class SchedulerConfig(Section):
    """The schedule: how the learning rate changes over the steps."""

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
    """Shape of the schedule after the warmup. linear and cosine fall to zero at the last step; `llmft help scheduler`
    describes each."""

    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from zero to its peak. 0.1 is usual for transformers."""

    warmup_steps: int = Field(default=0, ge=0)
    """The warmup as a number of steps. Above 0 it replaces `warmup_ratio`."""

    min_ratio: float = Field(default=0.0, ge=0, lt=1)
    """The lowest learning rate, as a share of the peak. linear, cosine, polynomial, wsd: where it ends. step,
    exponential, inverse_sqrt, plateau: it never falls below."""

    cycles: int = Field(default=1, ge=1)
    """cosine_with_restarts: how many times the learning rate falls. In between it jumps back to the peak."""

    gamma: float = Field(default=0.1, gt=0, lt=1)
    """step, exponential: the factor on the learning rate per `every`."""

    every: Every = "epoch"
    """step, exponential: the period, an `epoch` or a number of steps. `step` falls at its end, `exponential` a little
    at every step."""

    power: float = Field(default=2.0, gt=0)
    """polynomial: the exponent on the share of steps that remain. 1 is a straight line."""

    decay_ratio: float = Field(default=0.1, gt=0, le=1)
    """wsd: share of all steps, at the end, in which the learning rate falls in a straight line."""

    factor: float = Field(default=0.5, gt=0, lt=1)
    """plateau: the factor on the learning rate when the validation metric has stopped improving."""

    patience: int = Field(default=1, ge=0)
    """plateau: evaluations without improvement that are tolerated; the next one lowers the learning rate."""


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
"""Section -> key -> names that read the key. A key that is not listed is read by all."""
