"""The section `task` of translation."""

from typing import Literal

from llmft.schema.task import TaskConfig
from llmft.schema.text_to_text import TextToTextConfig


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
