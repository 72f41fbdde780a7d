"""`/v1/embeddings` as OpenAI has it, and `/rerank` as Cohere, Jina, and text-embeddings-inference have it."""

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

import numpy
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from llmft.data.cell_values import joined_name
from llmft.predictions.inputs import Row
from llmft.serving.http import TITLES, json_response, read_json
from llmft.serving.models import Encoded, Models, Served
from llmft.serving.openai_requests import wrong
from llmft.serving.predict_routes import Predictions, predict
from llmft.tasks.task import Answer

ROLES = ("text", "text_pair")
PASSAGE = ("passage", "document", "search_document", "retrieval.passage")
QUERY = ("query", "search_query", "retrieval.query")
IGNORED = ("user", "max_chunks_per_doc", "max_tokens_per_doc", "truncate", "truncation_direction", "raw_scores")
"""Fields of clients that change nothing here."""
REFUSALS = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)


class Body(BaseModel):
    """A body with a field `model`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None

    @classmethod
    def read(cls, body: Any) -> Self:
        """The request that a body is.

        Raises:
            Refused: with 400 for the first field that is unknown or wrong.
        """
        if not isinstance(body, dict):
            raise wrong(None, "the body must be a JSON object")
        given = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(map(str, found["loc"][:2]))
            raise wrong(path, f"{path}: {found['msg'].lower()}") from None


class EmbeddingRequest(Body):
    """OpenAI's, and `input_type` of Cohere and Jina: whether texts are queries or passages, which prompts differ by."""

    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: Literal[(*QUERY, *PASSAGE)] = "query"  # type: ignore[valid-type]


class Document(BaseModel):
    """A text as some clients send it."""

    text: str


class RerankRequest(Body):
    """A query and its candidates: `documents` of Cohere and Jina, or `texts` of text-embeddings-inference."""

    query: str
    documents: list[str | Document] | None = None
    texts: list[str] | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    return_text: bool = False


class Vectors:
    """The routes that give vectors and scores."""

    def __init__(self, models: Models, predicts: Predictions) -> None:
        self.models, self.predicts = models, predicts
        self.serve = models.config.serve

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        codes: dict[int | str, dict[str, Any]] = {code: {"description": TITLES[code]} for code in REFUSALS}
        for path, endpoint, asked in (
            ("/v1/embeddings", self.embeddings, EmbeddingRequest),
            ("/rerank", self.rerank, RerankRequest),
            ("/v1/rerank", self.rerank, RerankRequest),
        ):
            schema = asked.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, part in schema.pop("$defs", {}).items():
                schema = _inlined(schema, f"#/components/schemas/{name}", part)
            body = {"required": True, "content": {"application/json": {"schema": schema}}}
            app.add_api_route(path, endpoint, methods=["POST"], openapi_extra={"requestBody": body}, responses=codes)

    async def embeddings(self, request: Request) -> Response:
        """Give the vector of each text."""
        asked = EmbeddingRequest.read(await self._body(request))
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        self._check("input", texts)
        with self.models.held(self._name(asked.model, embeds, "gives vectors")) as served:
            if not embeds(served):
                what = f"{served.name} gives no vectors: its task is {served.config.task.name}; ask POST /predict"
                raise wrong("model", what, "model_not_found", 404)
            role = "text_pair" if asked.input_type in PASSAGE and "text_pair" in served.task.columns else "text"
            column = joined_name(served.config.dataset, role)
            rows = [Row(f"input.{place}", {column: text}) for place, text in enumerate(texts)]
            tokens: list[int] = []

            def vectors(outputs: list[Any], encoded: Encoded) -> list[Answer]:
                tokens.append(sum(each["length"] for each in encoded.features))
                return [{"answer": vector.tolist()} for vector, _ in outputs]

            found = await self._answers(request, served, rows, vectors)
            name = served.name
        data = []
        for place, vector in enumerate(found):
            if asked.dimensions is not None:
                vector = _shortened(vector, asked.dimensions)
            kept = numpy.asarray(vector, dtype="<f4")  # OpenAI has little-endian float32
            value = base64.b64encode(kept.tobytes()).decode() if asked.encoding_format == "base64" else kept
            data.append({"object": "embedding", "index": place, "embedding": value})
        usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
        return json_response({"object": "list", "data": data, "model": name, "usage": usage})

    async def rerank(self, request: Request) -> Response:
        """Put texts in the order of their scores with a query. Equal scores keep their order."""
        asked = RerankRequest.read(await self._body(request))
        if (asked.documents is None) == (asked.texts is None):
            raise wrong("documents", "the body must have either documents or texts")
        field, given = ("texts", asked.texts) if asked.documents is None else ("documents", asked.documents)
        texts = [each.text if isinstance(each, Document) else each for each in given or []]
        self._check(field, texts)
        self._check("query", [asked.query])
        with self.models.held(self._name(asked.model, _reads_pairs, "reads pairs of texts")) as served:
            if not _reads_pairs(served):
                what = f"{served.name} reads no pairs of texts: its task is {served.config.task.name}"
                raise wrong("model", f"{what}; ask POST /predict", "model_not_found", 404)
            first, second = (joined_name(served.config.dataset, role) for role in ROLES)
            rows = [Row(f"{field}.{n}", {first: asked.query, second: text}) for n, text in enumerate(texts)]
            scores = await self._answers(request, served, rows)
            if not all(isinstance(score, float) for score in scores):
                what = f"{served.name} gives no number for a pair of texts: its task is {served.config.task.name}"
                raise wrong("model", f"{what}; ask POST /predict", "model_not_found", 404)
            name = served.name
        order = sorted(range(len(scores)), key=lambda place: -scores[place])[: asked.top_n]
        if field == "texts":
            shown: list[dict[str, Any]] = [{"text": texts[n]} if asked.return_text else {} for n in order]
            return json_response(
                [{"index": n, "score": scores[n], **more} for n, more in zip(order, shown, strict=True)]
            )
        shown = [{"document": {"text": texts[n]}} if asked.return_documents else {} for n in order]
        found = [{"index": n, "relevance_score": scores[n], **more} for n, more in zip(order, shown, strict=True)]
        return json_response({"id": uuid4().hex, "model": name, "results": found})

    async def _body(self, request: Request) -> Any:
        return await read_json(request, self.predicts.max_body, self.serve.read_timeout_s)

    def _name(self, name: str | None, fits: Callable[[Served], bool], what: str) -> str:
        """The model that a request names, or the only one that can answer it.

        Args:
            fits: whether a model can.
            what: what it does then, in words.
        """
        names = self.models.names()
        if name in names or (name is None and len(names) == 1):
            return name or names[0]
        fitting = [served.name for served in self.models.loaded() if fits(served)]
        if name is None and len(fitting) == 1:
            return fitting[0]
        if not fitting:
            raise wrong("model", f"no model of this service {what}; GET /info lists all", "model_not_found", 404)
        if name is None:
            raise wrong("model", f"model must name one of {', '.join(fitting)}")
        raise wrong("model", f"there is no such model; there are {', '.join(fitting)}", "model_not_found", 404)

    def _check(self, field: str, texts: list[str]) -> None:
        """Raise Refused for no text, too many, or one that is too long or empty."""
        if not texts:
            raise wrong(field, f"{field} must have at least one text")
        if len(texts) > self.serve.max_rows:
            raise wrong(field, f"{field} must have at most {self.serve.max_rows:,} texts, got {len(texts):,}")
        for place, text in enumerate(texts):
            if not text.strip():
                raise wrong(field, f"{field}.{place} is empty")
            if len(text) > self.serve.max_text:
                raise wrong(field, f"{field}.{place} must have at most {self.serve.max_text:,} characters")

    async def _answers(self, request: Request, served: Served, rows: list[Row], decode: Any = None) -> list[Any]:
        """What each row is answered; all must be good, since there is no place for the error of one."""
        reader = self.predicts.reader(served)
        answers, _ = await predict(request, self.models, served, rows, reader.columns, decode=decode)
        for row, answer in zip(rows, answers, strict=True):
            if "error" in answer:
                raise wrong(row.id, f"{row.id} {answer['error']}")
        return [answer["answer"] for answer in answers]


def embeds(served: Served) -> bool:
    """Whether a model gives vectors."""
    return served.task.reads == "sentence_embedding"


def _reads_pairs(served: Served) -> bool:
    return set(ROLES) <= served.task.columns.keys()


def _shortened(vector: Any, dimensions: int) -> numpy.ndarray:
    """The first values of a vector, at length 1: what `task.matryoshka` trains."""
    if dimensions > len(vector):
        raise wrong("dimensions", f"dimensions must be at most {len(vector)}, got {dimensions}")
    part = numpy.asarray(vector)[:dimensions]
    return part / max(float(numpy.linalg.norm(part)), 1e-12)


def _inlined(schema: Any, reference: str, part: Any) -> Any:
    """A JSON Schema with a definition in the places that refer to it."""
    if isinstance(schema, dict):
        if schema.get("$ref") == reference:
            return part
        return {key: _inlined(value, reference, part) for key, value in schema.items()}
    return [_inlined(value, reference, part) for value in schema] if isinstance(schema, list) else schema
