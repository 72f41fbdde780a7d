"""The section `task` of summaries."""

from typing import Literal

from pydantic import Field

from llmft.schema.task import TaskConfig
from llmft.schema.text_to_text import TextToTextConfig


class Summarization(TextToTextConfig, TaskConfig):
    """A short text for a long one."""

    name: Literal["summarization"] = "summarization"
    """A short text for a long one."""

    max_length: int = Field(default=512, ge=4, le=131072)
    """Longer inputs are cut to this many tokens; the share that is cut is printed."""

    @property
    def headline(self) -> str:
        return "rougeL"
