"""Tokenizers that are trained here: the same every time, reversible in any script, and loaded by transformers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.models.tokenizers import SPACE, train
from llmft.schema.model import BERT, GPT, T5, TokenizerConfig
from llmft.schema.problem import UserError

KINDS = ("wordpiece", "bpe", "unigram", "characters")
REVERSIBLE = KINDS[1:]
SPECIAL = {"wordpiece": BERT, "bpe": GPT, "unigram": T5, "characters": GPT}
TEXTS = [
    "The quick brown fox jumps over the lazy dog.\nIt was not amused,  and ran off.\n",
    "def f(x):\n    return x + 1\n",
    "味道很好，下次还来。\n你好，世界！\n",
    "Добрый день, мир. Всё хорошо.\n",
    "नमस्ते दुनिया 🙂🙃 café naïve\r\n",
    "<0x0A> ends a line\n",
] * 3  # fmt: skip


def trained(kind: str, **keys: Any) -> PreTrainedTokenizerFast:
    return train(TEXTS, TokenizerConfig(kind=kind, **({"size": 600} | keys)), SPECIAL[kind])


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    return {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer(kind: str) -> None:
    """tokenizers numbers by hash tables with random keys: trained plainly, wordpiece and unigram differ in each run."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdeåß", k=rng.randint(2, 6))) for _ in range(60)]  # many pieces of equal count
    texts = [*TEXTS, *(" ".join(rng.choices(words, k=12)) for _ in range(20)), "running runner sunny funny honey"]
    found = set()
    for size in (380, 400) if kind in ("bpe", "unigram") else (200, 220):
        for _ in range(4):
            rng.shuffle(texts)
            tokenizer = train(iter(texts), TokenizerConfig(kind=kind, size=size), SPECIAL[kind])
            found.add(json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()), sort_keys=True))
    assert len(found) == 2 if kind != "characters" else 1


@pytest.mark.parametrize("kind", REVERSIBLE)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE), max_size=60))
def test_any_text_comes_back_as_it_was(tokenizers: dict[str, PreTrainedTokenizerFast], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    if kind == "characters":  # those it has not seen are unknown
        known = set(tokenizer.get_vocab())
        text = "".join(character for character in text if character in known)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    assert all(0 <= number < len(tokenizer) for number in ids)


@pytest.mark.parametrize("kind", REVERSIBLE)
@pytest.mark.parametrize("text", [*TEXTS[:6], " a", "a  b ", "\n\n a\n", "\t\r\n", "<0x0A> is no line end"])
def test_spaces_and_line_ends_come_back(tokenizers: dict[str, PreTrainedTokenizerFast], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    if kind == "characters" and (strange := set(text) - set(tokenizer.get_vocab())):
        assert tokenizer.unk_token_id in tokenizer(text).input_ids, strange
    else:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_what_was_saved(
    tokenizers: dict[str, PreTrainedTokenizerFast], kind: str, here: Path
) -> None:
    tokenizer = tokenizers[kind]
    tokenizer.save_pretrained(here)
    loaded = AutoTokenizer.from_pretrained(here)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.special_tokens_map == tokenizer.special_tokens_map
    for text in TEXTS[:6]:
        assert loaded(text, text).input_ids == tokenizer(text, text).input_ids
        assert loaded.decode(loaded(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", [BERT, GPT, T5], ids=["bert", "gpt", "t5"])
def test_every_kind_takes_the_special_tokens_of_every_model(kind: str, special: Any) -> None:
    config = TokenizerConfig(kind=kind, size=500, special=["[USER]", "<à>"])
    tokenizer = train(TEXTS, config, special)
    tokens = ["a", *special.tokens, "[USER]", "<à>", "b"]
    ids = tokenizer(" ".join(tokens), add_special_tokens=False).input_ids
    assert {*special.tokens, "[USER]", "<à>"} <= set(tokenizer.convert_ids_to_tokens(ids))
    said = set(tokenizer.decode(ids, skip_special_tokens=True).split())
    assert not {"extra", "MASK"} & said
    assert "[USER]" in said  # of the text, which no role of the model makes special
    assert all(getattr(tokenizer, role) == token for role, token in special.roles.items())
    assert len(tokenizer) <= 500
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert tokenizer.pad_token_id is not None


def test_special_tokens_stand_where_the_model_expects_them() -> None:
    shown = {
        "wordpiece": ["[CLS]", "fox", "[SEP]", "dog", "[SEP]"],
        "unigram": ["fox", "</s>", "dog", "</s>"],
        "characters": ["f", "o", "x", "d", "o", "g"],
    }
    for kind, tokens in shown.items():
        tokenizer = trained(kind)
        found = tokenizer.convert_ids_to_tokens(tokenizer("fox", "dog").input_ids)
        if kind == "unigram":
            found = "".join(found).replace("</s>", " </s> ").split()
        assert found == tokens, kind


def test_wordpiece_parts_chinese_into_characters() -> None:
    tokenizer = train(["味道很好，下次还来", "Ünïcode RUNNING"], TokenizerConfig(size=100))
    assert tokenizer.tokenize("很好 running") == ["很", "好", "running"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("很", "好").input_ids) == ["[CLS]", "很", "[SEP]", "好", "[SEP]"]


CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "small letters without accents": ({}, "É", ["e"]),
    "letters as they are": ({"lowercase": False}, "É", ["É"]),
    "small letters of another kind": ({"kind": "characters", "lowercase": True}, "ÉA", ["é", "a"]),
    "a normal form": ({"kind": "characters", "normalize": "NFKC"}, "①é", ["1", "é"]),
    "none": ({"kind": "characters"}, "①", ["①"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_texts_are_normalised_as_asked(name: str) -> None:
    keys, text, tokens = CASES[name]
    texts = ["É é a ① A 1"]
    assert train(texts, TokenizerConfig(**({"size": 40} | keys)), SPECIAL["wordpiece"]).tokenize(text) == tokens


@pytest.mark.parametrize("kind", KINDS)
def test_more_characters_than_entries(kind: str) -> None:
    """Those that are seen most are taken, and the size holds."""
    texts = ["".join(map(chr, range(0x4E00, 0x4E00 + 3000))), "好好好 aaaa bbbb"]
    tokenizer = train(texts, TokenizerConfig(kind=kind, size=400), SPECIAL[kind])
    assert len(tokenizer) <= 400
    rare, often = chr(0x4E00 + 2999), "好"
    if kind in ("wordpiece", "characters"):
        assert tokenizer.tokenize(often) == [often]
        assert tokenizer.tokenize(rare) == [tokenizer.unk_token]
    else:
        assert tokenizer.decode(tokenizer(rare, add_special_tokens=False).input_ids) == rare


def test_what_is_seen_too_seldom_is_no_entry() -> None:
    texts = ["aaaab", "cdcdcd"]
    assert "b" in train(texts, TokenizerConfig(kind="characters"), GPT).get_vocab()
    assert "b" not in train(texts, TokenizerConfig(kind="characters", min_count=2), GPT).get_vocab()
    assert "cd" in train(texts, TokenizerConfig(kind="bpe", min_count=3), GPT).get_vocab()
    assert "cd" not in train(texts, TokenizerConfig(kind="bpe", min_count=4), GPT).get_vocab()


@pytest.mark.parametrize(("kind", "special", "least"), [("bpe", GPT, 257), ("unigram", T5, 359), ("characters", BERT, 6)])  # fmt: skip
def test_a_size_without_room_says_what_to_write(kind: str, special: Any, least: int) -> None:
    with pytest.raises(UserError, match=f"model.tokenizer.size .* have no room for .* Write at least {least}"):
        train(TEXTS, of(kind, least - 1), special)  # fmt: skip
    assert len(train(TEXTS, of(kind, least), special)) <= least  # fmt: skip


def of(kind: str, size: int) -> TokenizerConfig:
    return TokenizerConfig.model_validate({"kind": kind, "size": max(size, 16)}).model_copy(update={"size": size})


def test_a_line_without_spaces_is_no_unknown_word() -> None:
    """As Thai and Japanese are written; BERT's own limit is 100 characters."""
    line = "ありがとうございます" * 30
    tokenizer = train([line], TokenizerConfig(size=100, lowercase=False), BERT)
    ids = tokenizer(line, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == line


def test_what_spells_a_token_of_the_model_is_text() -> None:
    tokenizer = train(["go on </s> or <extra_id_0> not"] * 3, TokenizerConfig(kind="unigram", size=400), T5)
    text = "go </s> on<extra_id_0><pad>"
    ids = tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert not {*ids} & {*tokenizer.all_special_ids}
    assert tokenizer.decode(ids) == text
    assert tokenizer(text)["input_ids"].count(tokenizer.eos_token_id) == 2  # as others read it, and at the end
