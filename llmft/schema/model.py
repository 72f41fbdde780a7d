"""The section `model`: which weights, from where, or which sizes for weights from scratch."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmft.schema.section import Section
from llmft.schema.tokenizer import TokenizerConfig


def _as_list(value: Any) -> Any:
    """`encoder` is written without brackets, and null means none."""
    return [value] if isinstance(value, str) else value or []


def _by_path(value: Any) -> Any:
    """A text is the path of a tokenizer, and null means that nothing is said of one."""
    return {"path": value} if isinstance(value, str) else value or {}


FITTED = ("boosting",)
"""Architectures that are fitted to all rows at once: they have no gradients, no steps and no checkpoints."""

Hub = Literal["huggingface", "modelscope"]
Patterns = Annotated[list[str], BeforeValidator(_as_list)]


class ModelConfig(Section):
    """A model by its path, or an architecture with random weights."""

    name: str = "custom"
    """What the model is called in folders, reports and the model card."""

    path: str | None = None
    """A folder, that of a run among them, an id on the Hugging Face hub, or `package:NAME/FOLDER` inside an installed
    Python package; or a `.gguf` file in one of them, whose weights are unpacked to float32."""

    hub: Hub = "huggingface"
    """Whose id `path` is, where it is one: that of huggingface.co, or of the mirror that the environment variable
    HF_ENDPOINT names, or of modelscope.cn (`pip install 'llmft[modelscope]'`)."""

    architecture: str | None = None
    """The architecture's name in transformers (`bert`, `distilbert`, ...) or one of ours for tables (`linear`, `mlp`,
    `ft_transformer`, `boosting`)."""

    init: (
        Literal[
            "pretrained",
            "random",
            "xavier_uniform",
            "xavier_normal",
            "kaiming_uniform",
            "kaiming_normal",
            "orthogonal",
        ]
        | None
    ) = None
    """Where the first weights come from. All but `pretrained` keep the architecture and the tokenizer of `path`, with
    random weights by the architecture's own rule, or (`xavier_uniform` ...) linear layers by the one that is named.
    Unset: `pretrained` with a path, `random` without."""

    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Every dropout of the architecture, whatever it calls them. Unset: its own, or what `model.config` says."""

    freeze: Patterns = Field(default_factory=list)
    """Weights that stay as they are: `encoder` (only the head trains, on outputs that are computed once), or a list of
    parts such as `[embeddings,layers.0-3]`, or of weights by name, such as `"*.LayerNorm"`."""

    unfreeze: int | None = Field(default=None, ge=1)
    """Gradual unfreezing: the first epoch trains what stands on top of the layers, each later one so many layers more,
    from the top; the embeddings come last. What `freeze` names stays frozen."""

    config: Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})] = Field(default_factory=dict)
    """Sizes and options of the architecture by its own names, such as `hidden_size`."""

    tokenizer: Annotated[TokenizerConfig, BeforeValidator(_by_path, json_schema_input_type=str | TokenizerConfig)] = (
        TokenizerConfig()
    )

    revision: str | None = None
    """Branch, tag or commit on the hub."""

    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """What `model.safetensors`, or the `.gguf` file, must hash to; a difference stops the run."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for code that you have read."""

    @property
    def first_weights(self) -> str:
        """`init`, or what it means where it is unset."""
        return self.init or ("pretrained" if self.path else "random")
