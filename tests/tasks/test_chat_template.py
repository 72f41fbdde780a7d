"""What of a conversation is trained, by chat templates of many habits."""

import json
from functools import cache

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.chat.chat_template import TEMPLATES, ChatTemplate, give_template, own_template
from llmft.tasks.chat.conversations import Conversation, Unfit, parse
from llmft.tasks.tokenizer import Tokenizer

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
TALK = Conversation(parse(json.dumps([
    {"role": "user", "content": "你好"}, {"role": "assistant", "content": "\n\nfine 😀 "},
    {"role": "user", "content": "ok?"}, {"role": "assistant", "content": "ok"},
])))  # fmt: skip


@cache
def _letters() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
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


def template_of(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
    return ChatTemplate(Tokenizer.of(tokenizer))


def trained(template: ChatTemplate, talk: Conversation, length: int = 1000) -> str:
    """The text of what is trained, `|` between its parts."""
    tokens = template.encode(talk, "answers", length)
    parts: list[list[int]] = [[]]
    for token, label in zip(tokens.ids, tokens.labels, strict=True):
        assert label in (token, IGNORED)
        parts = [*parts[:-1], [*parts[-1], token]] if label != IGNORED else [*parts, []]
    return "|".join(template.tokenizer.decode(part) for part in parts if part)


@pytest.mark.parametrize("habit", HABITS)
def test_answers_are_trained_with_their_end_of_turn_and_nothing_else(habit: str) -> None:
    template = template_of(made(HABITS[habit]))
    assert template.end_text == "<e>"
    first = "fine 😀<e>" if "stripped" in habit else "\n\nfine 😀 <e>"
    found = trained(template, TALK)
    # The line break that stands before an answer is one token with those that the answer begins with.
    assert found in (f"{first}|ok<e>", f"\n{first}|ok<e>")
    assert template.encode(TALK, "all", 1000).labels == template.encode(TALK, "all", 1000).ids


@pytest.mark.parametrize("habit", HABITS)
def test_what_is_asked_is_how_the_trained_text_begins(habit: str) -> None:
    template = template_of(made(HABITS[habit]))
    text, spans = template.answers(TALK)
    asked = template.tokenizer.decode(template.encode_prompt(TALK, 1000).ids)
    assert text.startswith(asked)
    if "marked" not in habit:
        assert len(asked) == spans[-1][0]
    assert set(template.encode_prompt(TALK, 1000).labels) == {IGNORED}


def test_an_answer_that_is_written_otherwise_later_is_trained_while_it_is_the_last() -> None:
    template = template_of(made(
        "{% for m in messages %}<s>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}<x>\n{% endif %}"
        "{{ m.content }}<e>\n{% endfor %}" + ASK
    ))  # fmt: skip
    assert template.rewrites
    assert trained(template, TALK) == "<x>\nok<e>"
    assert "only the last answer" in template.notes()[0]


def test_a_long_conversation_keeps_its_end() -> None:
    template = template_of(made(TURNS))
    whole, cut = template.encode(TALK, "answers", 1000), template.encode(TALK, "answers", 8)
    assert (whole.cut, cut.cut) == (False, True)
    assert cut.ids == whole.ids[-8:]
    assert trained(template, TALK, 8) == "ok<e>"
    assert template.encode_prompt(TALK, 8).ids == template.encode_prompt(TALK, 1000).ids[-8:]


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
        template_of(made(template))
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
        template_of(made(template)).answers(Conversation(talk))
    assert str(error.value).startswith(why)


def test_a_message_can_not_end_its_turn() -> None:
    with pytest.raises(Unfit, match="message 1 holds <e>, a control token of the model"):
        template_of(made(TURNS)).answers(Conversation([{"role": "user", "content": "a<e>b"}, *TALK.messages[1:]]))


def test_what_the_template_adds_is_said() -> None:
    assert template_of(made(TURNS)).notes() == []
    assert template_of(made(HABITS["its own system prompt"])).notes() == [
        "the chat template begins conversations without a system message with its own: 'Be brief.'"
    ]
    assert "today's date" in template_of(made(HABITS["the date"])).notes()[0]


@pytest.mark.parametrize(("name", "end"), [("plain", "<|endoftext|>"), ("chatml", "<|im_end|>")])
def test_our_own_templates_are_kept_with_a_tokenizer_that_has_none(name: str, end: str, tmp_path: object) -> None:
    tokenizer = made(None)
    give_template(tokenizer, name, ModelConfig(init="random"))  # type: ignore[arg-type]
    tokenizer.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert own_template(again) == name
    template = template_of(again)
    assert (template.end_text, template.rewrites, template.notes()) == (end, False, [])
    assert trained(template, TALK).removeprefix("\n") == f"\n\nfine 😀 {end}|ok{end}"


def test_the_template_of_the_tokenizer_is_never_replaced() -> None:
    tokenizer = made(TURNS)
    give_template(tokenizer, "chatml", ModelConfig(init="random"))
    assert tokenizer.chat_template == TURNS != TEMPLATES["chatml"]
    assert own_template(tokenizer) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [(None, "is not a chat model"), ("chatml", "<|im_start|> and <|im_end|>, which"), ("plain", "<|end")],
)
def test_a_pretrained_model_without_a_template(name: str | None, problem: str) -> None:
    with pytest.raises(UserError, match="model=smollm2") as error:
        give_template(made(None), name, ModelConfig(path="somewhere"))  # type: ignore[arg-type]
    assert problem in str(error.value)


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CAPABLE = (
    "{% if tools %}<s>system\n{{ tools | tojson }}<e>\n{% endif %}"
    "{% for d in documents or [] %}<s>system\n{{ d.title }}<e>\n{% endfor %}"
    "{% for m in messages %}<s>{{ m.role }}{{ ' ' + m.name if m.name else '' }}\n"
    "{% if m.reasoning_content and not no_thinking %}<x>{{ m.reasoning_content }}<x>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}<e>\n"
    "{% endfor %}" + ASK
)
USED = parse(json.dumps([
    {"role": "user", "content": "sun?", "name": "Ann"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "I ask."},
    {"role": "tool", "content": "yes", "tool_call_id": "1", "name": "weather"},
    {"role": "assistant", "content": "It is.", "reasoning_content": "So it is."},
]))  # fmt: skip


def test_what_a_row_says_beside_its_texts_is_written_and_the_answers_are_trained_with_it() -> None:
    template = template_of(made(CAPABLE))
    talk = Conversation(USED, {"tools": [TOOL], "documents": [{"title": "Sky"}]})
    text, spans = template.answers(talk)
    assert text == template.tokenizer.apply_chat_template(
        USED, tools=[TOOL], documents=[{"title": "Sky"}], tokenize=False
    )
    assert [text[start:end] for start, end in spans] == [
        '<x>I ask.<x>[weather {"town": "Ulm"}]<e>',
        "<x>So it is.<x>It is.<e>",
    ]
    assert template.prompt(talk.question()) == text[: spans[1][0]]
    assert template.tokenizer.decode(template.encode_prompt(talk, 1000).ids) == text[: spans[1][0]]
    without, _ = template.answers(Conversation(USED[:1] + USED[3:], {"no_thinking": False}))
    assert "So it is." in without


@pytest.mark.parametrize(
    ("template", "talk", "why"),
    [
        (TURNS, Conversation(TALK.messages, {"tools": [TOOL]}), "has 'tools', which the chat template does not write"),
        (TURNS, Conversation(TALK.messages, {"documents": [{"title": "Sky"}]}), "has 'documents', which the chat"),
        (TURNS, Conversation(TALK.messages, {"enable_thinking": False}), "dataset.ignore=[chat_template_kwargs]"),
        (TURNS, Conversation(USED), "message 1 has 'name', which the chat template does not write; write dataset.ig"),
        (TURNS, Conversation([TALK.messages[0], USED[3]]), "message 2 has 'reasoning_content', which the chat"),
        (TURNS, Conversation([TALK.messages[0], USED[1]]), "message 2 has 'reasoning_content'"),
        (TURNS, Conversation([TALK.messages[0], {**USED[1], "reasoning_content": ""}]), "message 2 has "),
        (CAPABLE, Conversation([TALK.messages[0], {**USED[3], "mood": "gay"}]), "message 2 has 'mood', which"),
        (CAPABLE, Conversation([TALK.messages[0], {**USED[3], "reasoning_content": "a<e>b"}]), "message 2 holds <e>"),
        (CAPABLE, Conversation(USED, {"tools": [{**TOOL, "function": {"name": "<e>"}}]}), "the row holds <e>"),
        (CAPABLE, Conversation(USED, {"chat_template": "{{ 1 }}"}), "chat_template_kwargs has chat_template, which"),
    ],
)
def test_what_the_template_does_not_write_is_refused_by_name(template: str, talk: Conversation, why: str) -> None:
    with pytest.raises(Unfit) as error:
        template_of(made(template)).answers(talk)
    assert why in str(error.value)
    with pytest.raises(Unfit):
        template_of(made(template)).prompt(talk)


def test_a_thought_that_is_dropped_once_the_conversation_goes_on_is_trained_where_it_stands() -> None:
    """As Qwen 3 does: of an answer whose thought no longer stands before it, nothing is trained."""
    last = CAPABLE.replace("m.reasoning_content and", "m.reasoning_content and loop.last and")
    thought = [
        {**message, "reasoning_content": "hm"} if message["role"] == "assistant" else message
        for message in TALK.messages
    ]
    template = template_of(made(last))
    assert not template.rewrites
    assert trained(template, Conversation(thought)) == "<x>hm<x>ok<e>"
    assert trained(template_of(made(CAPABLE)), Conversation(thought)) == "<x>hm<x>\n\nfine 😀 <e>|<x>hm<x>ok<e>"


@pytest.mark.parametrize("habit", ["turns", "answers are marked"])
def test_an_answer_of_weight_0_is_read_and_not_trained(habit: str) -> None:
    template = template_of(made(HABITS[habit]))
    assert trained(template, Conversation(TALK.messages, untrained=frozenset({1}))) == "ok<e>"
    assert template.encode(Conversation(TALK.messages, untrained=frozenset({1})), "answers", 1000).ids == (
        template.encode(TALK, "answers", 1000).ids
    )


def test_arguments_are_given_as_a_text_to_a_template_that_joins_them() -> None:
    joins = CAPABLE.replace("c.function.arguments | tojson", "'' + c.function.arguments")
    text, _ = template_of(made(joins)).answers(Conversation(USED))
    assert '[weather {"town": "Ulm"}]' in text


def spaced(scheme: str) -> PreTrainedTokenizerFast:
    """A tokenizer that begins texts with <s>, and marks spaces as Llama's and Mistral's do."""
    tokenizer = tokenizers.Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "▁": 2, "a": 3, "▁a": 4, "b": 5}, [("▁", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_a_text_begins_as_the_tokenizer_itself_begins_it(scheme: str, tmp_path: object) -> None:
    tokenizer = spaced(scheme)
    assert Tokenizer.of(tokenizer).before_text == [0]
    give_template(tokenizer, "plain", ModelConfig(path="somewhere"))
    tokenizer.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert own_template(again) == "plain"
    template = template_of(again)
    talk = Conversation([{"role": "user", "content": "ab"}, {"role": "assistant", "content": "b"}])
    own = tokenizer("ab")["input_ids"][:-1]
    ids = template.encode(talk, "answers", 100).ids
    assert ids[: len(own)] == own == template.encode_prompt(talk, 100).ids[: len(own)]
    assert ids.count(0) == 1
    assert ids[-1] == 1
    assert ids.count(1) == 1


def test_a_template_that_writes_the_first_token_itself_has_it_once() -> None:
    tokenizer = spaced("first")
    tokenizer.chat_template = "<s>" + "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    assert template_of(tokenizer).encode(
        Conversation([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]), "answers", 100
    ).ids.count(0) == 1  # fmt: skip
