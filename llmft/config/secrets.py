"""Secrets do not belong into a configuration, which is saved and shared. They are known by their key or their shape."""

import re
from typing import Any

# `pad_token` and its like are words of a tokenizer.
KEY = re.compile(
    r"(?i)(?!(pad|eos|bos|unk|sep|cls|mask)_)(.*[_-]|hf|hub|auth|access|api|bearer)?token|.*(secret|passw(or)?d|api[_-]?key).*|credentials?"
)
SHAPES = (
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{16,}",
    r"\bgithub_pat_[A-Za-z0-9_]{16,}",
    r"\bAKIA[A-Z0-9]{12,}",
    r"\bAIza[A-Za-z0-9_-]{20,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"://[^/\s:@]+:[^/\s@]+@",
    r"(?i:[?&](\w*token|\w*key|sig|signature|password)=)",
)
VALUE = re.compile("|".join(SHAPES))
HINT = "Put it into the environment instead, such as HF_TOKEN."


def is_secret(key: str, value: Any = None) -> bool:
    """Whether a dotted key names an access token or a password, or a text looks like one."""
    named = any(KEY.fullmatch(part) for part in key.split("."))
    return (named and value not in ({}, None)) or (isinstance(value, str) and bool(VALUE.search(value)))


def secrets_in(tree: Any, path: str = "") -> list[str]:
    """The dotted keys of all secrets in a tree."""
    if isinstance(tree, dict):
        return [
            found for key, value in tree.items() for found in secrets_in(value, f"{path}.{key}" if path else str(key))
        ]
    if isinstance(tree, list):
        return [found for value in tree for found in secrets_in(value, path)]
    return [path] if is_secret(path, tree) else []
