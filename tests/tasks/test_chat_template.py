"""What of a conversation is trained, by chat templates of many habits."""

import json
from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.models.labelled import IGNORED
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError
from llmft.tasks.chat_template import ChatTemplate
from llmft.tasks.conversations import Message, Unfit, parse
from llmft.tasks.own_template import TEMPLATES, give_template, own_template

TURN = "<s>{{ m.role }}\n{{ m.content }}<e>\n"
ASK = "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
TURNS = "{% for m in messages %}" + TURN + "{% endfor %}" + ASK

HABITS = {
    "turns": TURNS,
    "its own system prompt": "{% if messages[0].role != 'system' %}<s>system\nBe brief.<e>\n{% endif %}" + TURNS,
    "space around texts is stripped": TURNS.replace("m.content", "m.content | trim"),
    "an end of its own after the last turn": TURNS.replace(ASK, "{% if add_generation_prompt %}<s>assistant\n"
    "{% else %}<x>{% endif %}"),
    "no role is written": "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<e>"
    "{% else %}<s>{{ m.content }}<s>{% endif %}{% endfor %}",
    "answers are marked": "{% for m in messages %}{% if m.role == 'assistant' %}<s>assistant\n"
    "{% generation %}{{ m.content }}<e>\n{% endgeneration %}{% else %}" + TURN + "{% endif %}{% endfor %}" + ASK,
    "the date": "<s>{{ strftime_now('%Y') }}<e>" + TURNS,
}  # fmt: skip
TALK = parse(json.dumps([
    {"role": "user", "content": "你好"}, {"role": "assistant", "content": "\n\nfine 😀 "},
    {"role": "user", "content": "ok?"}, {"role": "assistant", "content": "ok"},
]))  # fmt: skip


@cache
def _letters() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<p>", "<s>", "<e>", "<x>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["assistant\n\n\n", "user\n", "ok fine"] * 4, trainer)
    return tokenizer


def made(template: str | None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, which joins line breaks, with a chat template."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_letters(), pad_token="<p>")
    tokenizer.add_tokens(["<s>", "<e>", "<x>"], special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def trained(template: ChatTemplate, messages: list[Message], length: int = 1000) -> str:
    """The text of what is trained, `|` between its parts."""
    tokens = template.encode(messages, "answers", length)
    parts: list[list[int]] = [[]]
    for token, label in zip(tokens.ids, tokens.labels, strict=True):
        assert label in (token, IGNORED)
        parts = [*parts[:-1], [*parts[-1], token]] if label != IGNORED else [*parts, []]
    return "|".join(template.tokenizer.decode(part) for part in parts if part)


@pytest.mark.parametrize("habit", HABITS)
def test_answers_are_trained_with_their_end_of_turn_and_nothing_else(habit: str) -> None:
    template = ChatTemplate(made(HABITS[habit]))
    assert template.end_text == "<e>"
    first = "fine 😀<e>" if "stripped" in habit else "\n\nfine 😀 <e>"
    found = trained(template, TALK)
    # The line break that stands before an answer is one token with those that the answer begins with.
    assert found in (f"{first}|ok<e>", f"\n{first}|ok<e>")
    assert template.encode(TALK, "all", 1000).labels == template.encode(TALK, "all", 1000).ids


@pytest.mark.parametrize("habit", HABITS)
def test_what_is_asked_is_how_the_trained_text_begins(habit: str) -> None:
    template = ChatTemplate(made(HABITS[habit]))
    text, spans = template.answers(TALK)
    asked = template.tokenizer.decode(template.ask(TALK, 1000).ids)
    assert text.startswith(asked)
    if "marked" not in habit:
        assert len(asked) == spans[-1][0]
    assert set(template.ask(TALK, 1000).labels) == {IGNORED}


def test_an_answer_that_is_written_otherwise_later_is_trained_while_it_is_the_last() -> None:
    template = ChatTemplate(made(
        "{% for m in messages %}<s>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}<x>\n{% endif %}"
        "{{ m.content }}<e>\n{% endfor %}" + ASK
    ))  # fmt: skip
    assert template.rewrites
    assert trained(template, TALK) == "<x>\nok<e>"
    assert "only the last answer" in template.notes()[0]


def test_a_long_conversation_keeps_its_end() -> None:
    template = ChatTemplate(made(TURNS))
    whole, cut = template.encode(TALK, "answers", 1000), template.encode(TALK, "answers", 8)
    assert (whole.cut, cut.cut) == (False, True)
    assert cut.ids == whole.ids[-8:]
    assert trained(template, TALK, 8) == "ok<e>"
    assert template.ask(TALK, 8).ids == template.ask(TALK, 1000).ids[-8:]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "the tokenizer has no chat template"),
        (TURNS.replace("<e>", ""), "the chat template closes an answer with '\\n', no end-of-turn token"),
        ("{{ raise_exception('not today') }}", "the chat template refuses it: not today"),
        ("{% for m in messages %}", "the chat template refuses it: "),
        ("hello<e>", "the chat template does not write message 1 (user) as it is"),
    ],
)  # fmt: skip
def test_a_template_that_nothing_can_be_learnt_from_is_refused(template: str | None, why: str) -> None:
    with pytest.raises(Unfit) as error:
        ChatTemplate(made(template))
    assert str(error.value).startswith(why)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            TURNS.replace(TURN, "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}" + TURN),
            "the chat template refuses it: roles must alternate",
        ),
        ("<s>{{ messages | length }}" + TURNS, "the chat template writes what stands before message 5 otherwise"),
        ("{% for m in messages if m.role != 'tool' %}" + TURN + "{% endfor %}" + ASK,
         "the chat template does not write message 3 (tool) as it is"),
        (HABITS["answers are marked"].replace("<e>\n{% endgeneration %}", "{% endgeneration %}<e>\n"),
         "<e>, the end-of-turn token, is not trained after 'one'"),
        (HABITS["answers are marked"].replace("{{ m.content }}<e>\n{% endgeneration %}", "{% endgeneration %}"
         "{{ m.content }}<e>\n"), "the chat template marks no answer"),
    ],
)  # fmt: skip
def test_a_row_that_the_template_does_not_take_says_why(template: str, why: str) -> None:
    roles = ("user", "assistant", "tool", "user", "assistant")
    talk = [{"role": role, "content": text} for role, text in zip(roles, ("a1", "one", "t1", "b1", "two"), strict=True)]
    with pytest.raises(Unfit) as error:
        ChatTemplate(made(template)).answers(talk)
    assert str(error.value).startswith(why)


def test_a_message_can_not_end_its_turn() -> None:
    with pytest.raises(Unfit, match="message 1 holds <e>, a control token of the model"):
        ChatTemplate(made(TURNS)).answers([{"role": "user", "content": "a<e>b"}, *TALK[1:]])


def test_what_the_template_adds_is_said() -> None:
    assert ChatTemplate(made(TURNS)).notes() == []
    assert ChatTemplate(made(HABITS["its own system prompt"])).notes() == [
        "the chat template begins conversations without a system message with its own: 'Be brief.'"
    ]
    assert "today's date" in ChatTemplate(made(HABITS["the date"])).notes()[0]


@pytest.mark.parametrize(("name", "end"), [("plain", "<|endoftext|>"), ("chatml", "<|im_end|>")])
def test_our_own_templates_are_kept_with_a_tokenizer_that_has_none(name: str, end: str, tmp_path: object) -> None:
    tokenizer = made(None)
    give_template(tokenizer, name, ModelConfig(init="random"))  # type: ignore[arg-type]
    tokenizer.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert own_template(again) == name
    template = ChatTemplate(again)
    assert (template.end_text, template.rewrites, template.notes()) == (end, False, [])
    assert trained(template, TALK).removeprefix("\n") == f"\n\nfine 😀 {end}|ok{end}"


def test_the_template_of_the_tokenizer_is_never_replaced() -> None:
    tokenizer = made(TURNS)
    give_template(tokenizer, "chatml", ModelConfig(init="random"))
    assert tokenizer.chat_template == TURNS != TEMPLATES["chatml"]
    assert own_template(tokenizer) is None


@pytest.mark.parametrize(
    ("name", "problem"), [(None, "no chat model"), ("chatml", "<|im_start|> and <|im_end|>, which"), ("plain", "<|end")]
)
def test_a_pretrained_model_without_a_template(name: str | None, problem: str) -> None:
    with pytest.raises(UserError, match="model=smollm2") as error:
        give_template(made(None), name, ModelConfig(path="somewhere"))  # type: ignore[arg-type]
    assert problem in str(error.value)
