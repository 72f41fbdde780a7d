"""A chat template of ours for tokenizers that have none; it is kept with them as any other is."""

import json
import re
from typing import Literal, get_args

from transformers import PreTrainedTokenizerFast

from llmft.models.tokenizers import before_text
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

TEMPLATES = {
    "plain": "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}",
    "chatml": "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
}
OWN = re.compile(r'^\{\{ "[^{}]*" \}\}')
"""What stands before a template where the tokenizer begins texts with a token."""
EOS = "<|endoftext|>"
CHATML = ("<|im_start|>", "<|im_end|>")
Name = Literal["plain", "chatml"]


def give_template(tokenizer: PreTrainedTokenizerFast, wanted: Name | None, model: ModelConfig) -> None:
    """Give a tokenizer without a chat template the one that is wanted, and the special tokens that this writes.

    Raises:
        UserError: where none is wanted, or pretrained weights have never seen its tokens.
    """
    if tokenizer.chat_template:
        return
    if wanted is None:
        what = f"{model.name} is no chat model: its tokenizer has no chat template, which rows with roles need"
        hint = "Choose one that has, such as model=smollm2; or write task.template=plain."
        raise UserError(Problem("model.tokenizer", what, hint=hint), "the data")
    eos = tokenizer.eos_token or EOS
    tokens = CHATML if wanted == "chatml" else (eos,)
    new = [token for token in tokens if token not in tokenizer.get_vocab()]
    if new and model.first_weights == "pretrained":
        what = f"{wanted} writes {' and '.join(new)}, which the tokenizer of {model.name} does not know"
        hint = "Write task.template=plain, or choose a chat model, such as model=smollm2."
        raise UserError(Problem("task.template", what, hint=hint), "the data")
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    tokenizer.eos_token = tokens[-1]
    tokenizer.chat_template = _beginning(tokenizer) + TEMPLATES[wanted]


def _beginning(tokenizer: PreTrainedTokenizerFast) -> str:
    """What a template writes first, so that a text begins as the tokenizer itself begins one: with `<s>`, or nothing.

    Some tokenizers take a word at the very beginning of a text for one after a space, and no longer where `<s>` stands
    before it: such get the space.
    """
    first = before_text(tokenizer)
    if not first:
        return ""
    text = "".join(tokenizer.convert_ids_to_tokens(first))
    tokenizer.add_tokens(tokenizer.convert_ids_to_tokens(first), special_tokens=True)  # so that it is read as a token
    wanted = first + tokenizer("a", add_special_tokens=False)["input_ids"]
    spaced = tokenizer(f"{text}a", add_special_tokens=False)["input_ids"] != wanted
    return f"{{{{ {json.dumps(text + ' ' * spaced, ensure_ascii=False)} }}}}"


def own_template(tokenizer: PreTrainedTokenizerFast) -> Name | None:
    """The name of the template that `give_template` gave."""
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return None
    return next((name for name in get_args(Name) if OWN.sub("", template) == TEMPLATES[name]), None)
