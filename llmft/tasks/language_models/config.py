"""The sections of the tasks that learn from raw text: causal_lm, masked_lm, and span_corruption."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmft.schema.tasks import TINY_TRANSFORMER, TaskConfig


class LanguageModelConfig(TaskConfig):
    """A task whose data is raw text."""

    pretrains: ClassVar[bool] = True
    exports: ClassVar[bool] = False
    tiny: ClassVar[dict[str, Any]] = TINY_TRANSFORMER
    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {"t5": TINY_TRANSFORMER | {"d_kv": 16, "d_ff": 64}}
    small: ClassVar[dict[str, Any]] = {"block": 32}
    files: ClassVar[str] = "dataset=text dataset.test=YOUR.txt"
    length: ClassVar[str] = "block"

    block: int = Field(default=128, ge=8, le=131072)
    """Tokens in one input. The training texts are joined and cut into blocks of this length, at other places in each
    epoch. Memory and time grow with it; the model sees no further than this."""

    @property
    def headline(self) -> str:
        """Perplexity is not comparable between tokenizers, and neither is the loss; but it is easier to interpret."""
        return "perplexity"


class CausalLm(LanguageModelConfig):
    """Language modeling: predict the next token of a text, as GPT does."""

    then: ClassVar[str] = "finetune +recipe=llm_instruct model.path={run} dataset=json dataset.train=YOUR.jsonl"

    name: Literal["causal_lm"] = "causal_lm"
    """Language modeling: predict the next token of a text, as GPT does."""

    @property
    def headline(self) -> str:
        """The only one of the metrics that can be compared between tokenizers."""
        return "bits_per_byte"


class MaskedLm(LanguageModelConfig):
    """Masked language modeling: predict hidden tokens of a text, as BERT does."""

    then: ClassVar[str] = "finetune +recipe=bert_textcls model.path={run} dataset=csv dataset.train=YOUR.csv"

    name: Literal["masked_lm"] = "masked_lm"
    """Masked language modeling: predict hidden tokens of a text, as BERT does."""

    mask_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens to predict, 0.15 as in BERT. Of these, 80% are replaced by the mask token, 10% by a random
    token, and 10% stay."""

    mask_rare: float = Field(default=0.0, ge=0, le=1)
    """Mask rare tokens more often, in training only: tokens are drawn with the weight `frequency ** -mask_rare`. 0: all
    alike."""

    whole_word: bool = False
    """Mask all tokens of a word or none. For WordPiece tokenizers."""

    next_sentence: bool = False
    """Also predict whether the second half of a block follows the first or comes from another document, as BERT did."""


class SpanCorruption(LanguageModelConfig):
    """Span corruption, as in T5: spans of tokens are cut out of a text; an encoder reads the rest, a decoder writes the
    spans."""

    then: ClassVar[str] = "finetune +recipe=t5_summary model.path={run} dataset=csv dataset.train=YOUR.csv"

    name: Literal["span_corruption"] = "span_corruption"
    """Span corruption, as in T5: spans of tokens are cut out of a text; an encoder reads the rest, a decoder writes the
    spans."""

    density: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are cut out, 0.15 as in T5."""

    mean_length: float = Field(default=3.0, ge=1)
    """Mean length of a span in tokens, 3 as in T5."""
