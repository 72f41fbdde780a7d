"""The sections of the tasks that answer a text with a text."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig


class TextToTextConfig(TaskConfig):
    """A text for a text, by an encoder that reads and a decoder that writes."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    # T5 has sizes that it does not work out of the others, and the dropout blurs what eight steps may show.
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = dict.fromkeys(
        ("t5", "mt5", "umt5"), TINY_TRANSFORMER | {"d_kv": 16, "d_ff": 64, "dropout_rate": 0.0}
    )
    exports: ClassVar[bool] = False

    max_length: int = Field(default=128, ge=4, le=131072)
    """Longer inputs are cut to this many tokens; the share that is cut is printed."""

    max_output_length: int = Field(default=128, ge=4, le=131072)
    """Longer right answers are cut to this many tokens in training; how long an answer may be that the model writes
    says `generation.max_new_tokens`."""

    prefix: str = ""
    """What stands before every input, with its space: T5 was taught to heed `"translate English to German: "`."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the probability that goes to all tokens alike, in training alone: losses of validation and test are
    without it."""

    @property
    def generates(self) -> bool:
        return True


class Summarization(TextToTextConfig, TaskConfig):
    """A short text for a long one."""

    name: Literal["summarization"] = "summarization"
    """A short text for a long one."""

    max_length: int = Field(default=512, ge=4, le=131072)
    """Longer inputs are cut to this many tokens; the share that is cut is printed."""

    @property
    def headline(self) -> str:
        return "rougeL"


class Translation(TextToTextConfig, TaskConfig):
    """A text in another language."""

    name: Literal["translation"] = "translation"
    """A text in another language."""

    bleu_tokenize: Literal["auto", "13a", "zh", "char", "intl", "none"] = "auto"
    """How sacreBLEU takes texts apart. `auto` goes by the script of the training targets: `zh` for Chinese, `char` for
    others without spaces (Japanese, Thai, ...), else `13a`, which most published scores have."""

    @property
    def headline(self) -> str:
        return "bleu"
