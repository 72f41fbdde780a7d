"""What the sections of tasks that learn from raw text have in common."""

from typing import Any, ClassVar

from pydantic import Field

from llmft.schema.task import TINY_TRANSFORMER, TaskConfig


class LanguageModelConfig(TaskConfig):
    """A task whose data are raw text."""

    pretrains: ClassVar[bool] = True
    exports: ClassVar[bool] = False
    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {"t5": TINY_TRANSFORMER | {"d_kv": 16, "d_ff": 64}}
    small: ClassVar[dict[str, Any]] = {"block": 32}
    files: ClassVar[str] = "dataset=text dataset.test=YOUR.txt"
    length: ClassVar[str] = "block"

    block: int = Field(default=128, ge=8, le=131072)
    """Tokens that the model reads at a time. The training texts are joined and cut into blocks of this length; each
    epoch cuts them elsewhere."""

    @property
    def headline(self) -> str:
        """Losses of other tokenizers can't be compared, and neither can these; but they are easier to imagine."""
        return "perplexity"
