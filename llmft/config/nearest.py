"""Suggestions for unknown commands and keys: the one that was probably meant."""

from collections.abc import Collection

from llmft.schema.command import COMMANDS, WITHOUT_CONFIG

# What other tools call our commands and keys; people type the names that they know.
COMMANDS_ELSEWHERE = {
    "train": "finetune",
    "fit": "finetune",
    "fine-tune": "finetune",
    "sft": "finetune",
    "run": "finetune",
    "evaluate": "eval",
    "test": "eval",
    "score": "eval",
    "infer": "predict",
    "inference": "predict",
    "generate": "predict",
    "convert": "export",
    "talk": "chat",
    "list": "runs",
    "ls": "runs",
    "compare": "runs compare",
    "diff": "runs compare",
    "reproduce": "runs reproduce",
    "remove": "runs remove",
    "rm": "runs remove",
    "delete": "runs remove",
    "clean": "runs clean",
    "prune": "runs clean",
}
KEYS_ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "num_train_epochs": "trainer.epochs",
    "num_epochs": "trainer.epochs",
    "lr_scheduler_type": "scheduler.name",
    "num_warmup_steps": "scheduler.warmup_steps",
    "optim": "optimizer.name",
    "layerwise_lr_decay": "optimizer.layer_decay",
    "llrd": "optimizer.layer_decay",
    "per_device_train_batch_size": "trainer.batch_size",
    "micro_batch_size": "trainer.batch_size",
    "per_device_eval_batch_size": "trainer.eval_batch_size",
    "gradient_accumulation_steps": "trainer.accumulation",
    "early_stopping_patience": "trainer.patience",
    "model_name_or_path": "model.path",
    "base_model": "model.path",
    "vocab_size": "model.tokenizer.size",
    "tokenizer_name": "model.tokenizer.path",
    "max_seq_length": "task.max_length",
    "label_separator": "task.separator",
    "image_size": "task.size",
    "img_size": "task.size",
    "imgsz": "task.size",
    "conf": "task.threshold",
    "confidence": "task.threshold",
    "output_dir": "run.dir",
    "train_file": "dataset.train",
    "validation_file": "dataset.validation",
    "val": "dataset.validation",
    "dev": "dataset.validation",
    "test_file": "dataset.test",
}


def nearest(word: str, known: Collection[str]) -> str:
    """The known word with the most similar spelling, or all of them."""
    from difflib import get_close_matches

    found = get_close_matches(word, known, 1)
    return f"Did you mean {found[0]}?" if found else f"They are {', '.join(known)}."


def suggest_command(word: str) -> str:
    """A suggestion for an unknown command."""
    meant = COMMANDS_ELSEWHERE.get(word.lower())
    return f"Did you mean {meant}?" if meant else nearest(word, [*COMMANDS, *WITHOUT_CONFIG])
