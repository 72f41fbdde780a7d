"""Questions that are answered from a corpus: what is read for a row, which passage wins, the scores, and the way
through finetune, eval, predict, serve, and export."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy
import pytest

from llmft import api
from llmft.data.passages import Passages
from llmft.tasks.retrieval.embedding_search import EmbeddingSearch
from llmft.tasks.text.question_answering import QuestionAnswering, best_weight
from tests.serving.test_same_answers import run_of, served
from tests.tasks.test_every_task import alike, prepared
from tests.tasks.test_question_answering import lines, squad

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
TEXTS = ["lumo tavo mirk", "vita renn dross", "osk dume blag", "lumo lumo pell"]


@pytest.fixture
def task() -> QuestionAnswering:
    """With a corpus of four passages, of which two are read."""
    found = prepared("question_answering")[1].with_corpus(Passages(list("abcd"), TEXTS, ["", "T", "", ""]))
    found.options = found.options.model_copy(update={"top_k": 2})
    return found


def asides(task: QuestionAnswering, **rows: list[Any]) -> list[tuple[int, int, int, int]]:
    """Of each window that is read its row, number, place in the corpus, and rank of the right passage."""
    features = task.encode(rows)
    found = zip(features["row"], features["aside"], strict=True)
    return [(row, aside["number"], aside["place"], aside["rank"]) for row, aside in found]


def test_a_question_alone_is_read_in_the_best_passages(task: QuestionAnswering) -> None:
    assert asides(task, question=["lumo", "dume"]) == [(0, 0, 3, -1), (0, 1, 0, -1), (1, 0, 2, -1), (1, 1, 0, -1)]


def test_a_row_with_a_context_is_read_there_alone(task: QuestionAnswering) -> None:
    found = asides(task, question=["lumo", "lumo"], context=["osk osk", ""])
    assert found == [(0, 0, -1, -1), (1, 0, 3, -1), (1, 1, 0, -1)]


def test_a_row_with_its_answer_is_read_in_both_and_its_passage_has_a_rank(task: QuestionAnswering) -> None:
    context, answers = [f" {TEXTS[0]} ", "lumo elsewhere"], ['["mirk"]', '["elsewhere"]']
    found = asides(task, question=["lumo", "lumo"], context=context, answers=answers)
    assert found == [(0, 0, -1, -1), (0, 1, 3, 2), (0, 2, 0, 2), (1, 0, -1, -1), (1, 1, 3, 0), (1, 2, 0, 0)]
    # Without a context, the right passage is the first that holds an answer. Four were found, of which two are read.
    found = asides(task, question=["lumo", "lumo"], answers=['["dross", "blag"]', '["nothing"]'])
    assert [rank for *_, rank in found] == [3, 3, 0, 0]


def outputs(task: QuestionAnswering, strengths: dict[int, tuple[int, float]], **rows: list[Any]) -> tuple[list[Any], list[int]]:  # fmt: skip
    """What a model says that gives the nth token of the text at each place so much weight, and 0 to all else."""
    features = task.encode(rows)
    found = []
    for tokens, aside in zip(features["input_ids"], features["aside"], strict=True):
        logits = numpy.zeros((2, len(tokens)), numpy.float32)
        token, strength = strengths.get(aside["place"], (0, 0.0))
        logits[:, aside["first"] + token] = strength
        found.append((logits, aside))
    return found, features["row"]


def weighted(task: QuestionAnswering, weight: float) -> QuestionAnswering:
    return task.with_state(replace(task.state, search_weight=weight))


def test_the_answer_is_that_of_the_best_passage_by_both_scores(task: QuestionAnswering) -> None:
    found, rows = outputs(task, {3: (0, 2.0), 0: (0, 3.0)}, question=["lumo"])
    answers = {weight: weighted(task, weight).decode(found, rows)[0] for weight in (0.0, 1000.0)}
    assert answers[0.0]["passage"] == {"id": "a", "title": "", "text": TEXTS[0]}
    assert answers[1000.0]["passage"] == {"id": "d", "title": "", "text": TEXTS[3]}
    for answer in answers.values():
        text = answer["passage"]["text"]
        assert answer["answer"] == text[answer["start"] : answer["end"]]
        assert answer.keys() == {"answer", "start", "end", "score", "passage"}


def test_scores_tell_what_the_search_costs(task: QuestionAnswering) -> None:
    rows = {"question": ["lumo", "lumo"], "context": [TEXTS[0], "lumo elsewhere"], "answers": ['["lumo"]', '["elsewhere"]']}  # fmt: skip
    found, owners = outputs(task, {-1: (0, 9.0), 3: (0, 9.0), 0: (1, 5.0)}, **rows)
    answers = task.decode(found, owners)
    assert [(answer["given"], answer["rank"]) for answer in answers] == [("lumo", 2), ("lumo", 0)]
    scores = task.score(answers, datasets.Dataset.from_dict({"id": ["1", "2"], **rows}))
    assert (scores["recall@1"], scores["recall@5"], scores["recall@20"], scores["in_corpus"]) == (0, 0.5, 0.5, 0.5)
    assert {"exact_match", "f1", "given_exact_match", "given_f1"} <= scores.keys()


@pytest.mark.parametrize(
    ("rows", "weight"),
    [
        ([[(1.0, 0.0, 0.0), (0.0, 1.0, 1.0)]], 2.0),  # at 1 both weigh the same, and the first one is taken
        ([[(1.0, 0.0, 1.0), (0.0, 1.0, 0.0)]], 0.0),
        ([[(1.0, 0.0, 1.0), (0.0, 1.0, 0.0)], [(5.0, 0.0, 0.0), (0.0, 1.0, 1.0)], [(5.0, 0.0, 0.0), (0.0, 1.0, 1.0)]], 6.0),
        ([[], []], 0.0),
    ],
)  # fmt: skip
def test_the_weight_of_the_search_has_the_best_f1(rows: list[list[tuple[float, float, float]]], weight: float) -> None:
    assert best_weight(rows) == weight


def test_what_is_learned_and_the_corpus_come_back(task: QuestionAnswering, tmp_path: Path) -> None:
    weighted(task, 4.0).save(tmp_path)
    loaded = QuestionAnswering(task.options).load(tmp_path)
    assert loaded.state.search_weight == 4.0
    assert loaded.state.search.passages.texts == TEXTS
    assert loaded.encode({"question": ["lumo"]}) == task.encode({"question": ["lumo"]})
    assert "passages" not in json.loads((tmp_path / "task.json").read_text())


def test_an_answer_must_be_a_text(task: QuestionAnswering) -> None:
    rows = datasets.Dataset.from_dict({"id": ["a.csv:2"], "question": ["who"], "answers": ["[1]"]})
    assert "an answer must be a text with letters, got 1" in task.check(rows, "test")[0].what


def test_from_finetune_to_export(llmft: Run, write: Write, here: Path) -> None:
    rows = [(f"who is {name}", f"{name} lives in {place} .", place) for name, place in (("anna", "osk"), ("bert", "dume"), ("cleo", "北京"))]  # fmt: skip
    write("rows.json", squad(rows))
    write("more.jsonl", '{"id": "m", "text": "dora lives in Łódź ."}\n')
    code, out, err = llmft("finetune", "+recipe=bert_qa", "smoke=true", "dataset=squad", "dataset.train=rows.json", "dataset.split={validation: 0.3, test: 0.3}", "dataset.corpus=[rows.json, more.jsonl]", "trainer.max_steps=1", "run.dir=run")  # fmt: skip
    assert code == 0, err
    assert "corpus: 4 passages" in out
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["test"]["in_corpus"] == metrics["test"]["recall@20"] == 1.0
    assert json.loads((here / "run/manifest.json").read_text())["data"].keys() >= {"rows.json", "more.jsonl"}
    (here / "more.jsonl").unlink()  # the run has the passages
    code, out, err = llmft("predict", "run", "predict.text=where is dora", "task.top_k=1")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["passage"] == {"id": "m", "title": "", "text": "dora lives in Łódź ."}
    assert answer["passage"]["text"][answer["start"] : answer["end"]] == answer["answer"]
    write("new.csv", "text\nemil lives in Kuopio .\n")
    code, out, err = llmft("predict", "run", "predict.text=where is emil", "dataset.corpus=new.csv", "predict.explain=true")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["passage"]["id"] == "new.csv:2"
    assert {part["role"] for part in json.loads(out)["explanation"]["parts"]} == {"question", "context"}
    write("open.csv", "question,answers\nwho is bert,dume\n")
    code, out, err = llmft("eval", "run", "dataset=csv", "dataset.test=open.csv", "run.dir=open")
    assert code == 0, err
    assert json.loads((here / "open/metrics.json").read_text())["test"]["recall@1"] == 1.0
    assert lines(here / "open/predictions/test.jsonl")[0]["input"] == "who is bert"
    code, out, err = llmft("export", "run", "run.dir=exported", "dataset=squad", "dataset.test=rows.json")
    assert code == 0, err
    code, out, err = llmft("predict", "exported", "predict.text=where is dora", "task.top_k=1")
    assert json.loads(out)["passage"]["id"] == "m", err


def test_served_answers_are_those_of_predict(llmft: Run, tmp_path: Path) -> None:
    run = run_of("question_answering", tmp_path / "run")
    Passages(list("abcd"), TEXTS, [""] * 4).save(run / "model/passages.jsonl")
    rows = [{"question": "where is lumo"}, {"question": "who is dross", "context": "dross is"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = llmft("predict", str(run), f"predict.input={tmp_path / 'rows.jsonl'}")
    assert code == 0, err
    _, (answers,) = served(run, rows)
    for answer, line in zip(answers, out.splitlines(), strict=True):
        assert alike(answer, {key: value for key, value in json.loads(line).items() if key != "id"})
    assert "passage" in answers[0]
    assert "passage" not in answers[1]


def test_passages_are_found_by_an_embedding_run(llmft: Run, tmp_path: Path) -> None:
    vectors, run = run_of("embedding", tmp_path / "vectors"), run_of("question_answering", tmp_path / "run")
    Passages(list("abcd"), TEXTS, [""] * 4).save(run / "model/passages.jsonl")
    found = EmbeddingSearch.of_run(str(vectors), Passages.load(run / "model/passages.jsonl"))
    embedded = api.load(vectors).predict([{"text": "lumo"}, *({"text_pair": text} for text in TEXTS)])
    asked, *texts = (numpy.array(one["answer"]) / numpy.linalg.norm(one["answer"]) for one in embedded)
    cosines = numpy.stack(texts) @ asked
    places, scores = found.search(["lumo"], 3)
    assert places[0].tolist() == numpy.argsort(-cosines, kind="stable")[:3].tolist()
    assert scores[0] == pytest.approx(numpy.sort(cosines)[::-1][:3], abs=1e-5)
    # The run keeps its passages, and another retriever finds them.
    code, out, err = llmft("predict", str(run), "predict.text=lumo", f"task.retriever={vectors}", "task.top_k=1")
    assert code == 0, err
    assert json.loads(out)["passage"]["id"] == "abcd"[places[0, 0]]
    found.save(run / "model")
    code, again, err = llmft("predict", str(run), "predict.text=lumo", "task.top_k=1")
    assert code == 0, err
    assert json.loads(again)["passage"] == json.loads(out)["passage"]
    (vectors / "model/model.safetensors").rename(tmp_path / "gone")
    code, _, err = llmft("predict", str(run), "predict.text=lumo")
    assert "is gone; passages are found by it. Put it back, or write task.retriever=bm25." in " ".join(err.split())
    code, _, err = llmft("predict", str(run), "predict.text=lumo", f"task.retriever={run}")
    assert code == 2
    assert "must be a run that makes vectors, got one of question_answering" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("+recipe=bert_textcls", "dataset.corpus=a.csv"), "is only for tasks that find passages"),
        (("+recipe=bert_qa", "smoke=true", "dataset.corpus=none.csv"), "none.csv"),
        (("+recipe=bert_qa", "task.top_k=0"), "task.top_k"),
    ],
)
def test_what_is_refused(llmft: Run, words: tuple[str, ...], message: str) -> None:
    code, _, err = llmft("finetune", *words)
    assert code == 2
    assert message in err


def test_a_question_without_a_context_needs_a_corpus(llmft: Run, tmp_path: Path) -> None:
    run = run_of("question_answering", tmp_path / "run")
    code, _, err = llmft("predict", str(run), "predict.text=where is lumo")
    assert code == 2, err
    assert "dataset.corpus=FILES" in err
