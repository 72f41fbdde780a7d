"""The section `model`: which weights, from where, or which sizes for weights from nothing."""

from typing import Any, Literal

from pydantic import Field

from llmft.schema.section import Section


class ModelConfig(Section):
    """A model by its path, or an architecture with random weights."""

    name: str = "custom"
    """What the model is called in folders, reports and the model card."""

    path: str | None = None
    """A folder, an id on the Hugging Face hub, or `package:NAME/FOLDER` inside an installed Python package."""

    architecture: str | None = None
    """The architecture's name in transformers (`bert`, `distilbert`, ...) or one of ours for tables (`linear`, `mlp`,
    `ft_transformer`)."""

    init: Literal["pretrained", "random"] = "pretrained"
    """Where the first weights come from. `random` keeps the architecture and the tokenizer of `path`."""

    freeze: Literal["encoder"] | None = None
    """Weights that stay as they are. `encoder`: only the head trains, on outputs that are computed once."""

    config: dict[str, Any] = Field(default_factory=dict)
    """Sizes and options of the architecture by its own names, such as `hidden_size`."""

    tokenizer: str | None = None
    """A folder or hub id with a tokenizer. Unset: the one at `path`, or one trained on the training texts."""

    vocab_size: int = Field(default=8000, ge=16)
    """Entries of a tokenizer that is trained here."""

    revision: str | None = None
    """Branch, tag or commit on the hub."""

    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """What `model.safetensors` must hash to; a difference stops the run."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for code that you have read."""
