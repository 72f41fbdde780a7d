"""RUN/config.yaml as a tree: keys and paths that had other names in earlier versions, and texts that hold `${`.

The file is a recipe, where `${key}` stands for another value. A `${` that is two letters of a text stands there with a
backslash, and backslashes before it are doubled, as OmegaConf reads them.
"""

import re
from collections.abc import Callable
from typing import Any

# Where version 0.1.0 kept its sample sets: beside the code that reads data.
SAMPLES = re.compile(
    r"\bllmft([\\/])data\1"
    r"(chats|entities|instructions|pairs|preferences|questions|relations|reviews|summaries|translations)\b"
)


def moved(path: str) -> str:
    """Where a sample set lies now, by the path that it had in version 0.1.0; any other path as it is."""
    return SAMPLES.sub(r"llmft\1samples\1\2", path)


def renewed(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of RUN/config.yaml with the names that keys have now: `model.vocab_size` is `model.tokenizer.size`."""
    tree = _in_texts(tree, r"(\\+)\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${")
    dataset = tree.get("dataset")
    if isinstance(dataset, dict) and isinstance(dataset.get("path"), str):
        tree = tree | {"dataset": dataset | {"path": moved(dataset["path"])}}
    model = tree.get("model")
    if not isinstance(model, dict) or "vocab_size" not in model:
        return tree
    kept = {key: value for key, value in model.items() if key != "vocab_size"}
    return tree | {"model": kept | {"tokenizer": {"path": model.get("tokenizer"), "size": model["vocab_size"]}}}


def escaped(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree as it is written into a recipe, so that its texts are read as texts."""
    return _in_texts(tree, r"(\\*)\$\{", lambda found: "\\" * (2 * len(found[1]) + 1) + "${")


def _in_texts(value: Any, pattern: str, new: Callable[[re.Match[str]], str]) -> Any:
    if isinstance(value, dict):
        return {key: _in_texts(item, pattern, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_texts(item, pattern, new) for item in value]
    return re.sub(pattern, new, value) if isinstance(value, str) else value
