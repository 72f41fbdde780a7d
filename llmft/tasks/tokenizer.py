"""A tokenizer that reads tokenizer.json itself, so that text is encoded without transformers and torch."""

import json
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

import tokenizers
from tokenizers import Encoding

from llmft.schema.model import PLAIN_TOKENIZERS, ModelConfig

FILES = ("tokenizer.json", "tokenizer_config.json")
# The classes of transformers 5 whose models read which of two texts a token is of: all others name input_ids and
# attention_mask alone. Where tokenizer_config.json has `model_input_names`, these count.
READS_TYPES = {
    "BertTokenizer",
    "CanineTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "FNetTokenizer",
    "LayoutLMv2Tokenizer",
    "MarkupLMTokenizer",
    "TapasTokenizer",
}
CONFIGURED = ("model_input_names", "pad_token_type_id", "truncation_side", "extra_special_tokens")
# Of all tokenizers: where to cut a text is a setting of `tokenizers.Tokenizer`, set before a call that uses it, and
# several Tokenizers can share one. `tokenizers` encodes the texts of a call on all cores, so waiting costs little.
LOCK = Lock()
# What transformers replaces in a decoded text if tokenizer_config.json has `clean_up_tokenization_spaces`, in this
# order: the spaces that WordPiece puts before punctuation and English contractions.
CLEANED = [(f" {mark}", mark) for mark in (".", "?", "!", ",")] + [(" ' ", "'")]
CLEANED += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]


class Tokenizer:
    """Encodes and decodes by `tokenizers`; everything else is that of transformers, loaded when it is first asked for.

    Both share one `tokenizers.Tokenizer`, so that what is saved has the settings that rows were encoded with. Special
    tokens are attributes as they are in transformers: `eos_token`, `eos_token_id`; None where there is no such token.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any], pretrained: Any = None) -> None:
        """Take what is there; `of` and `load` make it.

        Args:
            config: `tokenizer_config.json`, of which the special tokens and CONFIGURED are used.
            pretrained: the tokenizer of transformers, or the folder that it is loaded from.
        """
        self.backend = backend
        self.config = config
        self._pretrained = pretrained

    @classmethod
    def of(cls, pretrained: Any) -> Self:
        """The tokenizer that a fast tokenizer of transformers is."""
        config = {name: getattr(pretrained, name) for name in CONFIGURED} | dict(pretrained.special_tokens_map)
        return cls(pretrained.backend_tokenizer, config, pretrained)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The tokenizer that was saved in RUN/model or in the cache.

        If the process has imported transformers, its tokenizer is loaded at once: the files of a cache entry may go.
        """
        file, settings = (folder / name for name in FILES)
        config = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        if sys.modules.get("transformers") or not file.is_file() or "auto_map" in config:
            return cls.of(load_saved(folder))
        return cls(tokenizers.Tokenizer.from_file(str(file)), config, folder)

    @property
    def pretrained(self) -> Any:
        """The tokenizer of transformers, for what `tokenizers` alone cannot do: chat templates, saving."""
        if isinstance(self._pretrained, Path):
            self._pretrained = load_saved(self._pretrained)
            self.backend = self._pretrained.backend_tokenizer
        return self._pretrained

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of copy and pickle, which ask before anything is there
            raise AttributeError(name)
        if name.endswith("_token_id"):
            token = getattr(self, name.removesuffix("_id"))
            return None if token is None else self.backend.token_to_id(token)
        if name.endswith("_token"):
            return _text(self.config.get(name))
        return getattr(self.pretrained, name)

    def __call__(self, *texts: Any, **options: Any) -> Any:
        """What transformers' tokenizer returns, for tasks of other packages. Not for threads: see `encode`."""
        return self.pretrained(*texts, **options)

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        cut: Literal["longest_first", "only_second"] = "longest_first",
        side: Literal["left", "right"] | None = None,
        stride: int = 0,
        special: bool = True,
        split_special: bool = True,
    ) -> list[Encoding]:
        """The tokens of each text, or pair of texts, as transformers encodes them. Nothing is padded.

        Threads can call it at the same time.

        Args:
            texts: each a text, or the words of one.
            max_length: the most tokens of a text; its `overflowing` has the others. None: all are kept.
            cut: which of two texts loses tokens.
            side: where tokens are cut off. None: as the tokenizer says, mostly on the right.
            stride: tokens that an overflowing part shares with the one before it.
            special: whether special tokens are put around.
            split_special: whether what looks like a special token, such as `[SEP]` in a text, is letters.
        """
        rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        words = bool(rows) and pairs is None and not isinstance(rows[0], str)
        backend = self.backend
        with LOCK:
            if max_length is None:
                if backend.truncation is not None:
                    backend.no_truncation()
            else:
                direction = side or self.truncation_side
                backend.enable_truncation(max_length, stride=stride, strategy=cut, direction=direction)
            if backend.padding is not None:  # the tokenizer of MiniLM pads all rows to 128 tokens
                backend.no_padding()
            backend.encode_special_tokens = split_special
            encoded: list[Encoding] = backend.encode_batch(rows, add_special_tokens=special, is_pretokenized=words)
        return encoded

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of tokens, as transformers writes it."""
        if not isinstance(self._pretrained, Path):
            return str(self._pretrained.decode(ids, skip_special_tokens=skip_special_tokens))
        text = self.backend.decode([int(token) for token in ids], skip_special_tokens=skip_special_tokens)
        # transformers does so for WordPiece; for BPE, whose spaces are those of the text, it ignores the setting.
        words = not isinstance(self.backend.model, tokenizers.models.BPE)
        if words and self.config.get("clean_up_tokenization_spaces"):
            for spaced, plain in CLEANED:
                text = text.replace(spaced, plain)
        return str(text)

    @property
    def truncation_side(self) -> Literal["left", "right"]:
        """Where tokens of a text that is too long are cut off, unless `encode` is told otherwise."""
        return "left" if self.config.get("truncation_side") == "left" else "right"

    @cached_property
    def before_text(self) -> list[int]:
        """The special tokens before a text, such as `<s>` of Llama and Mistral; often none."""
        whole, bare = (self.encode(["a"], special=special)[0].ids for special in (True, False))
        return tokens_around(whole, bare)[0]

    @property
    def all_special_ids(self) -> list[int]:
        """The special tokens that have a role, and those that tokenizer_config.json names beside them."""
        if not isinstance(self._pretrained, Path):
            return list(self._pretrained.all_special_ids)
        more = self.config.get("extra_special_tokens", self.config.get("additional_special_tokens")) or []
        named = [token for name, token in self.config.items() if name.endswith("_token")]
        tokens = map(_text, [*named, *(more.values() if isinstance(more, dict) else more)])
        known = (self.backend.token_to_id(token) for token in tokens if token is not None)
        return [number for number in known if number is not None]

    @property
    def reads_types(self) -> bool:
        """Whether the model reads `token_type_ids`: which of two texts a token is of."""
        names = self.config.get("model_input_names")
        kind = str(self.config.get("tokenizer_class", "")).removesuffix("Fast")
        return kind in READS_TYPES if names is None else "token_type_ids" in names

    @property
    def pad_token_type_id(self) -> int:
        return int(self.config.get("pad_token_type_id", 0))

    @cached_property
    def padding_side(self) -> Literal["left", "right"]:
        """Where padding stands for a model that classifies texts, whatever side the tokenizer was saved with.

        Heads read the first token, a mean over the mask, or the last token that is not padding; positions count from
        the left, and the decoder of BART sees padding before a text in spite of the mask. So padding goes to the right,
        except for XLNet, which puts `<cls>` last and reads what stands in the last column.
        """
        (encoding,) = self.encode(["a"])
        return "left" if encoding.ids and encoding.ids[-1] == self.cls_token_id else "right"


def _text(token: Any) -> str | None:
    """A special token of tokenizer_config.json: a text, or an object that has it as `content`."""
    if isinstance(token, dict):
        return str(token["content"])
    return None if token is None or isinstance(token, bool) else str(token)  # add_bos_token is a setting


def tokens_around(whole: list[int], bare: list[int]) -> tuple[list[int], list[int]]:
    """What stands before and after the tokens of a text, such as `[CLS]` and `[SEP]`.

    Args:
        whole: the tokens of a text with special tokens.
        bare: those of the same text without.
    """
    places = (start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
    start = next(places, None)
    return ([], []) if start is None else (whole[:start], whole[start + len(bare) :])


def load_saved(folder: Path) -> Any:
    """The tokenizer of transformers that a run keeps, as it was saved."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    # AutoTokenizer would make another tokenizer of some: see `_is_plain` in models/tokenizers.py.
    plain = get_tokenizer_config(str(folder)).get("tokenizer_class") in PLAIN_TOKENIZERS
    return (PreTrainedTokenizerFast if plain else AutoTokenizer).from_pretrained(folder, trust_remote_code=False)


def learn(
    texts: Iterable[str], sample: Sequence[str], length: int, model: ModelConfig, side: Literal["right"] | None = None
) -> tuple[Tokenizer, int]:
    """The tokenizer of a model, or one trained on `texts`, and how many tokens the model can read, at most `length`.

    Args:
        sample: texts of the training rows, of which the first 1,000 tell whether the tokenizer knows their language.
        side: where padding stands, for those who load the model elsewhere. None: see `Tokenizer.padding_side`.

    Raises:
        UserError: for a tokenizer that does not know most of the words.
    """
    from llmft.models.build import clip_length
    from llmft.models.tokenizers import SAMPLE, check_language, load

    pretrained = load(model, texts)
    found = Tokenizer.of(pretrained)
    pretrained.padding_side = side or found.padding_side
    check_language(list(sample[:SAMPLE]), pretrained)
    return found, clip_length(length, model)
