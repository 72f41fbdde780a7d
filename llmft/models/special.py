"""The special tokens of a tokenizer that is trained here: what each kind of model needs, and where they stand."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Special:
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


BERT = Special(
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
GPT = Special({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
T5 = Special(
    {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    more=tuple(f"<extra_id_{number}>" for number in range(100)),
    single="$A </s>",
    pair="$A </s> $B </s>",
)


def before_text(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens that a tokenizer itself puts before a text, such as `<s>` of Llama and Mistral; often none."""
    own, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    return next((own[:k] for k in range(len(own)) if own[k : k + len(bare)] == bare), [])
