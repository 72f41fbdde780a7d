"""Configurations of runs that were made when keys had other names."""

from typing import Any


def renewed(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of RUN/config.yaml with the names that keys have now: `model.vocab_size` is `model.tokenizer.size`."""
    model = tree.get("model")
    if not isinstance(model, dict) or "vocab_size" not in model:
        return tree
    kept = {key: value for key, value in model.items() if key != "vocab_size"}
    return tree | {"model": kept | {"tokenizer": {"path": model.get("tokenizer"), "size": model["vocab_size"]}}}
