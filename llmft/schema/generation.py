"""The section `generation`: how a model writes texts."""

from pydantic import Field

from llmft.schema.section import Section


class GenerationConfig(Section):
    """How texts are written, token by token. Without `sample` the likeliest is taken, and answers repeat exactly."""

    max_new_tokens: int = Field(default=64, ge=1)
    """Tokens that a text has at most; it ends before where the model says so."""

    beams: int = Field(default=1, ge=1)
    """Beginnings that are followed side by side; the best whole one wins. 1: the likeliest next token is taken."""

    length_penalty: float = 1.0
    """beams: above 0 longer texts are preferred, below 0 shorter ones."""

    sample: bool = False
    """Draw each token by its probability, by `seed`, instead of taking the likeliest."""

    temperature: float = Field(default=1.0, gt=0)
    """sample: below 1 likely tokens become likelier, above 1 all become more alike."""

    top_k: int | None = Field(default=None, ge=1)
    """sample: draw among this many of the likeliest tokens."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """sample: draw among the likeliest tokens that make up this share together."""

    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1, tokens that have been written become less likely; those of a prompt don't count."""

    no_repeat: int | None = Field(default=None, ge=1)
    """No run of so many tokens is written twice; what stands in a prompt may be."""
