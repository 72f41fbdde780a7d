"""The one Trainer for every task: transformers' own, with our order of rows and our evaluation."""

import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch.utils.data import Dataset, Sampler
from transformers import EarlyStoppingCallback, PreTrainedModel, PrinterCallback, TrainerControl, TrainerState

from llmft.runs import checkpoints
from llmft.runs.environment import seconds_since_start
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure, Stopped
from llmft.tasks.task import Task
from llmft.training.arguments import training_arguments
from llmft.training.evaluation import Split, evaluate
from llmft.training.feature_stream import FeatureStream
from llmft.training.hardware import Hardware
from llmft.training.optimizers import optimizer
from llmft.training.progress import Progress
from llmft.training.sampler import EpochSampler
from llmft.training.signals import StopSignals

CLOCK = "clock.json"


@dataclass
class Clock:
    """Sums over all sessions of a run, in seconds but for `loss`; kept in every checkpoint."""

    training: float = 0.0
    """All seconds of earlier sessions; those of this one count from `started`."""
    evaluating: float = 0.0
    saving: float = 0.0
    total: float = 0.0
    """Seconds of earlier sessions from process start to end."""
    loss: float | torch.Tensor = 0.0
    """Sum of the training loss over all steps. transformers' own mean forgets the steps of earlier sessions."""
    ended: bool = False
    """Whether no step was left to do. transformers would do one more."""
    started: float = field(default_factory=time.perf_counter)

    def save(self, folder: Path) -> None:
        """Write the sums so far into a checkpoint."""
        now = {"training": self.training + time.perf_counter() - self.started, "evaluating": self.evaluating}
        now |= {
            "saving": self.saving,
            "total": self.total + seconds_since_start(),
            "loss": float(self.loss),
            "ended": self.ended,
        }
        (folder / CLOCK).write_text(json.dumps(now), encoding="utf-8")


class Trainer(transformers.Trainer):
    """transformers' Trainer with our sampler and our evaluation put in."""

    def __init__(
        self,
        config: Config,
        task: Task[Any],
        state: Any,
        splits: dict[str, Split],
        folder: Path,
        checkpoint: Path | None,
        signals: StopSignals,
        **kwargs: Any,
    ) -> None:
        """`folder` holds the checkpoints; `checkpoint` is the one to go on from; `kwargs` go to the base class."""
        self.config, self.task, self.task_state, self.splits, self.folder = config, task, state, splits, folder
        self.signals = signals
        self.clock = Clock(**json.loads((checkpoint / CLOCK).read_text())) if checkpoint else Clock()
        super().__init__(
            data_collator=task.collator(state),
            train_dataset=self._train_features(kwargs["args"].world_size),
            eval_dataset=splits["validation"].features if "validation" in splits else None,
            optimizer_cls_and_kwargs=optimizer(config.optimizer),
            **kwargs,
        )
        # transformers takes a model that accepts extra arguments for one that scales its own loss. BERT's heads accept
        # them and don't: the gradients of accumulated batches were added up instead of averaged.
        self.model_accepts_loss_kwargs = False

    def _train_features(self, processes: int) -> Any:
        train, trainer = self.splits["train"], self.config.trainer
        if train.stream is None:
            return train.features
        batch, grouped = trainer.batch_size * processes, trainer.group_by_length
        seed, task, state = self.config.seed, self.task, self.task_state
        return FeatureStream(task, state, train.stream, seed, batch, trainer.accumulation, grouped)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        features = self.splits["train"].features
        lengths = features.lengths if self.config.trainer.group_by_length else None
        step = self.config.trainer.batch_size * self.config.trainer.accumulation * self.accelerator.num_processes
        return EpochSampler(len(features), self.config.seed, step, lengths)

    def training_step(self, *inputs: Any, **options: Any) -> torch.Tensor:
        """One batch forward and backward; its part of the step's mean loss."""
        loss: torch.Tensor = super().training_step(*inputs, **options)
        self.clock.loss = self.clock.loss + loss.double()  # a tensor, so that a GPU is not waited for
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation split, log its numbers as `eval_NAME`, and tell the callbacks."""
        start = time.perf_counter()
        scores, _prediction = evaluate(
            self.task,
            self.task_state,
            self.model,
            self.splits["validation"],
            self.config.trainer.eval_batch_size,
        )
        numbers = {f"eval_{name}": value for name, value in scores.items() if isinstance(value, int | float)}
        self.clock.evaluating += time.perf_counter() - start
        self.log(dict(numbers))
        # A score that these rows do not have, such as the ROC AUC of a single class, is never the best.
        metric = self.config.trainer.metric_for_best or self.config.task.metric
        numbers.setdefault(f"eval_{metric}", -math.inf if METRICS[metric] else math.inf)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, numbers)
        return numbers

    def finish(self, checkpoint: Path) -> None:
        """Take the end of training from its last checkpoint, with the best weights."""
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        best = self.folder / f"checkpoint-{self.state.best_global_step}"
        load_model(self.model, (best if best.is_dir() else checkpoint) / "model.safetensors")

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        start = time.perf_counter()
        step = self.state.global_step
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise Failure(
                f"the weights are no numbers at step {step}. A smaller optimizer.lr, or more warm-up, may help."
            )
        folder = self.folder / f"checkpoint-{step}"
        (folder / checkpoints.MANIFEST).unlink(missing_ok=True)  # of an earlier session, while its files are replaced
        try:
            super()._save_checkpoint(model, trial)
            # A pickle that nobody needs to read, and that would hold a hub token in clear.
            (folder / "training_args.bin").unlink(missing_ok=True)
            stopped = self.control.should_training_stop and not self.signals.received
            self.clock.ended = stopped or step >= self.state.max_steps
            self.clock.save(folder)
            checkpoints.commit(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Failure(
                f"the checkpoint of step {step} cannot be written to {folder}: {error}. Earlier ones are kept."
            ) from error
        checkpoints.rotate(self.folder, self.config.trainer.keep, self.state.best_global_step)
        self.clock.saving += time.perf_counter() - start


def _out_of_memory(config: Config, step: int) -> str:
    """What to write instead; the batch of half the rows and twice the accumulation trains the same."""
    rows, accumulation = config.trainer.batch_size, config.trainer.accumulation
    ways = [f"trainer.batch_size={rows // 2} trainer.accumulation={2 * accumulation}"] if rows > 1 else []
    if length := getattr(config.task, "max_length", None):
        ways.append(f"task.max_length={length // 2}")
    if config.hardware.precision != "bf16":
        ways.append("hardware.precision=bf16")
    return f"out of memory after step {step}, in batches of {rows} rows. Less is needed with {', or '.join(ways)}"


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def train(
    config: Config,
    task: Task[Any],
    state: Any,
    model: PreTrainedModel,
    splits: dict[str, Split],
    hardware: Hardware,
    run: Run,
) -> dict[str, Any]:
    """Train `model` in place, to the best checkpoint where there is a validation split, and return what it took.

    Returns:
        `seconds` of training steps alone, `evaluation_seconds` and `saving_seconds`, `steps`, `epochs`,
        `samples_per_second`, `tokens_per_second` where features have lengths (of a stream, those of its sample),
        and the mean `loss`.
    """
    folder = run.folder / "checkpoints"
    arguments = training_arguments(config, hardware, folder, "validation" in splits)
    metric = config.trainer.metric_for_best or config.task.metric
    callbacks: list[Any] = [Progress(run, metric)]
    if config.trainer.patience and "validation" in splits:
        callbacks.append(EarlyStoppingCallback(config.trainer.patience))
    checkpoint, passed_over = checkpoints.latest(folder)
    for line in passed_over:
        print(f"  note      {line}; it is not used", flush=True)
    if passed_over and checkpoint is None:
        raise Failure(f"no checkpoint in {folder} can be used: {'; '.join(passed_over)}. Nothing was deleted.")
    if checkpoint:
        print(f"  resumes   after step {_step_of(checkpoint)}", flush=True)
    run.forget_events_after(_step_of(checkpoint))
    signals = StopSignals()
    callbacks.append(signals)
    trainer = Trainer(
        config, task, state, splits, folder, checkpoint, signals, model=model, args=arguments, callbacks=callbacks
    )
    trainer.remove_callback(PrinterCallback)
    clock = trainer.clock
    try:
        if checkpoint and clock.ended:
            trainer.finish(checkpoint)
        else:
            with signals:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error):
            raise
        raise Failure(_out_of_memory(config, trainer.state.global_step)) from error
    step = trainer.state.global_step
    if signals.received and step < trainer.state.max_steps:
        again = f"llmft finetune {run.folder}/config.yaml run.dir={run.folder} resume=true"
        raise Stopped(f"{signals.received} after step {step}, which is saved. Go on with: {again}")
    seconds = clock.training + time.perf_counter() - clock.started - clock.evaluating - clock.saving
    features = splits["train"].features
    seen = float(trainer.state.epoch or 0) * len(trainer.train_dataset)
    facts: dict[str, Any] = {
        "seconds": seconds,
        "evaluation_seconds": clock.evaluating,
        "saving_seconds": clock.saving,
        "steps": trainer.state.global_step,
        "epochs": float(trainer.state.epoch or 0),
        "earlier_seconds": clock.total,
        "loss": float(clock.loss) / step,
        "samples_per_second": seen / seconds,
    }
    if features.lengths is not None:
        facts["tokens_per_second"] = seen * sum(features.lengths) / len(features) / seconds
    return facts
