"""Vectors and scores over HTTP: what OpenAI's client reads, and the forms of rerankers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest

from llmft import api
from llmft.data.passages import Passages
from llmft.serving.app import create
from tests.serving.conftest import Client
from tests.serving.test_same_answers import run_of

TEXTS = ["talo renn", "vera osk dume", "kilo"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An application with an embedding and a reranker, and what `llmft predict` loads of both."""
    folder = tmp_path_factory.mktemp("vectors")
    runs = {name: run_of(name, folder / name) for name in ("embedding", "reranking", "text_classification")}
    app = create(
        str(runs["embedding"]), models={name: str(run) for name, run in runs.items()}, max_rows=4, max_text=100
    )
    app.state.models.load_all()
    yield app, {name: api.load(run) for name, run in runs.items() if name != "text_classification"}
    for each in app.state.models.loaded():
        each.batcher.close()


def post(served: tuple[Any, dict[str, Any]], path: str, **body: Any) -> httpx2.Response:
    return Client(served[0]).ask("POST", path, json=body)


def test_openai_s_client_reads_the_vectors_of_predict(served: tuple[Any, dict[str, Any]]) -> None:
    openai = pytest.importorskip("openai")
    wanted = [answer["answer"] for answer in served[1]["embedding"].predict(TEXTS)]

    def send(request: Any) -> Any:
        found = Client(served[0]).ask("POST", request.url.path, content=request.content, headers=dict(request.headers))
        return httpx.Response(found.status_code, content=found.content)

    httpx = pytest.importorskip("httpx")
    client = openai.OpenAI(
        base_url="http://localhost/v1", api_key="-", http_client=httpx.Client(transport=httpx.MockTransport(send))
    )
    for form in ({}, {"encoding_format": "float"}):  # by default the client asks for base64 and decodes it
        found = client.embeddings.create(model="embedding", input=TEXTS, **form)
        assert numpy.array([each.embedding for each in found.data]) == pytest.approx(numpy.array(wanted), abs=1e-6)
        assert [each.index for each in found.data] == [0, 1, 2]
        assert found.usage.prompt_tokens > 6
    short = post(served, "/v1/embeddings", model="embedding", input="talo", dimensions=8).json()["data"][0]["embedding"]
    assert len(short) == 8
    assert numpy.linalg.norm(short) == pytest.approx(1)
    passage = post(served, "/v1/embeddings", model="embedding", input=TEXTS, input_type="passage").json()
    assert len(passage["data"]) == 3


@pytest.mark.parametrize("name", ["reranking", "embedding"])
def test_candidates_are_ordered_by_the_scores_of_predict(name: str, served: tuple[Any, dict[str, Any]]) -> None:
    """By a cross-encoder, or by the cosines of an embedding."""
    asked = {"query": "talo", "documents": TEXTS}
    model = served[1][name]
    rows = [{"text": "talo", "text_pair": text} for text in TEXTS]
    scores = [answer["answer"] for answer in model.predict(rows)]
    found = post(served, "/rerank", model=name, top_n=2, return_documents=True, **asked).json()["results"]
    order = sorted(range(3), key=lambda place: -scores[place])[:2]
    assert [each["index"] for each in found] == order
    assert [each["relevance_score"] for each in found] == pytest.approx([scores[place] for place in order], abs=1e-6)
    assert [each["document"]["text"] for each in found] == [TEXTS[place] for place in order]
    plain = post(served, "/v1/rerank", model=name, query="talo", texts=TEXTS).json()
    assert [each["index"] for each in plain][:2] == order


BAD = {
    "no text": ("/v1/embeddings", {"input": []}, 400, "at least one"),
    "an empty text": ("/v1/embeddings", {"input": ["a", " "]}, 400, "input.1 is empty"),
    "too many": ("/v1/embeddings", {"input": ["a"] * 5}, 400, "at most 4"),
    "too long": ("/v1/embeddings", {"input": "a" * 101}, 400, "at most 100 characters"),
    "tokens": ("/v1/embeddings", {"input": [1, 2]}, 400, "input"),
    "too wide": ("/v1/embeddings", {"input": "a", "dimensions": 999}, 400, "at most"),
    "unknown": ("/v1/embeddings", {"input": "a", "n": 2}, 400, "n"),
    "no such model": ("/v1/embeddings", {"input": "a", "model": "x"}, 404, "no such model"),
    "no vectors": ("/v1/embeddings", {"input": "a", "model": "reranking"}, 404, "gives no vectors"),
    "two forms": ("/rerank", {"query": "a", "texts": ["b"], "documents": ["b"]}, 400, "either"),
    "no pairs": ("/rerank", {"query": "a", "texts": ["b"], "model": "text_classification"}, 422, "a second text"),
    "an empty query": ("/rerank", {"query": " ", "texts": ["b"]}, 400, "query.0 is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_why(name: str, served: tuple[Any, dict[str, Any]]) -> None:
    path, body, status, what = BAD[name]
    found = post(served, path, **({"model": "embedding"} | body))
    assert (found.status_code, what in found.text) == (status, True), found.text
    assert found.json()["error"]["message"] if path.startswith("/v1") else found.json()["detail"]


def test_vectors_do_not_become_passages_where_a_run_has_a_corpus(
    served: tuple[Any, dict[str, Any]], here: Path
) -> None:
    model = served[0].state.models.get("embedding")
    task, engine = model.task, model.engine
    vectors = numpy.eye(32, dtype=numpy.float32)[:2]
    state = replace(task.state, passages=Passages(["a", "b"], ["one", "two"], ["", ""]), vectors=vectors)
    state.inference = "row"
    model.engine = replace(engine, task=task.with_state(state))
    try:
        found = post(served, "/v1/embeddings", model="embedding", input="talo").json()
        assert len(found["data"][0]["embedding"]) == 32
        (answer,) = post(served, "/predict/embedding", rows=[{"text": "talo"}]).json()["answers"]
        assert [each["id"] for each in answer["answer"]] in (["a", "b"], ["b", "a"])
    finally:
        model.engine = engine
