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
from llmft.data.source import Table
from llmft.models.build import build
from llmft.tasks.retrieval.contrastive_losses import supervised_contrastive
from llmft.tasks.task import Task
from llmft.training.evaluation import float32
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
