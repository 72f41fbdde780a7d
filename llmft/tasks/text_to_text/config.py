"""The sections of the tasks that turn a text into a text: translation and summarization."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig


class TextToTextConfig(TaskConfig):
    """A text for a text: an encoder reads, a decoder writes."""

    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    # T5 does not derive d_kv and d_ff from its other sizes. Dropout would hide what a smoke run of eight steps learns.
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = dict.fromkeys(
        ("t5", "mt5", "umt5"), TINY_TRANSFORMER | {"d_kv": 16, "d_ff": 64, "dropout_rate": 0.0}
    )
    exports: ClassVar[bool] = False

    max_length: int = Field(default=128, ge=4, le=131072)
    """Longest input in tokens. Longer ones are cut, and the share that is cut is printed."""

    max_output_length: int = Field(default=128, ge=4, le=131072)
    """Longest reference in tokens; longer ones are cut in training. The length of generated answers is
    `generation.max_new_tokens`."""

    prefix: str = ""
    """Text in front of every input, with its final space. T5 was pretrained with `"translate English to German: "` and
    the like."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target probability that is spread evenly over all tokens, in training only. Validation and test
    losses do not include it."""

    @property
    def generates(self) -> bool:
        return True


class Summarization(TextToTextConfig, TaskConfig):
    """Summarization: a short text for a long one."""

    name: Literal["summarization"] = "summarization"
    """Summarization: a short text for a long one."""

    max_length: int = Field(default=512, ge=4, le=131072)
    """Longest input in tokens. Longer ones are cut, and the share that is cut is printed."""

    @property
    def headline(self) -> str:
        return "rougeL"


class Translation(TextToTextConfig, TaskConfig):
    """Translation: a text in another language."""

    name: Literal["translation"] = "translation"
    """Translation: a text in another language."""

    bleu_tokenize: Literal["auto", "13a", "zh", "char", "intl", "none"] = "auto"
    """How sacreBLEU tokenizes texts. `auto` goes by the script of the training targets: `zh` for Chinese, `char` for
    other scripts without spaces (Japanese, Thai, ...), else `13a`, which most published results use."""

    @property
    def headline(self) -> str:
        return "bleu"
