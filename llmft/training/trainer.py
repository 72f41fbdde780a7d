"""The one Trainer for every task: transformers' own, with our order of rows and our evaluation."""

import math
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch.utils.data import Dataset, Sampler
from transformers import TrainerControl, TrainerState

from llmft.models import weights
from llmft.reporting.phases import phase
from llmft.runs import checkpoints
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure
from llmft.tasks.task import Task
from llmft.training import processes
from llmft.training.blocks import Blocks
from llmft.training.clock import Clock
from llmft.training.evaluation import Split, evaluate, loss_of, ties_with_less_loss
from llmft.training.feature_stream import FeatureStream
from llmft.training.memory import advice_for_scoring, enough_memory
from llmft.training.optimizers import optimizer
from llmft.training.packing import collator
from llmft.training.placement import use_fsdp
from llmft.training.progress import lost
from llmft.training.sampler import EpochOrder, EpochSampler
from llmft.training.schedules import schedule
from llmft.training.signals import StopSignals
from llmft.training.steps import steps_of_epoch
from llmft.training.watchdog import Watchdog

WEIGHTS = "model.safetensors"


class Trainer(transformers.Trainer):
    """transformers' Trainer with our sampler and our evaluation put in."""

    def __init__(
        self,
        config: Config,
        task: Task[Any],
        splits: dict[str, Split],
        folder: Path,
        clock: Clock,
        signals: StopSignals,
        watchdog: Watchdog,
        **kwargs: Any,
    ) -> None:
        """`folder` holds the checkpoints; `kwargs` go to the base class."""
        self.config, self.task, self.splits, self.folder = config, task, splits, folder
        self.clock, self.signals, self.watchdog = clock, signals, watchdog
        super().__init__(
            data_collator=collator(config, task),
            train_dataset=self._train_features(),
            eval_dataset=splits["validation"].features if "validation" in splits else None,
            **kwargs,
        )
        # transformers takes a model that accepts extra arguments for one that scales its own loss. BERT's heads accept
        # them and don't: the gradients of accumulated batches were added up instead of averaged.
        self.model_accepts_loss_kwargs = False
        if config.hardware.strategy == "fsdp":
            use_fsdp(self.accelerator, self.args.fsdp_plugin_args, self.model)
            self.is_fsdp_enabled = True
        if processes.count() > 1:  # transformers seeds all alike, and their dropouts would be the same
            transformers.set_seed(config.seed + processes.number())
        if isinstance(self.train_dataset, FeatureStream | Blocks):
            self.add_callback(EpochOrder(self.train_dataset))

    def _train_features(self) -> Any:
        train, trainer = self.splits["train"], self.config.trainer
        if isinstance(train.features, Blocks):
            return train.features.of(self.config.seed)
        if train.stream is None:
            return train.features
        batch, grouped = trainer.rows * processes.count(), trainer.group_by_length
        seed, task = self.config.seed, self.task
        return FeatureStream(task, train.stream, seed, batch, trainer.accumulation, grouped)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        features = self.splits["train"].features
        lengths = features.lengths if self.config.trainer.group_by_length else None
        step = self.config.trainer.rows * self.config.trainer.accumulation * self.accelerator.num_processes
        sampler = EpochSampler(len(features), self.config.seed, step, lengths)
        self.add_callback(EpochOrder(sampler))
        return sampler

    def create_optimizer(self, model: torch.nn.Module | None = None) -> Any:
        """The optimizer that the configuration names, over the weights that train."""
        if self.optimizer is None:
            self.optimizer: Any = optimizer(self.config.optimizer, self.model if model is None else model)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The schedule that the configuration names."""
        if self.lr_scheduler is None:
            epoch = steps_of_epoch(self.config, len(self.train_dataset))
            self.lr_scheduler: Any = schedule(self.config, optimizer or self.optimizer, epoch, num_training_steps)
            self._created_lr_scheduler = True  # transformers makes a new one for a second call of train()
        return self.lr_scheduler

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: transformers would go over all parameters in every step, 1 ms for MiniLM."""
        return 0

    def get_batch_samples(self, *inputs: Any, **options: Any) -> tuple[list[dict[str, Any]], Any]:
        """The batches of a step."""
        batches, items = super().get_batch_samples(*inputs, **options)
        own = mean(map(self.task.loss_weight, batches)) if batches else 1
        self.counted_of_batch = mean(processes.gather(own)) or 1  # there may be nothing that has a loss
        return batches, items

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """The task's loss of a batch by its share of what the losses of a step are means over; see `Task.counted`.

        The Trainer divides it by the number of batches of the step.
        """
        return self.task.loss(model, inputs) * (self.task.loss_weight(inputs) / self.counted_of_batch)

    def training_step(self, *inputs: Any, **options: Any) -> torch.Tensor:
        """One batch forward and backward; its part of the step's mean loss."""
        loss: torch.Tensor = super().training_step(*inputs, **options)
        value = loss.item()  # waits for a GPU, as transformers' own filter for such losses does
        if not math.isfinite(value):
            raise Failure(lost("loss", value, self.state.global_step + 1))
        self.clock.loss += value
        return loss

    def _maybe_log_save_evaluate(self, *inputs: Any, **options: Any) -> None:
        with self.watchdog.patient():
            super()._maybe_log_save_evaluate(*inputs, **options)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation split, log its numbers as `eval_NAME`, and tell the callbacks."""
        start, split, size = time.perf_counter(), self.splits["validation"], self.config.trainer.eval_batch_size
        with enough_memory(lambda: advice_for_scoring(self.config)):
            if self.config.task.generates and self.config.metric_for_best == "loss":
                scores = loss_of(self.task, self.model, split, size)
            else:
                scores = evaluate(self.task, self.model, split, size)[0]
        numbers = {f"eval_{name}": value for name, value in scores.items() if isinstance(value, int | float)}
        self.clock.evaluating += time.perf_counter() - start
        self.log(dict(numbers))
        # A score that these rows do not have, such as the ROC AUC of a single class, is never the best.
        metric = self.config.metric_for_best
        numbers.setdefault(f"eval_{metric}", -math.inf if METRICS[metric] else math.inf)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, numbers)
        return numbers

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        metric, step = f"eval_{self.config.metric_for_best}", self.state.best_global_step
        logs: list[dict[str, float]] = self.state.log_history
        earlier = next((logged for logged in logs if logged["step"] == step and metric in logged), {})
        best: bool = super()._determine_best_metric(metrics, trial)
        # On a small split many evaluations have the same accuracy; transformers keeps the first, with the largest loss.
        if not best and ties_with_less_loss(metrics, earlier, self.config.metric_for_best):
            self.state.best_global_step, best = self.state.global_step, True
        # What scored best must be there at the end, although no checkpoint may be due.
        self.control.should_save |= best
        return best

    def finish(self, checkpoint: Path) -> None:
        """Take the end of training from its last checkpoint."""
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        weights.load(self.model, checkpoint / WEIGHTS)

    def take_best(self) -> None:
        """Take the weights of the best checkpoint; those that there are stay where none was scored."""
        if not self.state.best_global_step:
            return
        best = self.folder / f"checkpoint-{self.state.best_global_step}"
        if why := processes.of_first(lambda: checkpoints.fault(best)):
            phase("note", f"{best.name}, the best, {why}: the last weights are taken instead")
        else:
            weights.load(self.model, best / WEIGHTS)

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """What a batch is computed under. accelerate's own is in the model's forward, but for a sharded one."""
        if not self.is_fsdp_enabled:
            return super().autocast_smart_context_manager(cache_enabled)
        numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        # A cast that is kept would be of weights that have been let go since.
        return torch.autocast(self.args.device.type, numbers, enabled=numbers is not None, cache_enabled=False)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:
            weights.save_optimizer(
                self.model, self.optimizer, self.lr_scheduler, Path(output_dir), self.args.should_save
            )
        elif not self.is_deepspeed_enabled:  # it would write pickles, which are not read again
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        weights.load(self.model, Path(resume_from_checkpoint) / WEIGHTS)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint, in safetensors."""
        folder = Path(str(output_dir))
        if self.is_fsdp_enabled:
            state = weights.whole_state(self.model)
            if self.args.should_save and state is not None:
                weights.save_whole(self.model, state, folder)
        elif self.config.adapter.name == "none":
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            weights.save_what_trains(self.model, folder / WEIGHTS)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        start = time.perf_counter()
        step = self.state.global_step
        finite = all(bool(weights.own_shard(parameter).isfinite().all()) for parameter in model.parameters())
        if processes.largest(not finite):
            raise Failure(lost("a weight", math.nan, step))
        folder = self.folder / f"checkpoint-{step}"
        (folder / checkpoints.MANIFEST).unlink(missing_ok=True)  # of an earlier session, while its files are replaced
        try:
            super()._save_checkpoint(model, trial)
            # A pickle that nobody needs to read, and that would hold a hub token in clear.
            (folder / "training_args.bin").unlink(missing_ok=True)
            stopped = self.control.should_training_stop and not self.signals.received
            self.clock.ended = stopped or step >= self.state.max_steps
            self.clock.save(folder)
            processes.gather(None)  # the files of all are there
            if self.args.should_save:
                checkpoints.commit(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            raise Failure(
                f"the checkpoint of step {step} cannot be written to {folder}: {error}. Earlier ones are kept."
            ) from error
        if self.args.should_save:
            checkpoints.rotate(self.folder, self.config.trainer.keep, step, self.state.best_global_step)
        processes.gather(None)  # none stops before it is committed: the launcher would not wait long for the first
        self.clock.saving += time.perf_counter() - start
