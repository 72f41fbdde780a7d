"""Windows of long contexts in any script, and the best part of them against a search by hand."""

import math
from typing import Any

import numpy
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llmft.models.tokenizers import train
from llmft.schema.model import TokenizerConfig
from llmft.tasks.text.contexts import Span, Window, best_of_windows, best_span, rows_of, windows
from llmft.tasks.tokenizer import Tokenizer

CONTEXTS = [
    "Ada met 李白 in 🎉 Rome, and left Zürich in 1865.",
    "二〇〇八年，北京举办了第二十九届夏季奥林匹克运动会。",
    "ロンドンは、イギリスの首都です。 한국의 수도는 서울이다.",
    "  नई दिल्ली भारत की राजधानी है ।\n\nกรุงเทพเป็นเมืองหลวง\t",
    "zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich " * 4,
    "Le cafe\u0301 de Zoe\u0308 ❤\ufe0f",
]
QUESTIONS = ["Where to?", "哪一年？", "どこ？", "क्या?", "wen jagen zwölf Boxkämpfer?", "où?"]


def word_pieces() -> Tokenizer:
    """As BERT has them: accents and control characters are gone, and spans must still be of the text."""
    return Tokenizer.of(train(CONTEXTS + QUESTIONS, TokenizerConfig(size=400)))


def bytes_of() -> Tokenizer:
    """As GPT-2 and RoBERTa have them: a character can be several tokens, and a space belongs to the next word."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*CONTEXTS, *QUESTIONS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=False)
    special = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return Tokenizer.of(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special))


TOKENIZERS = {"word pieces": word_pieces, "bytes": bytes_of}


def certain(window: Window, tokens: tuple[int, int]) -> numpy.ndarray:
    """The logits of a model that is sure of a first and a last token."""
    logits = numpy.zeros((2, len(window.inputs["input_ids"])), dtype=numpy.float32)
    logits[0, tokens[0]] = logits[1, tokens[1]] = 20
    return logits


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(("length", "stride"), [(32, 0), (32, 12), (512, 64)])
def test_an_answer_in_any_script_comes_back_as_it_was(kind: str, length: int, stride: int) -> None:
    found = list(windows(QUESTIONS, CONTEXTS, TOKENIZERS[kind](), length, stride))
    assert [window.row for window in found] == rows_of([window.aside(CONTEXTS[window.row]) for window in found])
    assert {window.row for window in found} == set(range(6))
    assert max(len(window.inputs["input_ids"]) for window in found) <= length
    for row, context in enumerate(CONTEXTS):
        own = [window for window in found if window.row == row]
        pieces = context.split()
        starts = [context.index(piece) for piece in pieces]
        for piece, start in zip(pieces, starts, strict=True):
            marked = [(window, window.tokens(start, start + len(piece))) for window in own]
            whole = [(w, tokens) for w, tokens in marked if tokens[0] != w.none]
            assert whole or length < 512, piece
            for window, tokens in whole:
                span = best_span(certain(window, tokens), window.aside(context), longest=512)
                assert (span.text, span.start) == (piece, start)
                assert span.score == pytest.approx(0, abs=1e-4)
                assert span.none < -30


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_windows_share_the_stride_and_leave_nothing_out(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    context = CONTEXTS[4]
    whole = tokenizer(context, add_special_tokens=False)["input_ids"]
    found = list(windows(["wer?"], [context], tokenizer, 32, 14))
    assert len(found) > 2
    parts = [w.inputs["input_ids"][w.first : w.first + w.offsets.shape[1]] for w in found]
    assert parts[0] + [token for part in parts[1:] for token in part[14:]] == whole
    assert [window.number for window in found] == list(range(len(found)))
    assert all(window.none == 0 and window.inputs["input_ids"][0] == tokenizer.cls_token_id for window in found)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("question", ["why " * 90, "x" * 90, "🎉 " * 90, "为什么" * 40])
def test_a_long_question_leaves_half_for_the_context(kind: str, question: str) -> None:
    (window, *_) = windows([question, "who?"], [CONTEXTS[4]] * 2, TOKENIZERS[kind](), 64, 31)
    assert window.cut
    assert window.offsets.shape[1] >= 32
    assert len(window.inputs["input_ids"]) <= 64
    assert not any(window.cut for window in windows(["who?"], [CONTEXTS[4]], TOKENIZERS[kind](), 64, 31))


def test_an_answer_that_a_window_parts_is_none_of_it() -> None:
    context = " ".join(f"word{i}" for i in range(60))
    found = list(windows(["which?"], [context], Tokenizer.of(train([context], TokenizerConfig(size=300))), 40, 4))
    start, end = context.index("word5"), context.index("word50") + 6
    assert all(window.tokens(start, end) == (window.none, window.none) for window in found)
    assert all(window.tokens(0, 5) == (window.none, window.none) for window in found[1:])


def by_hand(logits: numpy.ndarray, aside: dict[str, Any], longest: int) -> tuple[float, int, int]:
    """The best pair of tokens, by looking at each."""
    shares = [[math.exp(value) / sum(map(math.exp, row)) for value in row] for row in logits.tolist()]
    tokens = numpy.frombuffer(aside["offsets"], dtype=numpy.int32).reshape(2, -1).shape[1]
    places = range(aside["first"], aside["first"] + tokens)
    pairs = [(shares[0][i] * shares[1][j], i, j) for i in places for j in places if i <= j < i + longest]
    return max(pairs)


@pytest.mark.parametrize("longest", [1, 3, 200])
def test_the_best_part_is_that_of_a_search_by_hand(longest: int) -> None:
    rng = numpy.random.default_rng(0)
    for window in windows(QUESTIONS, CONTEXTS, word_pieces(), 48, 8):
        aside = window.aside(CONTEXTS[window.row])
        logits = rng.normal(0, 3, (2, len(window.inputs["input_ids"]))).astype(numpy.float32)
        score, i, j = by_hand(logits, aside, longest)
        span = best_span(logits, aside, longest)
        assert math.exp(span.score) == pytest.approx(score, rel=1e-5)
        start, end = window.offsets[0, i - window.first], window.offsets[1, j - window.first]
        assert (span.start, span.text) == (start, CONTEXTS[window.row][start:end])
        none = [row[0] - math.log(sum(map(math.exp, row))) for row in logits.tolist()]
        assert span.none == pytest.approx(sum(none), abs=1e-4)


def test_of_several_windows_the_surest_answers() -> None:
    spans = [Span(-3.0, "a", 0, -0.1), Span(-1.0, "b", 9, -2.0), Span(-2.0, "c", 20, -0.5)]
    assert best_of_windows(spans) == Span(-1.0, "b", 9, -2.0)


def test_a_context_without_a_token_has_no_part() -> None:
    (window,) = windows(["who?"], ["\u200b"], word_pieces(), 32, 4)
    span = best_span(numpy.zeros((2, len(window.inputs["input_ids"]))), window.aside("\u200b"), 5)
    assert (span.score, span.text, span.start) == (-math.inf, "", None)
    assert window.tokens(0, 1) == (window.none, window.none)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_special_tokens_in_a_text_are_letters(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    mark = tokenizer.sep_token
    for window in windows([f"who {mark}"], [f"Ada {mark} {tokenizer.cls_token} Rome"], tokenizer, 128, 8):
        ids, plain = (
            found.inputs["input_ids"] for found in (window, next(windows(["who"], ["Ada"], tokenizer, 128, 8)))
        )
        assert [ids.count(token) for token in tokenizer.all_special_ids if token != tokenizer.unk_token_id] == [
            plain.count(token) for token in tokenizer.all_special_ids if token != tokenizer.unk_token_id
        ]
