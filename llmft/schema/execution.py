"""The sections that say how runs are executed: trainer, hardware, tracking, and of many runs sweep and search."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.schema.section import Section

Every = Literal["epoch"] | int


class TrainerConfig(Section):
    """The training loop."""

    epochs: float = Field(default=3, gt=0)
    """Passes over the training split; parts of one are allowed."""

    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many steps, whatever `epochs` says."""

    batch_size: Annotated[int, Field(ge=1)] | Literal["all"] = 32
    """Rows a step on each device. `all`: batch gradient descent, one step an epoch, computed in portions."""

    eval_batch_size: int = Field(default=64, ge=1)
    """Rows at a time in evaluation and prediction."""

    accumulation: int = Field(default=1, ge=1)
    """Batches whose gradients are added up to one step."""

    max_grad_norm: float = Field(default=1.0, ge=0)
    """Longer gradients are shortened to this norm; 0 leaves them."""

    group_by_length: bool = True
    """Put rows of like length into one batch, so that little padding is computed."""

    packing: bool = False
    """Put the short rows of a batch one after the other into few sequences, where none sees another: the same loss with
    little padding. For decoders; a model that mixes such rows up is refused."""

    eval_every: Every = "epoch"
    """Score the validation split every so many steps, or every `epoch`."""

    save_every: Every = "epoch"
    """Write a checkpoint every so many steps, or every `epoch`."""

    keep: int = Field(default=1, ge=1)
    """Checkpoints to keep besides the best one, while training goes on."""

    keep_finished: bool = False
    """Keep the checkpoints of a run that is done too. Unset, they are removed: RUN/model holds the best weights."""

    metric_for_best: str | None = None
    """The validation metric that picks the best checkpoint. Unset: the task's own, such as accuracy. Of equal scores
    the one with the smaller validation loss wins, then the later one."""

    patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations without a better score. An equal score is not better, even at a smaller loss."""

    log_every: int = Field(default=10, ge=1)
    """Steps between two lines of the log; fewer in a short run, so that it has ten lines."""

    step_timeout: float = Field(default=1800, gt=0)
    """Seconds that a step may take; after them the stacks of all threads are written down, and the run fails."""

    gradient_checkpointing: bool = False
    """Compute each layer once more in the backward pass instead of keeping what it computed: less memory, more time."""

    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches; 0 does it in the training process."""

    @property
    def rows(self) -> int:
        """`batch_size` as a number; training/optimization.py puts one in the place of `all`."""
        assert self.batch_size != "all"
        return self.batch_size


class HardwareConfig(Section):
    """Where the work is done, and in which numbers."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """`auto` takes an NVIDIA or AMD GPU (`cuda`), else the GPU of a Mac (`mps`), else the CPU."""

    processes: int = Field(default=1, ge=1)
    """Processes that train side by side, each on a GPU of its own or its share of the cores. `trainer.batch_size` is
    that of each."""

    nodes: int = Field(default=1, ge=1)
    """Machines that the processes are spread over evenly. With several, torchrun starts them: docs/distributed.md."""

    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """What each process keeps: all weights (`ddp`), a part of weights, gradients and optimizer (`fsdp`), or all weights
    and a part of the rest (`deepspeed`, to be installed; never run by its authors)."""

    zero_stage: Literal[1, 2] = 2
    """deepspeed: parts of the optimizer's state alone (1), or of the gradients too (2). For parts of weights: fsdp."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers used in training; `auto` takes bf16 where the chip is made for it. Scores are always computed in fp32."""


class TrackingConfig(Section):
    """Trackers, which draw the numbers of many runs side by side. Keys and addresses come from the environment."""

    to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(default_factory=list)
    """Trackers that get every number of events.jsonl, the final scores and the configuration; none by default."""

    project: str = Field(default="llmft", min_length=1, max_length=100)
    """What the runs of a subject are called together: a project of wandb and trackio, an experiment of mlflow."""


class SweepConfig(Section):
    """Many runs by one command, `llmft finetune -m`."""

    jobs: int = Field(default=1, ge=1)
    """Jobs that run at a time; each gets its share of the processor's cores."""

    gpus: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    """Numbers of GPUs, such as `[0,1]`: one job at a time on each, instead of `jobs`. Unset: all jobs see all GPUs."""


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
