"""From our sections to transformers' TrainingArguments: the only file that knows their names."""

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.training.hardware import Hardware


def training_arguments(
    config: Config, hardware: Hardware, folder: Path, evaluates: bool, steps: int
) -> TrainingArguments:
    """The arguments of a run that keeps its checkpoints below `folder`.

    Args:
        evaluates: whether there is a validation split.
        steps: how many are planned.
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
        logging_nan_inf_filter=False,  # it hides a NaN behind the average of earlier losses
        **_every("eval", trainer.eval_every if evaluates else None),
        **_every("save", trainer.save_every),
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        load_best_model_at_end=False,  # it takes the weights unverified, from a path that a moved run does not have
        metric_for_best_model=metric if evaluates else None,
        greater_is_better=METRICS[metric] if evaluates else None,
        use_cpu=hardware.device == "cpu",
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        dataloader_num_workers=trainer.workers,
        # Otherwise one process would read a stream for all, and join batches that are padded to different widths.
        accelerator_config={"dispatch_batches": False},
        dataloader_pin_memory=hardware.device == "cuda",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
        # Layers that do not train yet give no gradient; unset, it is expected of all where layers are computed again.
        ddp_find_unused_parameters=True if config.model.unfreeze else None,
        **_placement(config),
    )
    # Seeing several GPUs, transformers would share every batch out among them by DataParallel.
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
        # Our optimizer is torch's, of which deepspeed has not tried all.
        zero = {"zero_optimization": {"stage": hardware.zero_stage}, "zero_allow_untested_optimizer": True}
        return {"deepspeed": same | precision | zero}
    return {}


def _every(what: str, every: int | str | None) -> dict[str, Any]:
    if every is None:
        return {f"{what}_strategy": "no"}
    if every == "epoch":
        return {f"{what}_strategy": "epoch"}
    return {f"{what}_strategy": "steps", f"{what}_steps": every}
