"""Reads RUN/config.yaml of earlier versions: renamed keys and moved paths. Also escapes texts that contain `${`.

The file is a recipe, in which `${key}` refers to another value. A literal `${` is written with a backslash, and
backslashes before it are doubled, as OmegaConf reads them.
"""

import re
from collections.abc import Callable
from typing import Any

# Version 0.1.0 kept its sample sets in llmft/data, beside the code that reads data.
SAMPLES = re.compile(
    r"\bllmft([\\/])data\1"
    r"(chats|entities|instructions|pairs|preferences|questions|relations|reviews|summaries|translations)\b"
)


def migrate_path(path: str) -> str:
    """The present path of a sample set that version 0.1.0 kept elsewhere; any other path unchanged."""
    return SAMPLES.sub(r"llmft\1samples\1\2", path)


def migrate(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of RUN/config.yaml with present key names: `model.vocab_size` becomes `model.tokenizer.size`."""
    tree = _in_texts(tree, r"(\\+)\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${")
    dataset = tree.get("dataset")
    if isinstance(dataset, dict) and isinstance(dataset.get("path"), str):
        tree = tree | {"dataset": dataset | {"path": migrate_path(dataset["path"])}}
    model = tree.get("model")
    if not isinstance(model, dict) or "vocab_size" not in model:
        return tree
    kept = {key: value for key, value in model.items() if key != "vocab_size"}
    return tree | {"model": kept | {"tokenizer": {"path": model.get("tokenizer"), "size": model["vocab_size"]}}}


def escape(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with `${` in its texts escaped, so that a recipe reads them as text."""
    return _in_texts(tree, r"(\\*)\$\{", lambda found: "\\" * (2 * len(found[1]) + 1) + "${")


def _in_texts(value: Any, pattern: str, new: Callable[[re.Match[str]], str]) -> Any:
    if isinstance(value, dict):
        return {key: _in_texts(item, pattern, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_texts(item, pattern, new) for item in value]
    return re.sub(pattern, new, value) if isinstance(value, str) else value
