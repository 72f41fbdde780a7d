"""The sections of the tasks that learn from raw text."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig


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
        """Losses of other tokenizers cannot be compared, and neither can these; but they are easier to imagine."""
        return "perplexity"


class CausalLm(LanguageModelConfig):
    """The next token of a text: a model that goes on with what it is given."""

    then: ClassVar[str] = "finetune +recipe=llm_instruct model.path={run} dataset=json dataset.train=YOUR.jsonl"

    name: Literal["causal_lm"] = "causal_lm"
    """The next token of a text: a model that goes on with what it is given."""

    @property
    def headline(self) -> str:
        """The one number that does not depend on the tokenizer."""
        return "bits_per_byte"


class MaskedLm(LanguageModelConfig):
    """The tokens of a text that are hidden, as BERT learns them."""

    then: ClassVar[str] = "finetune +recipe=bert_textcls model.path={run} dataset=csv dataset.train=YOUR.csv"

    name: Literal["masked_lm"] = "masked_lm"
    """The tokens of a text that are hidden, as BERT learns them."""

    mask_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are to be found: 80% of them are hidden, 10% are another token, 10% stay as they are."""

    mask_rare: float = Field(default=0.0, ge=0, le=1)
    """Hide rare tokens more often, in training alone: a token is drawn with the weight `frequency ** -mask_rare`.
    0: all alike."""

    whole_word: bool = False
    """Hide all pieces of a word, or none. For WordPiece tokenizers."""

    next_sentence: bool = False
    """Also tell whether the second half of a block follows the first, or was taken from elsewhere, as BERT did."""


class SpanCorruption(LanguageModelConfig):
    """Runs of tokens that are cut out of a text, as T5 learns: an encoder reads the rest, a decoder writes them."""

    then: ClassVar[str] = "finetune +recipe=t5_summary model.path={run} dataset=csv dataset.train=YOUR.csv"

    name: Literal["span_corruption"] = "span_corruption"
    """Runs of tokens that are cut out of a text, as T5 learns: an encoder reads the rest, a decoder writes them."""

    density: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are cut out."""

    mean_length: float = Field(default=3.0, ge=1)
    """Tokens of such a run, on average."""
