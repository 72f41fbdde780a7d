"""`smoke=true`: the same recipe on a tiny random model and synthetic rows for a few steps."""

from typing import Any

from llmft.schema.config import Config

# Eight steps of eight rows cross two epochs of the 32 synthetic rows: one evaluation and checkpoint in the middle.
STEPS = {
    "max_steps": 8,
    "batch_size": 8,
    "log_every": 1,
    "accumulation": 1,
    "eval_every": "epoch",
    "save_every": "epoch",
}
ROWS = 32


def smoke(config: Config, given: frozenset[str]) -> Config:
    """`config` made small; keys in `given`, those of the command line, stay as they are."""
    tree: dict[str, Any] = config.model_dump()
    tree["expect"] = None
    if not _any("model", given):
        tree["model"] = {
            "name": f"tiny-{config.model.architecture}",
            "architecture": config.model.architecture,
            "init": "random",
            "config": dict(config.task.tiny),
            "vocab_size": 512,
        }
    if not _any("dataset", given):
        tree["dataset"] = {"name": "synthetic", "format": "synthetic", "max_overlap": 1.0}
    if "dataset.max_rows" not in given:
        tree["dataset"]["max_rows"] = ROWS
    tree["trainer"] |= {key: value for key, value in STEPS.items() if f"trainer.{key}" not in given}
    return Config.model_validate(tree)


def _any(section: str, given: frozenset[str]) -> bool:
    return any(key.startswith(f"{section}.") for key in given)
