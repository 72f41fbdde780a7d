"""`smoke=true`: the same config with a tiny random model, synthetic rows, and a few steps."""

from typing import Any

from llmft.schema.config import Config

# Eight steps of eight rows are two epochs of the 32 synthetic rows, with one evaluation and checkpoint in between.
STEPS = {
    "max_steps": 8,
    "batch_size": 8,
    "log_every": 1,
    "accumulation": 1,
    "eval_every": "epoch",
    "save_every": "epoch",
}
ROWS = 32
OWN_ROWS = 512  # of the user's own files: a few rows for each of a hundred labels


def smoke(config: Config, given: frozenset[str]) -> Config:
    """`config` made small. Keys in `given`, those of the command line, stay as they are."""
    before: dict[str, Any] = config.model_dump()
    tree = config.model_dump() | {"expect": None}
    if not given & {"model.path", "model.init"}:
        sizes = config.task.tiny_of.get(str(config.model.architecture), config.task.tiny)
        tree["model"] = {
            "name": f"tiny-{config.model.architecture}",
            "architecture": config.model.architecture,
            "init": "random",
            "config": dict(sizes),
            "tokenizer": {**tree["model"]["tokenizer"], "path": None, "size": 512},
        }
    if not given & {"dataset.path", "dataset.train", "dataset.validation", "dataset.test"}:
        tree["dataset"] = {"name": "synthetic", "format": "synthetic", "max_overlap": 1.0, "max_rows": ROWS}
        for key in config.task.of_data:
            tree["task"].pop(key, None)
    else:
        tree["dataset"]["max_rows"] = OWN_ROWS
    tree["trainer"] |= STEPS
    tree["task"] |= {key: value for key, value in config.task.small.items() if f"task.{key}" not in given}
    for key in given:
        section, *path, last = key.split(".") if "." in key else ("", key)
        if section in ("model", "dataset", "trainer"):
            old, new = before[section], tree[section]
            for part in path:
                old, new = old[part], new.setdefault(part, {})
            new[last] = new.get(last, {}) | old[last] if isinstance(old[last], dict) else old[last]
    return Config.model_validate(tree)
