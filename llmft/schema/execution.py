"""The sections that say how runs are executed: trainer, hardware, tracking, sweep, and search."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.schema.section import Section

Every = Literal["epoch"] | int


class TrainerConfig(Section):
    """The training loop: how long, in which batches, and how often the model is evaluated and saved."""

    epochs: float = Field(default=3, gt=0)
    """Passes over the training rows. May be a fraction, such as 0.5."""

    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many steps, even if `epochs` asks for more."""

    batch_size: Annotated[int, Field(ge=1)] | Literal["all"] = 32
    """Rows in one forward pass on each device. The effective batch size is `batch_size * accumulation *
    hardware.processes`. `all`: one step per epoch over all training rows, computed in portions. Lower it if memory runs
    out."""

    eval_batch_size: int = Field(default=64, ge=1)
    """Rows in one forward pass in evaluation and prediction. It changes speed and memory, not the answers."""

    accumulation: int = Field(default=1, ge=1)
    """Batches whose gradients are added up before one step. Raise it, and lower `batch_size`, to keep the effective
    batch size with less memory."""

    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients with a larger norm are scaled down to it, which protects training from single bad batches. 0 turns
    clipping off."""

    group_by_length: bool = True
    """Put rows of similar length into one batch, so that less padding is computed. The order of rows stays random
    between batches."""

    packing: bool = False
    """Join the short rows of a batch into longer sequences in which no row attends to another: the same loss with less
    padding. For decoders only; an architecture that would mix the rows is refused."""

    eval_every: Every = "epoch"
    """Evaluate on the validation split every `epoch`, or every this many steps."""

    save_every: Every = "epoch"
    """Save a checkpoint every `epoch`, or every this many steps."""

    keep: int = Field(default=1, ge=1)
    """Checkpoints to keep during training, besides the best one."""

    keep_finished: bool = False
    """Keep the checkpoints after the run has finished, too. By default they are deleted: RUN/model holds the best
    weights."""

    metric_for_best: str | None = None
    """The validation metric that selects the best checkpoint. Unset: the metric of the task, such as accuracy. Ties go
    to the smaller validation loss, then to the later checkpoint."""

    patience: int | None = Field(default=None, ge=1)
    """Early stopping: stop after this many evaluations in a row without a better value of `metric_for_best`. An equal
    value is not better, even at a smaller loss. Unset: never."""

    log_every: int = Field(default=10, ge=1)
    """Steps between two log lines. A short run logs more often, so that it has ten lines."""

    step_timeout: float = Field(default=1800, gt=0)
    """Seconds that one step may take. After that, the stacks of all threads are written to a file and the run fails, so
    that a hanging run does not block a machine."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them. Saves memory and costs one more forward pass
    per step; the results are the same."""

    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches. 0: the training process prepares them itself."""

    @property
    def rows(self) -> int:
        """`batch_size` as a number; training/optimization.py replaces `all` by one."""
        assert self.batch_size != "all"
        return self.batch_size


class HardwareConfig(Section):
    """The devices that train, and the precision of the computation."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """`auto` takes an NVIDIA or AMD GPU (`cuda`) if there is one, else the GPU of a Mac (`mps`), else the CPU."""

    processes: int = Field(default=1, ge=1)
    """Training processes, each on its own GPU or with its share of the CPU cores. `trainer.batch_size` applies to each
    of them."""

    nodes: int = Field(default=1, ge=1)
    """Machines that share the processes evenly. With more than one, start the run with torchrun:
    docs/distributed.md."""

    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """What each process keeps: all weights (`ddp`); a part of the weights, gradients, and optimizer state (`fsdp`); or
    all weights and a part of the rest (`deepspeed`, which has to be installed and which the authors have never run).
    Choose fsdp if the model does not fit on one GPU."""

    zero_stage: Literal[1, 2] = 2
    """deepspeed: divide the optimizer state among the processes (1), or the gradients too (2). To divide the weights,
    use fsdp."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of training. `auto` takes bf16 on devices that compute in it natively, else fp32. Metrics are
    always computed in fp32."""


class TrackingConfig(Section):
    """Trackers, which show the metrics of many runs side by side. API keys and addresses come from environment
    variables."""

    to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(default_factory=list)
    """Trackers that receive the metrics logged in events.jsonl, the final metrics, and the config."""

    project: str = Field(default="llmft", min_length=1, max_length=100)
    """The name under which a tracker groups runs: a project in wandb and trackio, an experiment in mlflow."""


class SweepConfig(Section):
    """Sweeps, `llmft finetune -m`: a run for each combination of values."""

    jobs: int = Field(default=1, ge=1)
    """Jobs that run at the same time. Each gets its share of the CPU cores."""

    gpus: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    """Numbers of the GPUs to use, such as `[0,1]`: one job at a time on each, which replaces `jobs`. Unset: every job
    sees all GPUs."""


TRIALS = 20


class SearchConfig(Section):
    """A search for good hyperparameters, by Optuna. It searches the keys that have several values or a range:
    `KEY=A,B`, `KEY=range(1,9)`, `KEY=interval(0,0.5)`, `KEY=log(1e-5,1e-3)`. In a recipe they stand under
    `hydra.sweeper.params`."""

    name: Literal["random", "tpe", "grid"] = "tpe"
    """`random` draws every trial independently, `tpe` draws near the trials with good results, `grid` runs every
    combination."""

    trials: int | None = Field(default=None, ge=1)
    """How many trials to run. Unset: 20, or the whole grid. The same command with a larger number continues the
    search."""

    seed: int = Field(default=0, ge=0)
    """Seed of the drawn values. It is separate from the run's `seed`, which all trials share."""

    pruner: Literal["median", "hyperband", "none"] = "median"
    """Stops bad trials early. `median`: those that are worse than the median of the others at the same point.
    `hyperband`: gives most of the steps to the best few. `none`: never."""

    timeout: float | None = Field(default=None, gt=0)
    """Seconds after which no new trial starts. Trials that are running finish."""
