"""The sections of the model: which weights, from where, or which sizes; its tokenizer; its adapter."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

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
