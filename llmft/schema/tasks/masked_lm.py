"""The section `task` of masked language models."""

from typing import ClassVar, Literal

from pydantic import Field

from llmft.schema.language_model import LanguageModelConfig


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
