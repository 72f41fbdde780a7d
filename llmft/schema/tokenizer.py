"""The section `model.tokenizer`: one that is there already, or one that is trained on the training texts."""

from typing import ClassVar, Literal

from pydantic import Field

from llmft.schema.section import Section


class TokenizerConfig(Section):
    """The tokenizer of a model."""

    of_training: ClassVar[tuple[str, ...]] = ("kind", "size", "lowercase", "normalize", "min_count")
    """The keys that one which is there already does not read."""

    path: str | None = None
    """A folder, hub id or `.gguf` file with a tokenizer; `model.tokenizer=FOLDER` says the same. Unset: the one at
    `model.path`, or one trained on the training texts, as the keys below say."""

    kind: Literal["wordpiece", "bpe", "unigram", "characters"] = "wordpiece"
    """How texts are parted: `wordpiece` as BERT, `bpe` over bytes as GPT, `unigram` as T5, or each of the `characters`.
    All but `wordpiece` give a text back as it was."""

    size: int = Field(default=8000, ge=16)
    """Entries at most, special tokens among them. `bpe` and `unigram` need 256 for the bytes; of too many characters,
    those that are seen most are taken."""

    lowercase: bool | None = None
    """Make all letters small, of `wordpiece` also without accents. Unset: true for `wordpiece`, as BERT, else false."""

    normalize: Literal["NFC", "NFKC"] | None = None
    """Unicode normal form that texts are brought to first."""

    special: list[str] = Field(default_factory=list)
    """Tokens of one's own, such as `[USER]`, which are never parted in a text. A tokenizer that is there already gets
    them too, and pretrained weights new embeddings."""

    min_count: int = Field(default=1, ge=1)
    """How often a pair of pieces must be seen to become one (`wordpiece`, `bpe`), or a character to be one of the
    `characters`."""
