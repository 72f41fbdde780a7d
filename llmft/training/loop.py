"""The Trainer of every task: transformers' own, with our order of rows, evaluation, and checkpoints.

Every override of transformers' Trainer, and every use of private parts of transformers and accelerate, is in this file.
One exception: `evaluation.float32` sets aside the `forward` that accelerate puts on a model. All of it is listed in
`tests/training/test_trainer_contract.py`, which fails by name if a version lacks a part.
"""

import json
import math
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Self

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors import SafetensorError
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from llmft.models import weights
from llmft.reporting.lines import phase
from llmft.runs import checkpoints
from llmft.runs.environment import seconds_since_start
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import Failure
from llmft.tasks.task import Task
from llmft.training import processes
from llmft.training.batches import Drawn, EpochSampler, FeatureStream, collator
from llmft.training.callbacks import EpochOrder, StopSignals, Watchdog, not_finite
from llmft.training.evaluation import Prediction, Split, evaluate, loss_of, ties_with_less_loss
from llmft.training.features import Blocks
from llmft.training.hardware import Hardware
from llmft.training.memory import advice_for_scoring, enough_memory
from llmft.training.optimization import build_optimizer, build_scheduler, steps_per_epoch

WEIGHTS = "model.safetensors"


def _clock_file(checkpoint: Path) -> Path:
    """The file with this process's sums: with several processes, each has losses of its own rows."""
    return checkpoint / f"clock_{processes.rank()}.json"


@dataclass
class Clock:
    """What a checkpoint keeps beyond transformers' own state: times and losses of all sessions, and the batch size.

    Times are in seconds. A session is one process's work on a run; a resumed run has several.
    """

    rows: int
    """The batch size: `trainer.batch_size`, or what fitted into memory. A resumed run uses the same."""
    training: float = 0.0
    """Time of earlier sessions from first step to last, evaluation and saving included. This one's: from `started`."""
    evaluating: float = 0.0
    saving: float = 0.0
    total: float = 0.0
    """Time of earlier sessions from process start to end."""
    loss: float = 0.0
    """Sum of the training loss over all steps. transformers' own mean forgets the steps of earlier sessions."""
    ended: bool = False
    """Whether training was complete. transformers would take one more step."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Time of training steps so far, without evaluation and saving."""
        return self.training + time.perf_counter() - self.started - self.evaluating - self.saving

    def save(self, checkpoint: Path) -> None:
        """Write the state so far into a checkpoint."""
        facts = {
            "rows": self.rows,
            "training": self.training + time.perf_counter() - self.started,
            "evaluating": self.evaluating,
            "saving": self.saving,
            "total": self.total + seconds_since_start(),
            "loss": self.loss,
            "ended": self.ended,
        }
        _clock_file(checkpoint).write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, checkpoint: Path) -> Self:
        """Continue from what `save` wrote."""
        return cls(**json.loads(_clock_file(checkpoint).read_text(encoding="utf-8")))


class Trainer(transformers.Trainer):
    """transformers' Trainer with our sampler, optimizer, evaluation, and checkpoints."""

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
        self.last: tuple[int, Prediction] | None = None
        """Step and answers of the last evaluation; None if no answers were computed, or they are generated."""
        self.best: tuple[int, Prediction] | None = None
        """The same of the best evaluation."""
        super().__init__(
            data_collator=collator(config, task),
            train_dataset=self._train_features(),
            eval_dataset=splits["validation"].features if "validation" in splits else None,
            **kwargs,
        )
        # transformers takes a model that accepts **kwargs for one that scales its loss by the number of batches.
        # BERT's heads accept them and do not scale: their gradients would be summed instead of averaged.
        self.model_accepts_loss_kwargs = False
        if config.hardware.strategy == "fsdp":
            use_fsdp(self.accelerator, self.args.fsdp_plugin_args, self.model)
            self.is_fsdp_enabled = True
        if processes.world_size() > 1:  # transformers seeds all ranks alike, so all would drop the same units
            transformers.set_seed(config.seed + processes.rank())
        if isinstance(self.train_dataset, FeatureStream | Blocks | Drawn):
            self.add_callback(EpochOrder(self.train_dataset))

    def _train_features(self) -> Any:
        train, trainer = self.splits["train"], self.config.trainer
        if isinstance(train.features, Blocks):
            return train.features.with_seed(self.config.seed)
        if train.stream is None:
            drawn = self.task.objective.augments and self.config.augment.active
            return Drawn(train.features, self.config.seed) if drawn else train.features
        batch, grouped = trainer.rows * processes.world_size(), trainer.group_by_length
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
        """The optimizer of the config, over the weights that train."""
        if self.optimizer is None:
            self.optimizer: Any = build_optimizer(self.config.optimizer, self.model if model is None else model)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The scheduler of the config."""
        if self.lr_scheduler is None:
            epoch, over = steps_per_epoch(self.config, len(self.train_dataset)), optimizer or self.optimizer
            self.lr_scheduler: Any = build_scheduler(self.config, over, epoch, num_training_steps)
            self._created_lr_scheduler = True  # transformers makes a new one for a second call of train()
        return self.lr_scheduler

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: transformers would iterate over all parameters in every step, 1 ms for MiniLM."""
        return 0

    def get_batch_samples(self, *inputs: Any, **options: Any) -> tuple[list[dict[str, Any]], Any]:
        """The batches of a step; also notes their mean weight over all processes for `compute_loss`."""
        batches, items = super().get_batch_samples(*inputs, **options)
        own = mean(map(self.task.objective.loss_weight, batches)) if batches else 1
        self.mean_loss_weight = mean(processes.all_gather(own)) or 1  # 0 if no token of the step has a label
        return batches, items

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """The task's mean loss of a batch, weighted so that the step's loss is a mean over all its tokens or rows.

        A plain mean of batch means would give a token of a short batch more weight. With w the loss weight of a batch
        (`Task.loss_weight`) and W the mean of the step's k weights, the sum of loss * w / W over k batches, which the
        Trainer divides by k, is sum(loss * w) / sum(w).
        """
        objective = self.task.objective
        return objective.loss(model, inputs) * (objective.loss_weight(inputs) / self.mean_loss_weight)

    def training_step(self, *inputs: Any, **options: Any) -> torch.Tensor:
        """Forward and backward of one batch. Returns its part of the step's mean loss.

        Raises:
            Failure: if the loss is NaN or infinite, before the optimizer uses its gradients.
        """
        loss: torch.Tensor = super().training_step(*inputs, **options)
        value = loss.item()  # synchronizes with the GPU, as transformers' own NaN filter does, which is off here
        if not math.isfinite(value):
            raise Failure(not_finite("loss", value, self.state.global_step + 1))
        self.clock.loss += value
        return loss

    def _maybe_log_save_evaluate(self, *inputs: Any, **options: Any) -> None:
        with self.watchdog.paused():
            super()._maybe_log_save_evaluate(*inputs, **options)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate the validation split, log its metrics as `eval_NAME`, and call the callbacks."""
        start, split, size = time.perf_counter(), self.splits["validation"], self.config.trainer.eval_batch_size
        with enough_memory(lambda: advice_for_scoring(self.config)):
            if self.config.task.generates and self.config.metric_for_best == "loss":
                scores = loss_of(self.task, self.model, split, size)
            else:
                scores, prediction = evaluate(self.task, self.model, split, size)
                self.last = None if self.config.task.generates else (self.state.global_step, prediction)
        numbers = {f"eval_{name}": value for name, value in scores.items() if isinstance(value, int | float)}
        self.clock.evaluating += time.perf_counter() - start
        self.log(dict(numbers))
        # A metric that these rows do not have, such as the ROC AUC of a single class, is never the best.
        metric = self.config.metric_for_best
        numbers.setdefault(f"eval_{metric}", -math.inf if METRICS[metric] else math.inf)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, numbers)
        return numbers

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        metric, step = f"eval_{self.config.metric_for_best}", self.state.best_global_step
        logs: list[dict[str, float]] = self.state.log_history
        earlier = next((logged for logged in logs if logged["step"] == step and metric in logged), {})
        best: bool = super()._determine_best_metric(metrics, trial)
        # On a small split many evaluations tie in accuracy. transformers keeps the first, often with the largest loss.
        if not best and ties_with_less_loss(metrics, earlier, self.config.metric_for_best):
            self.state.best_global_step, best = self.state.global_step, True
        # The best weights are needed at the end, even if no checkpoint is due at this step.
        self.control.should_save |= best
        self.best = self.last if best else self.best
        return best

    def load_finished(self, checkpoint: Path) -> None:
        """Load the last checkpoint of a run whose training is complete: its state and weights."""
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        weights.load(self.model, checkpoint / WEIGHTS)

    def load_best(self) -> Prediction | None:
        """Load the weights of the best checkpoint. If none was evaluated, the last weights stay.

        Returns:
            the validation answers of these weights, if this process computed them during training.
        """
        step = self.state.best_global_step
        if not step:
            return None
        if step != self.state.global_step:  # else the model has them already, and reading a checkpoint takes 0.2 s
            best = self.folder / f"checkpoint-{step}"
            if why := processes.from_rank0(lambda: checkpoints.fault(best)):
                phase("note", f"{best.name}, the best, {why}: the last weights are used instead")
                return None
            weights.load(self.model, best / WEIGHTS)
        return self.best[1] if self.best and self.best[0] == step else None

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """The autocast context of a batch. accelerate has its own in the forward of a model, unless that is sharded."""
        if not self.is_fsdp_enabled:
            return super().autocast_smart_context_manager(cache_enabled)
        numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        # No cache: FSDP frees the gathered weights after each layer, and a cached cast would be of freed ones.
        return torch.autocast(self.args.device.type, numbers, enabled=numbers is not None, cache_enabled=False)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:
            weights.save_optimizer(
                self.model, self.optimizer, self.lr_scheduler, Path(output_dir), self.args.should_save
            )
        elif not self.is_deepspeed_enabled:  # deepspeed would write pickles, which llmft never reads
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        weights.load(self.model, Path(resume_from_checkpoint) / WEIGHTS)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint as safetensors: all, or where some are frozen those that train."""
        folder, model = Path(str(output_dir)), self.config.model
        # Layers that are unfrozen one by one train at the end, though they do not yet where a run is resumed.
        frozen = self.config.adapter.name != "none" or bool(model.freeze and not model.unfreeze)
        if self.is_fsdp_enabled:
            state = weights.full_state_dict(self.model)
            if self.args.should_save and state is not None:
                weights.save_full(self.model, state, folder)
        elif self.is_deepspeed_enabled and self.config.adapter.name == "none":
            super().save_model(output_dir, _internal_call)
        elif not frozen:
            # By the names that weights have in the model: transformers writes those of RT-DETR, or of a mixture of
            # experts, by the names of the first release, and only `from_pretrained` knows both.
            if self.args.should_save:
                self.model.save_pretrained(folder, save_original_format=False)
        elif self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            weights.save_trainable(self.model, folder / WEIGHTS)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        start = time.perf_counter()
        step = self.state.global_step
        finite = all(bool(weights.local_shard(parameter).isfinite().all()) for parameter in model.parameters())
        if processes.all_reduce_max(not finite):
            raise Failure(not_finite("a weight", math.nan, step))
        folder = self.folder / f"checkpoint-{step}"
        # An earlier session may have left this checkpoint. While its files are replaced, it must not look complete.
        (folder / checkpoints.MANIFEST).unlink(missing_ok=True)
        try:
            super()._save_checkpoint(model, trial)
            # A pickle, and it may hold a hub token in clear text.
            (folder / "training_args.bin").unlink(missing_ok=True)
            stopped = self.control.should_training_stop and not self.signals.received
            self.clock.ended = stopped or step >= self.state.max_steps
            self.clock.save(folder)
            processes.all_gather(None)  # a barrier: committed.json lists the files of all processes
            if self.args.should_save:
                checkpoints.commit(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            raise Failure(
                f"the checkpoint of step {step} cannot be written to {folder}: {error}. Earlier checkpoints are kept."
            ) from error
        if self.args.should_save:
            checkpoints.rotate(self.folder, self.config.trainer.keep, step, self.state.best_global_step)
        # No process may stop before the commit: the launcher ends the others ten seconds after the first has left.
        processes.all_gather(None)
        self.clock.saving += time.perf_counter() - start


def training_arguments(
    config: Config, hardware: Hardware, folder: Path, evaluates: bool, steps: int
) -> TrainingArguments:
    """transformers' arguments for a run.

    Args:
        folder: where checkpoints go.
        evaluates: whether there is a validation split.
        steps: how many are planned, so that a short run logs at least ten times.
    """
    trainer = config.trainer
    metric = config.metric_for_best
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=config.seed,
        num_train_epochs=trainer.epochs,
        max_steps=trainer.max_steps or -1,
        per_device_train_batch_size=trainer.rows,
        gradient_accumulation_steps=trainer.accumulation,
        max_grad_norm=trainer.max_grad_norm,
        learning_rate=config.optimizer.lr,
        logging_steps=min(trainer.log_every, max(1, steps // 10)),
        logging_nan_inf_filter=False,  # it replaces a NaN by the average of earlier losses
        **_strategy("eval", trainer.eval_every if evaluates else None),
        **_strategy("save", trainer.save_every),
        restore_callback_states_from_checkpoint=True,  # how often early stopping has been patient
        load_best_model_at_end=False,  # it loads unverified weights, by a path that breaks when the run is moved
        metric_for_best_model=metric if evaluates else None,
        greater_is_better=METRICS[metric] if evaluates else None,
        use_cpu=hardware.device == "cpu",
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        dataloader_num_workers=trainer.workers,
        # Otherwise rank 0 would read a stream for all, and fail to join batches that are padded to different lengths.
        accelerator_config={"dispatch_batches": False},
        dataloader_pin_memory=hardware.device == "cuda",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
        # Layers that are not unfrozen yet have no gradient. Unset, gradient checkpointing expects one for each.
        ddp_find_unused_parameters=True if config.model.unfreeze else None,
        **_placement(config),
    )
    # With several GPUs in sight, transformers would use DataParallel, which divides every batch among them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _placement(config: Config) -> dict[str, Any]:
    hardware = config.hardware
    if hardware.strategy == "fsdp":
        return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}
    if hardware.strategy == "deepspeed":
        same: dict[str, Any] = dict.fromkeys(
            ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto"
        )
        precision = {name: {"enabled": "auto"} for name in ("bf16", "fp16")}
        # Our optimizers are torch's and our own. deepspeed has tested only some of them, and refuses the others.
        zero = {"zero_optimization": {"stage": hardware.zero_stage}, "zero_allow_untested_optimizer": True}
        return {"deepspeed": same | precision | zero}
    return {}


def _strategy(what: str, every: int | str | None) -> dict[str, Any]:
    if every is None:
        return {f"{what}_strategy": "no"}
    if every == "epoch":
        return {f"{what}_strategy": "epoch"}
    return {f"{what}_strategy": "steps", f"{what}_steps": every}


def use_fsdp(accelerator: Accelerator, plugin: dict[str, Any], model: PreTrainedModel) -> None:
    """Let `accelerator` shard `model` with FSDP, layer by layer.

    On CPUs accelerate silently drops the plugin and trains as ddp, though torch can shard there; so it is set here. The
    mixed precision policy is removed: weights stay in float32, which evaluation needs, and training uses autocast.
    """
    state = accelerator.state
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin)
    state.fsdp_plugin.mixed_precision_policy = None
    state.fsdp_plugin.transformer_cls_names_to_wrap = _layer_classes(model)


def _layer_classes(model: PreTrainedModel) -> list[str]:
    """The classes in the model's longest ModuleList: its layers.

    Not `_no_split_modules` of transformers: that names embeddings too, which accelerate shards by themselves, and is
    empty for DistilBERT.
    """
    rows = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList)]
    return sorted({type(layer).__name__ for layer in max(rows, key=len, default=())})
