"""What is read, hidden and said of raw text, token by token."""

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers
from datasets import Dataset
from tokenizers.processors import TemplateProcessing

from llmft.data import corpus
from llmft.models.build import build
from llmft.models.generate import set_generation
from llmft.models.tokenizers import train
from llmft.schema.inference import GenerationConfig
from llmft.schema.model import BERT, GPT, T5, ModelConfig, TokenizerConfig
from llmft.schema.problem import UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.language_models import config as sections
from llmft.tasks.language_models.causal_lm import CausalLm
from llmft.tasks.language_models.language_model import LanguageState
from llmft.tasks.language_models.masked_lm import UNSPACED, MaskedLm, MaskedState
from llmft.tasks.language_models.span_corruption import SpanCorruption, SpanState
from llmft.training.evaluation import Split, evaluate, float32, loss_of
from llmft.training.features import encode

TEXTS = ["the red house stands by the river", "没有人知道", "naïve café 🙂 [MASK] <|endoftext|>"]
CHARACTERS = train(TEXTS, TokenizerConfig(kind="characters"), GPT)
WORDPIECE = train(TEXTS * 3, TokenizerConfig(size=120))
UNIGRAM = train(TEXTS, TokenizerConfig(kind="unigram", size=400), T5)
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def tiny(task: Any, architecture: str) -> Any:
    transformers.set_seed(0)
    return build(ModelConfig(architecture=architecture, config=TINY), task.head, task.model_kwargs(), "task.block")


@pytest.mark.parametrize("block", [8, 9, 64])
def test_a_document_is_said_token_by_token_from_its_start_to_its_end(block: int) -> None:
    """Also one that comes in parts."""
    task = CausalLm(sections.CausalLm(block=block)).with_state(LanguageState(CHARACTERS, block))
    features = task.encode({"text": [TEXTS[0], TEXTS[1], TEXTS[2]], "document": ["a", "b", "b"]})
    said: dict[int, list[int]] = {0: [], 1: [], 2: []}
    read: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for row, labels, tokens in zip(features["row"], features["labels"], features["input_ids"], strict=True):
        assert len(labels) == len(tokens) <= block
        said[row] += labels
        read[row] += tokens
    first, second, third = (CHARACTERS.convert_tokens_to_ids(list(text)) for text in TEXTS)
    assert said == {0: [*first, task.state.end], 1: second, 2: [*third, task.state.end]}
    assert read == {0: [task.state.end, *first], 1: [task.state.end, *second[:-1]], 2: [second[-1], *third]}


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "llama"])
def test_a_causal_model_does_not_see_what_it_is_to_say(architecture: str) -> None:
    """BERT looks both ways unless it is told."""
    task = CausalLm(sections.CausalLm(block=8)).with_state(LanguageState(CHARACTERS, 8))
    model = tiny(task, architecture).eval()
    one, other = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[3, 4, 5, 9]])
    assert torch.equal(model(input_ids=one).logits[0, :3], model(input_ids=other).logits[0, :3])


def test_scores_by_hand() -> None:
    """A model that finds all tokens alike: ln V nats each; bits per byte count UTF-8, not characters."""
    task = CausalLm(sections.CausalLm(block=8)).with_state(LanguageState(CHARACTERS, 8))
    model = tiny(task, "gpt2").eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    features = task.encode({"text": TEXTS})
    examples = [{key: features[key][i] for key in ("input_ids", "labels")} for i in range(len(features["row"]))]
    outputs, loss = predict(task, model, examples)
    answers = task.decode(list(outputs), features["row"])
    nats = math.log(len(CHARACTERS))
    assert [answer["tokens"] for answer in answers] == [len(text) + 1 for text in TEXTS]
    assert [answer["answer"] for answer in answers] == pytest.approx([nats] * 3, rel=1e-6)
    assert loss == pytest.approx(nats, rel=1e-6)
    found = task.score(answers, Dataset.from_dict({"text": TEXTS}))
    tokens, size = sum(map(len, TEXTS)) + 3, sum(len(text.encode()) for text in TEXTS)
    assert found["tokens"] == tokens
    assert found["perplexity"] == pytest.approx(len(CHARACTERS), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(tokens * nats / math.log(2) / size, rel=1e-6)


def test_a_text_goes_on_beyond_the_positions_of_the_model() -> None:
    task = CausalLm(sections.CausalLm(block=8)).with_state(LanguageState(CHARACTERS, 8)).for_inference()
    model = tiny(task, "gpt2").eval()
    model.config.max_position_embeddings = 8
    set_generation(model, GenerationConfig(max_new_tokens=30))
    model.generation_config.eos_token_id = None
    for text in ("t", "the red house", ""):
        features = task.encode({"text": [text]})
        (output,), loss = predict(task, model, [{"input_ids": features["input_ids"][0]}])
        assert (len(output), loss) == (30, None)
        assert len(features["input_ids"][0]) == min(max(len(text), 1), 8)
        together, _ = predict(task, model, [{"input_ids": tokens} for tokens in ([5] * 8, *features["input_ids"])])
        assert together[1] == output, "whatever stands beside it"


def test_what_looks_like_a_special_token_is_text() -> None:
    for tokenizer in (CHARACTERS, WORDPIECE):
        task = CausalLm(sections.CausalLm())
        tokens = task.with_state(LanguageState(tokenizer, 8)).tokens(["[MASK] <|endoftext|>"])[0]
        assert not {*tokens} & {tokenizer.mask_token_id, tokenizer.eos_token_id}


def predict(task: Any, model: Any, examples: list[Any]) -> tuple[Any, float | None]:
    with float32(model):
        return task.objective.predict(model, task.objective.collate(examples))


def hidden(share: float, whole_word: bool = False, count: int = 200) -> tuple[numpy.ndarray, numpy.ndarray, list[Any]]:
    task = MaskedLm(sections.MaskedLm(block=64, mask_share=share, whole_word=whole_word))
    task = task.with_state(MaskedState(WORDPIECE, 64))
    text = numpy.asarray(task.tokens(["redhouse standsby theriver 没有人知道 " * 2])[0])
    return text, task.state.inside, [task.example(text, (0, 0, number), None) for number in range(count)]


def test_hidden_tokens_are_as_many_as_asked_for_and_changed_as_bert_does() -> None:
    text, _, examples = hidden(0.3)
    kinds = {"mask": 0, "same": 0, "other": 0}
    for example in examples:
        framed = numpy.array([WORDPIECE.cls_token_id, *text, WORDPIECE.sep_token_id])
        found = numpy.flatnonzero(example["labels"] != IGNORED)
        assert len(found) == round(0.3 * len(text))
        assert 0 not in found and len(framed) - 1 not in found
        assert (example["labels"][found] == framed[found]).all()
        untouched = numpy.setdiff1d(numpy.arange(len(framed)), found)
        assert (example["input_ids"][untouched] == framed[untouched]).all()
        for token, right in zip(example["input_ids"][found], framed[found], strict=True):
            kinds["mask" if token == WORDPIECE.mask_token_id else "same" if token == right else "other"] += 1
    whole = sum(kinds.values())
    # Another token is the same by chance once in 100.
    assert [kinds[kind] / whole for kind in ("mask", "same", "other")] == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_whole_words_are_hidden_wholly() -> None:
    text, inside, examples = hidden(0.2, whole_word=True)
    assert inside[text].any()
    words = numpy.cumsum(~inside[text])
    for example in examples:
        found = numpy.flatnonzero(example["labels"] != IGNORED) - 1
        assert {*numpy.flatnonzero(numpy.isin(words, words[found]))} == {*found}
        assert len(found) >= round(0.2 * (text != WORDPIECE.unk_token_id).sum())


@pytest.mark.parametrize(("rare", "chance"), [(0, 1 / 5), (0.5, 4 / 8), (1, 16 / 20)])
def test_rare_tokens_are_hidden_more_often(rare: float, chance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of five tokens is drawn; the last is 16 times as rare in the corpus as the others."""
    monkeypatch.setattr("llmft.tasks.language_models.language_model.PART", 7)
    text, count = numpy.array([20, 21, 22, 23, 24]), 2000
    corpus = numpy.repeat(text, [16, 16, 16, 16, 1]).astype(numpy.uint16)
    task = MaskedLm(sections.MaskedLm(block=8, mask_share=0.2, mask_rare=rare))
    task = task.with_state(MaskedState(WORDPIECE, 8))
    trained = task.for_training(corpus)
    assert trained.for_training(corpus) is trained, "a file is counted once"
    labels = [trained.example(text, (0, 0, number), None)["labels"] for number in range(count)]
    assert sum(found[5] != IGNORED for found in labels) / count == pytest.approx(chance, abs=0.04)
    assert all((found != IGNORED).sum() == 1 for found in labels)
    rows = {"text": ["redhouse standsby theriver " * 5]}
    alike = MaskedLm(sections.MaskedLm(block=8, mask_share=0.2)).with_state(task.state)
    assert task.encode(rows) == alike.encode(rows), "scores don't depend on it"


def test_a_word_is_as_rare_as_its_rarest_piece() -> None:
    task = MaskedLm(sections.MaskedLm(block=64, mask_share=0.01, mask_rare=1, whole_word=True))
    task = task.with_state(MaskedState(WORDPIECE, 64, rarity=numpy.ones(len(WORDPIECE))))
    text = numpy.asarray(task.tokens(["redhouse standsby"])[0])
    inside = task.state.inside[text]
    words, rare = numpy.cumsum(~inside), numpy.flatnonzero(inside)[-1]
    task.state.rarity[text[rare]] = 1e9  # type: ignore[index]
    for number in range(20):
        found = numpy.flatnonzero(task.example(text, (0, 0, number), None)["labels"] != IGNORED) - 1
        assert {*found} == {*numpy.flatnonzero(words == words[rare])}


def test_half_of_the_second_halves_come_from_elsewhere() -> None:
    task = MaskedLm(sections.MaskedLm(block=23, next_sentence=True, mask_share=0.01))
    task = task.with_state(MaskedState(WORDPIECE, 23))
    end = task.state.end
    here, there = numpy.array([10, 11, end, *range(20, 30), end, 12]), numpy.array([end, *range(40, 60)])
    labels = []
    for number in range(300):
        example = task.example(here, (0, 0, number), there)
        tokens = numpy.where(example["labels"] == IGNORED, example["input_ids"], example["labels"])
        first, second = tokens[example["token_type_ids"] == 0], tokens[example["token_type_ids"] == 1]
        assert (first[0], first[-1], second[-1]) == (WORDPIECE.cls_token_id, end, end)
        assert set(first[1:-1]) <= set(range(20, 30)), "the longest run of one document"
        follows = list(second[:-1]) == list(range(20 + len(first) - 2, 30))
        if len(second) > 1:
            assert example["next_sentence_label"] == int(not follows)
        labels.append(example["next_sentence_label"])
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("block", "density", "length"), [(16, 0.15, 3), (64, 0.15, 3), (64, 0.5, 1), (9, 0.9, 20)])
def test_runs_are_cut_out_and_can_be_put_back(block: int, density: float, length: float) -> None:
    task = SpanCorruption(sections.SpanCorruption(block=block, density=density, mean_length=length))
    task = task.with_state(SpanState(UNIGRAM, block))
    stride = task.stride()
    tokens = numpy.arange(200, 200 + stride)
    for number in range(50):
        example = task.example(tokens, (0, 0, number), None)
        read, said = example["input_ids"].tolist(), example["labels"].tolist()
        assert block - 1 <= len(read) <= block
        assert (read.pop(), said.pop()) == (task.state.end, task.state.end)
        marks = [token for token in read if token in task.state.sentinels]
        assert marks == task.state.sentinels[: len(marks)].tolist() == [token for token in said if token in marks]
        assert sum(token not in marks for token in said) == max(1, min(round(stride * density), stride - 1))
        for mark, after in zip(marks, [*marks[1:], None], strict=True):
            run = said[said.index(mark) + 1 : None if after is None else said.index(after)]
            place = read.index(mark)
            assert run
            read[place : place + 1] = run
        assert read == tokens.tolist()


def test_gaps_are_filled_with_what_the_decoder_wrote() -> None:
    task = SpanCorruption(sections.SpanCorruption())
    task = task.with_state(SpanState(UNIGRAM, 32)).for_inference()
    prompt = numpy.array(task.prompt("the <extra_id_0> house <extra_id_1> river"))
    written = numpy.array(task.prompt("<extra_id_0> red <extra_id_1> by the"))
    assert task.to_answer((prompt, written)) == {"answer": "the red house by the river"}
    assert task.why_unanswerable("the house") == "has no <extra_id_0>, where words are to be found"


def test_a_hidden_word_gets_its_likeliest_fillings() -> None:
    task = MaskedLm(sections.MaskedLm()).with_state(MaskedState(WORDPIECE, 32)).for_inference()
    model = tiny(task, "bert").eval()
    tokens = task.prompt("the [MASK] house")
    (output,), _ = predict(task, model, [{"input_ids": tokens}])
    answer = task.to_answer(output)
    (scores,) = answer["scores"]
    best = model(input_ids=torch.tensor([tokens])).logits[0, tokens.index(WORDPIECE.mask_token_id)].softmax(-1)
    assert list(scores.values()) == pytest.approx(best.topk(5).values.tolist(), abs=1e-6)
    assert task.why_unanswerable("the house") == "has no [MASK], where a word is to be found"
    assert "has 43 tokens, and the model reads 32" in task.why_unanswerable("[MASK] " + "by " * 40)


@pytest.mark.parametrize(
    ("task", "architecture"),
    [
        (CausalLm(sections.CausalLm()), "t5"),
        (MaskedLm(sections.MaskedLm()), "gpt2"),
        (SpanCorruption(sections.SpanCorruption()), "bert"),
    ],
)
def test_an_architecture_without_the_head_is_refused(task: Any, architecture: str) -> None:
    tokenizer = {"AutoModelForSeq2SeqLM": UNIGRAM, "AutoModelForMaskedLM": WORDPIECE}.get(task.head, CHARACTERS)
    with pytest.raises(
        UserError, match=f"must be an architecture with {task.head} in transformers, got {architecture}"
    ):
        tiny(task.with_state(task.state_class(tokenizer, 16)), architecture)


def test_whole_words_want_wordpiece() -> None:
    rows = Dataset.from_dict({"text": TEXTS})
    model = ModelConfig(architecture="bert", tokenizer={"kind": "characters"})
    with pytest.raises(UserError, match="words are known by the pieces of WordPiece"):
        MaskedLm(sections.MaskedLm(whole_word=True)).fit(rows, model)


@pytest.mark.parametrize("next_sentence", [False, True])
def test_a_block_of_unknown_characters_alone_costs_nothing(next_sentence: bool) -> None:
    """All of its tokens are [UNK], of which none is to be found: there is no mean to take."""
    task = MaskedLm(sections.MaskedLm(block=16, next_sentence=next_sentence)).with_state(MaskedState(WORDPIECE, 16))
    tokens = numpy.array(WORDPIECE("ʘ ʘ ʘ ʘ", add_special_tokens=False)["input_ids"])
    assert set(tokens) == {WORDPIECE.unk_token_id}
    batch = task.objective.collate([task.example(tokens, 1, None)])
    assert task.objective.loss_weight(batch) == 0
    loss = task.objective.loss(tiny(task, "bert"), batch)
    loss.backward()
    assert math.isfinite(loss.item()) and (loss.item() > 0) == next_sentence


@pytest.mark.parametrize("next_sentence", [False, True])
def test_without_a_token_to_find_there_is_no_perplexity(next_sentence: bool) -> None:
    """A perplexity of 1 and an accuracy of 0 would be claims about tokens that do not exist."""
    task = MaskedLm(sections.MaskedLm(block=16, next_sentence=next_sentence)).with_state(MaskedState(WORDPIECE, 16))
    model = tiny(task, "bert")
    unknown, mixed = (Dataset.from_dict({"text": texts}) for texts in (["ʘ ʘ", "ʘ"], ["ʘ ʘ", "the red"]))
    for rows in (unknown, mixed):
        features = encode(task, rows)
        metrics, prediction = evaluate(task, model, Split(rows, features), 2)
        named = {"loss", "perplexity", "accuracy"}
        assert named & metrics.keys() == (set() if rows is unknown else named)
        assert loss_of(task, model, Split(rows, features), 2).keys() == metrics.keys() & {"loss", "perplexity"}
        assert ("next_sentence_accuracy" in metrics) == next_sentence
        assert (metrics["tokens"] > 0) == (rows is mixed) == (prediction.answers[1]["answer"] is not None)
    (note,) = task.notes_on(unknown, "test")
    assert note == "test: holds only special tokens such as [UNK]: no token can be hidden, and there is no perplexity"
    assert task.notes_on(mixed, "test") == task.for_inference().notes_on(unknown, "the input") == []


def test_a_tokenizer_learns_from_a_part_of_a_large_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Dataset.from_dict({"text": ["abc", "xyz"] * 20})
    monkeypatch.setattr(corpus, "LEARNT", 60)
    fitted = CausalLm(sections.CausalLm(block=8)).fit(rows, ModelConfig(tokenizer=TokenizerConfig(kind="characters")))
    tokenizer = fitted.state.tokenizer
    assert set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) == set("abc")


def test_a_tokenizer_of_another_language_is_refused(tmp_path: Path) -> None:
    train(["the red house"], TokenizerConfig(), BERT).save_pretrained(tmp_path)
    rows = Dataset.from_dict({"text": ["没有人知道它在哪里" * 400]})
    with pytest.raises(UserError, match="100% of the words of train are unknown to it"):
        MaskedLm(sections.MaskedLm()).fit(rows, ModelConfig(tokenizer=TokenizerConfig(path=str(tmp_path))))


@pytest.mark.parametrize("tested", [CausalLm(sections.CausalLm(block=8)), MaskedLm(sections.MaskedLm(block=8))])
def test_a_model_that_goes_on_keeps_its_limit(tested: Any, tmp_path: Path) -> None:
    special = GPT if tested.special is GPT else BERT
    tokenizer = train(["the red house"] * 9, TokenizerConfig(), special)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path)
    rows = Dataset.from_dict({"text": ["the red house"]})
    fitted = tested.fit(rows, ModelConfig(path=str(tmp_path)))
    assert (fitted.state.tokenizer.model_max_length, fitted.state.block) == (64, 8)
    assert "trained_positions" not in fitted.model_kwargs()
    fitted.save(tmp_path / "run")
    again = tested.load(tmp_path / "run").state
    assert (again.tokenizer.model_max_length, again.block) == (64, 8)
    new = tested.fit(rows, ModelConfig(tokenizer=TokenizerConfig(path=str(tmp_path)), init="random"))
    assert (new.state.tokenizer.model_max_length, new.model_kwargs()["trained_positions"]) == (8, 8)


def test_a_prompt_begins_as_the_tokenizer_begins_a_text(tmp_path: Path) -> None:
    task, tokenizer = CausalLm(sections.CausalLm(block=8)), train(["the red house"] * 9, TokenizerConfig(), GPT)
    plain = task.with_state(LanguageState(tokenizer, 8)).prompt("the")
    tokenizer.add_tokens(["<s>"], special_tokens=True)
    tokenizer.bos_token = "<s>"
    first = tokenizer.bos_token_id
    assert task.with_state(LanguageState(tokenizer, 8)).prompt("the") == plain == tokenizer("the")["input_ids"]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    task = task.with_state(LanguageState(tokenizer, 8))
    assert task.prompt("the") == [first, *plain] == tokenizer("the")["input_ids"]
    assert first not in task.prompt("the red house" * 9)


def test_chinese_is_filled_in_without_spaces_between_its_letters() -> None:
    assert UNSPACED.sub("", "今 天 gpt 天 气 很 好 。 ok , カ ナ é e") == "今天 gpt 天气很好。 ok , カナ é e"
