"""The one Trainer for every task: transformers' own, with our order of rows and our evaluation."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset, Sampler
from transformers import EarlyStoppingCallback, PreTrainedModel, PrinterCallback, TrainerControl

from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.tasks.task import Task
from llmft.training.arguments import training_arguments
from llmft.training.evaluation import Split, evaluate
from llmft.training.hardware import Hardware
from llmft.training.optimizers import optimizer
from llmft.training.progress import Progress
from llmft.training.sampler import EpochSampler


@dataclass
class Clock:
    """Seconds that were not training."""

    evaluating: float = 0.0
    saving: float = 0.0


class Trainer(transformers.Trainer):
    """transformers' Trainer with our sampler and our evaluation put in."""

    def __init__(
        self, config: Config, task: Task[Any], state: Any, splits: dict[str, Split], folder: Path, **kwargs: Any
    ) -> None:
        """`folder` is that of the checkpoints; `kwargs` go to transformers' Trainer."""
        self.config, self.task, self.task_state, self.splits, self.folder = config, task, state, splits, folder
        self.clock = Clock()
        super().__init__(
            data_collator=task.collator(state),
            train_dataset=splits["train"].features,
            eval_dataset=splits["validation"].features if "validation" in splits else None,
            optimizer_cls_and_kwargs=optimizer(config.optimizer),
            **kwargs,
        )
        # transformers takes a model that accepts extra arguments for one that scales its own loss. BERT's heads accept
        # them and don't: the gradients of accumulated batches were added up instead of averaged.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        features = self.splits["train"].features
        lengths = features.lengths if self.config.trainer.group_by_length else None
        step = self.config.trainer.batch_size * self.config.trainer.accumulation * self.accelerator.num_processes
        return EpochSampler(len(features), self.config.seed, step, lengths)

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

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        start = time.perf_counter()
        super()._save_checkpoint(model, trial)
        # A pickle that nobody needs to read, and that would hold a hub token in clear.
        folder = self.folder / f"checkpoint-{self.state.global_step}"
        (folder / "training_args.bin").unlink(missing_ok=True)
        self.clock.saving += time.perf_counter() - start


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
        `samples_per_second`, `tokens_per_second` where features have lengths, and the mean `loss`.
    """
    folder = run.folder / "checkpoints"
    arguments = training_arguments(config, hardware, folder, "validation" in splits)
    metric = config.trainer.metric_for_best or config.task.metric
    callbacks: list[Any] = [Progress(run, metric)]
    if config.trainer.patience and "validation" in splits:
        callbacks.append(EarlyStoppingCallback(config.trainer.patience))
    trainer = Trainer(config, task, state, splits, folder, model=model, args=arguments, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    result = trainer.train()
    seconds = time.perf_counter() - start - trainer.clock.evaluating - trainer.clock.saving
    features = splits["train"].features
    epochs = float(trainer.state.epoch or 0)
    facts: dict[str, Any] = {
        "seconds": seconds,
        "evaluation_seconds": trainer.clock.evaluating,
        "saving_seconds": trainer.clock.saving,
        "steps": trainer.state.global_step,
        "epochs": epochs,
        "loss": result.training_loss,
        "samples_per_second": epochs * len(features) / seconds,
    }
    if features.lengths is not None:
        facts["tokens_per_second"] = epochs * sum(features.lengths) / seconds
    return facts
