"""One job of a sweep."""

from dataclasses import dataclass
from typing import Any

from llmft.schema.config import Config


@dataclass(frozen=True)
class Job:
    """A combination of the swept values, and the configuration that it means."""

    values: dict[str, Any]
    """Swept key or group -> its value in this job, in the order of the words."""
    config: Config
    twins: int = 0
    """Later combinations that mean the same configuration; they have no job of their own."""


def told(values: dict[str, Any]) -> str:
    """The values as one types them, on one line: `optimizer.lr=1e-05 seed=1`."""
    return " ".join(f"{key}={shown(value)}" for key, value in values.items())


def shown(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{shown(item)}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
