"""The section `adapter`: a few new weights that train in place of the model's own."""

from typing import ClassVar, Literal

from pydantic import Field

from llmft.schema.section import Section

OF_LAYERS = ("target_modules", "r", "alpha", "dropout")


class AdapterConfig(Section):
    """A few new weights that train with the head while the others stay. Wants peft: `pip install 'llmft[peft]'`."""

    reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "none": (),
        "lora": OF_LAYERS,
        "rslora": OF_LAYERS,
        "dora": OF_LAYERS,
        "ia3": ("target_modules", "feedforward_modules"),
        "prefix": ("prefix_length",),
    }
    """The keys that each kind looks at."""

    name: Literal["none", "lora", "rslora", "dora", "ia3", "prefix"] = "none"
    """The kind: low-rank updates of layers (`lora`; `rslora` scales them by the root of `r`, `dora` learns their length
    apart), factors of their outputs (`ia3`), or made-up tokens before each layer's own (`prefix`)."""

    r: int = Field(default=8, ge=1)
    """lora, rslora, dora: rank of the update of a layer."""

    alpha: float = Field(default=16, gt=0)
    """lora, rslora, dora: the update counts `alpha / r` times; with rslora, `alpha / sqrt(r)` times."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """lora, rslora, dora: share of a layer's inputs that its update does not see in training."""

    target_modules: list[str] | Literal["all-linear"] | None = Field(default=None)
    """Layers that get an update, by the ends of their names, such as `[query,value]`. `all-linear`: all but the head's
    and those that share their weights, such as output embeddings that are the embeddings; with lora and rslora also the
    experts of a mixture. Unset: those that peft names for the architecture, or else all linear layers but experts."""

    feedforward_modules: list[str] | None = None
    """ia3: those of `target_modules` whose inputs are scaled instead of their outputs. Unset: those that peft names."""

    prefix_length: int = Field(default=20, ge=1)
    """prefix: made-up tokens before each layer's own; they take as many of the model's positions."""
