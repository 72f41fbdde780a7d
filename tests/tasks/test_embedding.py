"""Embeddings: vectors and losses beside those of sentence-transformers, and what is scored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer, sentence_transformer
from sentence_transformers.sentence_transformer import losses as theirs
from torch.nn import functional

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.arrow import to_dataset
from llmft.data.passages import Passages
from llmft.data.source import Table
from llmft.models.build import build
from llmft.schema.problem import Failure, UserError
from llmft.tasks.retrieval.contrastive_losses import supervised_contrastive
from llmft.tasks.retrieval.embedding import Embedding
from llmft.tasks.retrieval.embedding_objective import wrong_answers
from llmft.tasks.retrieval.vectors import nearest
from llmft.tasks.task import Task
from llmft.training.evaluation import float32, predict, with_corpus_vectors
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]
QUERIES = ["where is the mill", "who built it", "how old is the bridge over the river", "what is it"]
PASSAGES = [
    "The mill stands by the river.",
    "Ann built it.",
    "It is old.",
    "A bridge leads over the river to the town.",
]
NEGATIVES = ["A mill is red.", "Bob sold it.", "The river is new and long, and so is the road.", "No."]


def made(*words: str, rows: dict[str, list[Any]] | None = None) -> tuple[Task[Any], torch.nn.Module]:
    """The fitted task of the tiny model, and the model without dropout."""
    config = compose("finetune", ["+recipe=embedding", "smoke=true", *words])
    task = tasks.build(config.task)
    given = rows or {"text": QUERIES, "text_pair": PASSAGES}
    ids = [str(row) for row in range(len(given["text"]))]
    task = task.fit(to_dataset(Table(given, ids)), config.model)
    transformers.set_seed(0)
    model = build(config.model, task.head, task.model_kwargs())
    return task, model.eval()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task[Any], torch.nn.Module, SentenceTransformer]:
    """The tiny model, and sentence-transformers with the folder that was saved of it."""
    task, model = made("task.prompts.query='ask: '", "task.prompts.passage='text: '")
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    task.save(folder)
    return task, model, SentenceTransformer(str(folder), device="cpu")


def vectors_of(task: Task[Any], model: torch.nn.Module, **columns: list[str]) -> numpy.ndarray:
    features = encode(task.for_inference(), Table(columns, ["row"] * len(next(iter(columns.values())))))
    with float32(model):
        found, loss = task.objective.predict(
            model, task.objective.collate(features.__getitems__(list(range(len(features)))))
        )
    assert loss is None
    return numpy.stack(found)


def test_sentence_transformers_gives_the_same_vectors(
    beside: tuple[Task[Any], torch.nn.Module, SentenceTransformer],
) -> None:
    task, model, other = beside
    assert other.max_seq_length == task.state.max_length
    for role, name, texts in (("text", "query", QUERIES), ("text_pair", "document", PASSAGES)):
        ours = vectors_of(task, model, **{role: texts})
        assert numpy.linalg.norm(ours, axis=1) == pytest.approx(1)
        assert ours == pytest.approx(other.encode(texts, prompt_name=name), abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max"])
def test_a_folder_of_sentence_transformers_is_read(
    pooling: str, here: Path, beside: tuple[Task[Any], torch.nn.Module, SentenceTransformer]
) -> None:
    other = beside[2]
    modules = [other[0], sentence_transformer.modules.Pooling(32, pooling)]
    SentenceTransformer(modules=modules, prompts={"query": "q: ", "document": "d: "}).save(str(here / "saved"))
    config = compose("finetune", ["+recipe=embedding", "model.path=saved", "model.sha256=null"])
    task = tasks.build(config.task)
    task = task.fit(to_dataset(Table({"text": QUERIES, "text_pair": PASSAGES}, list("abcd"))), config.model)
    assert (task.state.query, task.state.passage, task.state.normalize) == ("q: ", "d: ", False)
    model = build(config.model, task.head, task.model_kwargs()).eval()
    expected = SentenceTransformer(str(here / "saved"), device="cpu").encode(PASSAGES, prompt_name="document")
    assert vectors_of(task, model, text_pair=PASSAGES) == pytest.approx(expected, abs=1e-5)


LOSSES: dict[str, tuple[list[str], Callable[[Any], Any]]] = {
    "in_batch": ([], lambda model: theirs.MultipleNegativesRankingLoss(model)),
    "in_batch of a chunk": (
        ["task.chunk=3"],
        lambda model: theirs.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3),
    ),
    "in_batch with negatives": (["task.scale=7"], lambda model: theirs.MultipleNegativesRankingLoss(model, scale=7)),
    "in_batch both ways": (
        ["task.symmetric=true"],
        lambda model: theirs.MultipleNegativesRankingLoss(
            model, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        ),
    ),
    "in_batch matryoshka": (
        ["task.matryoshka=[8,32,16]"],
        lambda model: theirs.MatryoshkaLoss(model, theirs.MultipleNegativesRankingLoss(model), [32, 16, 8]),
    ),
    "triplet": (["task.loss=triplet"], lambda model: theirs.TripletLoss(model)),
    "cosine": (["task.loss=cosine"], lambda model: theirs.CosineSimilarityLoss(model)),
    "cosent": (["task.loss=cosent"], lambda model: theirs.CoSENTLoss(model)),
    "batch_hard": (["task.loss=batch_hard"], lambda model: theirs.BatchHardTripletLoss(model)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_that_of_sentence_transformers(
    name: str, beside: tuple[Task[Any], torch.nn.Module, SentenceTransformer]
) -> None:
    """Its value and its gradient, on one batch, without prompts."""
    words, make = LOSSES[name]
    known, model, other = beside
    columns: dict[str, list[Any]] = {"text": QUERIES, "text_pair": PASSAGES}
    if name.endswith("negatives") or name == "triplet":
        columns["negative"] = NEGATIVES
    scores = [0.0, 1.0, 0.25, 0.5]
    if name in ("cosine", "cosent"):
        columns["label"] = [0.0, 5.0, 1.25, 2.5]  # brought to 0 to 1
    if name == "batch_hard":
        columns = {"text": QUERIES, "label": ["a", "b", "a", "b"]}
        scores = [0, 1, 0, 1]
    task, _ = made(*words, rows=columns)
    task = task.with_state(replace(task.state, tokenizer=known.state.tokenizer))
    batch = task.objective.collate(encode(task, Table(columns, list("abcd"))).__getitems__([0, 1, 2, 3]))
    model.zero_grad()
    ours = task.objective.loss(model, batch)
    ours.backward()
    gradient = model.embeddings.word_embeddings.weight.grad.clone()
    texts = [column for key, column in columns.items() if key != "label"]
    loss = make(other)
    other.zero_grad()
    expected = loss([other.preprocess(column) for column in texts], torch.tensor(scores))
    expected.backward()
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(gradient, other[0].auto_model.embeddings.word_embeddings.weight.grad, atol=1e-5)


def test_supervised_contrastive_is_its_formula() -> None:
    vectors, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 0, 2])
    unit = functional.normalize(vectors, dim=1)
    found = []
    for row in (0, 2, 3):
        logs = {j: 10 * unit[row] @ unit[j] for j in range(5) if j != row}
        whole = torch.logsumexp(torch.stack(list(logs.values())), dim=0)
        found.append(-sum(logs[j] - whole for j in (0, 2, 3) if j != row) / 2)
    assert supervised_contrastive(vectors, labels, 10.0).item() == pytest.approx(sum(map(float, found)) / 3)
    assert supervised_contrastive(vectors, torch.arange(5), 10.0).item() == 0


def answers_of(task: Task[Any], model: torch.nn.Module, **columns: list[str]) -> list[dict[str, Any]]:
    task = task.for_inference()
    return predict(
        task, model, encode(task, Table(dict(columns), ["row"] * len(next(iter(columns.values()))))), 8
    ).answers


def test_a_query_is_answered_by_passages_of_a_corpus(
    beside: tuple[Task[Any], torch.nn.Module, SentenceTransformer], here: Path
) -> None:
    known, model, other = beside
    corpus = Passages(["a", "b", "c", "d"], PASSAGES, ["", "", "On age", ""])
    assert isinstance(known, Embedding)
    task = known.with_corpus(corpus)
    task = with_corpus_vectors(task, model, 8)
    assert with_corpus_vectors(task, model, 8) is task
    (answer,) = answers_of(task, model, text=QUERIES[:1])
    texts = other.encode(
        ["On age " + text if text == "It is old." else text for text in PASSAGES], prompt_name="document"
    )
    cosines = texts @ other.encode(QUERIES[:1], prompt_name="query")[0]
    order = numpy.argsort(-cosines)
    assert [found["id"] for found in answer["answer"]] == ["abcd"[place] for place in order]
    assert [found["score"] for found in answer["answer"]] == pytest.approx(cosines[order], abs=1e-5)

    # The corpus and its vectors lie in RUN/model, so that a service need not embed it.
    task.save(here)
    assert answers_of(tasks.build(task.options).load(here), model, text=QUERIES[:1]) == [answer]
    assert "answer" in answers_of(task, model, text_pair=PASSAGES[:1])[0]


def test_hard_negatives_and_why_others_are_none(
    beside: tuple[Task[Any], torch.nn.Module, SentenceTransformer],
) -> None:
    """By vectors that are given: a passage and its copy, one that is too near, and two that are far enough."""
    known = beside[0]
    assert isinstance(known, Embedding)
    passages = ["Ann built it.", "ann  built it.", "Ann made it.", "Bob sold it.", "BOB sold it.", "No."]
    task = known.with_corpus(Passages(list("abcdef"), passages, [""] * 6))
    task.options = task.options.model_copy(update={"negatives": 2, "negative_margin": 0.9})
    toward = [0.9, 0.9, 0.85, 0.5, 0.5, 0.1]
    vectors = [numpy.array([x, (1 - x * x) ** 0.5], dtype=numpy.float32) for x in toward]
    task = task.with_vectors([(vector, {}) for vector in vectors]).for_inference()
    outputs = [
        (numpy.array([1, 0], dtype=numpy.float32), {"role": "text", "text": "who built it"}),
        (vectors[0], {"role": "text_pair", "text": passages[0]}),
    ]
    (answer,) = task.decode(outputs, [0, 0])
    assert answer["answer"] == ["Bob sold it.", "No."]
    assert [(left["id"], left["why"]) for left in answer["left_out"]] == [
        ("a", "is the text_pair"),
        ("b", "is the text_pair"),
        ("c", "its cosine 0.8500 is above 0.9 of the text_pair's 0.9000"),
        ("e", "is the same text as another"),
    ]


def test_repeated_texts_are_no_wrong_answers() -> None:
    """Two rows of one question and two of one passage: by hand, with cosines 1 for equal texts."""
    task, model = made()
    rows = {"text": ["who is it", "who is it", "where"], "text_pair": ["It is Ann.", "Ann is it.", "It is Ann."]}
    batch = task.objective.collate(encode(task, Table(rows, list("abc"))).__getitems__([0, 1, 2]))
    first = torch.cumsum(batch["sizes"], 0) - batch["sizes"]
    wrong = wrong_answers(batch, first, torch.zeros(6, dtype=torch.bool))
    # Of the first row the second passage answers the same question, and the third is its own.
    assert wrong.tolist() == [[False, False, False], [False, False, True], [False, True, False]]
    assert task.objective.loss(model, batch).isfinite()


def test_retrieval_is_scored_once_for_a_query_over_all_passages() -> None:
    """Vectors by hand: a query of two rows finds its passages at ranks 1 and 3, another one its own at rank 2."""
    task, _ = made()
    angles = {"p": 0.0, "q": 0.5, "r": 0.2, "s": 1.2}

    def vector(angle: float) -> numpy.ndarray:
        return numpy.array([numpy.cos(angle), numpy.sin(angle)], dtype=numpy.float32)

    rows = [("one", -0.1, "p"), ("one", -0.1, "q"), ("two", 0.6, "r"), ("three", 1.2, "s")]
    outputs = [
        (numpy.stack([vector(angle), vector(angles[own])]), {"query": query, "passages": [own]})
        for query, angle, own in rows
    ]
    answers = task.decode(outputs, [0, 1, 2, 3])
    assert [(found["answer"], found["ranks"], found["relevant"]) for found in answers] == [
        ("p", [1, 3], 2),
        ("p", [1, 3], 2),
        ("q", [2], 1),
        ("s", [1], 1),
    ]
    metrics = task.score(answers, None)  # type: ignore[arg-type]
    best = 1 + 1 / numpy.log2(3)
    expected = [(1 + 1 / 2) / best, 1 / numpy.log2(3), 1.0]
    assert metrics["ndcg@10"] == pytest.approx(numpy.mean(expected))
    assert metrics["mrr@10"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert metrics["recall@1"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    parts = [task.row_score(found, None) for found in answers]
    assert sum(part.part for part in parts) / sum(part.whole for part in parts) == pytest.approx(metrics["ndcg@10"])


def test_nearest_passages_in_chunks_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = numpy.random.default_rng(0).standard_normal((200, 8)).astype(numpy.float32)
    vectors[150] = vectors[3]  # a tie: the first one
    whole = nearest(vectors[:70], vectors, 5)
    monkeypatch.setattr("llmft.tasks.retrieval.vectors.PASSAGES", 33)
    parts = nearest(vectors[:70], vectors, 5)
    assert (whole[0] == parts[0]).all()
    assert whole[0][3, :2].tolist() == [3, 150]
    assert nearest(vectors[:70], vectors, 5, alone=True)[0][3, 0] == 150
    vectors[0, 0] = numpy.nan
    with pytest.raises(Failure, match="NaN"):
        nearest(vectors, vectors, 1)


BAD = {
    "one number": (
        ["task.loss=cosent"],
        {"text": QUERIES, "text_pair": PASSAGES, "label": [3.0] * 4},
        "one number only",
    ),
    "no positive": (["task.loss=batch_hard"], {"text": QUERIES, "label": list("abcd")}, "two labels or more"),
    "one label": (["task.loss=batch_hard"], {"text": QUERIES, "label": ["a"] * 4}, "two labels or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_teach_nothing_are_refused(name: str) -> None:
    words, rows, what = BAD[name]
    with pytest.raises(UserError, match=what):
        made(*words, rows=rows)


def test_a_negative_that_is_right_is_refused() -> None:
    rows = {"text": QUERIES, "text_pair": PASSAGES, "negative": [["No.", PASSAGES[0]], ["No."], [], None]}
    task, _ = made(rows={"text": QUERIES, "text_pair": PASSAGES})
    problems = task.check(Table(rows, list("abcd")), "train")
    assert [(found.key, "among its negatives" in found.what) for found in problems] == [("a", True)]


def test_an_encoder_decoder_is_refused() -> None:
    task, model = made()
    batch = task.objective.collate(
        encode(task, Table({"text": QUERIES, "text_pair": PASSAGES}, list("abcd"))).__getitems__([0])
    )
    model.config.is_encoder_decoder = True
    with pytest.raises(UserError, match="which has both"):
        task.objective.loss(model, batch)


def test_one_row_a_batch_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2"):
        compose("finetune", ["+recipe=embedding", "trainer.batch_size=1"])
    assert compose("finetune", ["+recipe=embedding", "task.loss=triplet", "trainer.batch_size=1"])
