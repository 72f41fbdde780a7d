"""`POST /predict`: rows in, answers out, through the queue of a model."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llmft.predictions.inputs import Row, in_order
from llmft.schema.problem import plural
from llmft.serving.batcher import Full
from llmft.serving.bodies import InputColumn, Reader, flag, invalid, told
from llmft.serving.http import Refused, json_response, read_json, unless_left
from llmft.serving.metrics import Watch, feedback_metric
from llmft.serving.models import Encoded, Models, Served, drawn, new_id, with_explanations
from llmft.tasks.optional import Draws, Explains
from llmft.tasks.task import Answer

INLINE = 4000  # characters that the event loop encodes itself, in about 0.3 ms; a thread would take 0.1 ms to wake


class Predictions:
    """The routes that answer rows."""

    def __init__(self, models: Models, key: bool) -> None:
        """`key`: whether clients must send one."""
        self.models, self.key = models, key
        self.readers: dict[str, tuple[Served, Reader]] = {}

    async def one(self, request: Request) -> Response:
        """`POST /predict`: the only model, or the one that the body names."""
        body = await read_json(request, self.max_body, self.models.config.serve.read_timeout_s)
        name = body.get("model") if isinstance(body, dict) else None
        names = self.models.names()
        if name is None and len(names) > 1:
            raise invalid([("model", f"must name one of {', '.join(names)}")])
        if name is not None and name not in names:
            raise invalid([("model", f"must be one of {', '.join(names)}")])
        return await self._answer(request, name or names[0], body)

    async def named(self, request: Request, name: str) -> Response:
        """`POST /predict/NAME`."""
        if name not in self.models.names():
            raise Refused(404, "there is no model of this name", reason="name")
        served = self.models.get(name)
        limit = self.reader(served).max_body if served else 1 << 20
        body = await read_json(request, limit, self.models.config.serve.read_timeout_s)
        return await self._answer(request, name, body)

    @property
    def max_body(self) -> int:
        """The largest body that one of the models reads, in bytes."""
        return max((self.reader(served).max_body for served in self.models.loaded()), default=1 << 20)

    def reader(self, served: Served) -> Reader:
        """How bodies for a model are read; made again for another version of it."""
        name = served.name
        if name not in self.readers or self.readers[name][0] is not served:
            self.readers[name] = served, Reader(served.task, served.config.dataset, self.models.config.serve)
        return self.readers[name][1]

    async def _answer(self, request: Request, name: str, body: Any) -> Response:
        with self.models.held(name) as served:
            reader = self.reader(served)
            rows = reader.rows(body)
            explain, draw = flag(body, "explain", reader.explains), flag(body, "draw", reader.draws)
            passes = sum(map(reader.passes, rows)) if explain else 0
            answers, cut = await predict(request, self.models, served, rows, reader.columns, passes, draw)
        ids = [f"{request.scope.setdefault('llmft_id', new_id())}-{place}" for place in range(len(rows))]
        found = {"answers": answers, "ids": ids, "model": name, "version": served.version, "truncated": cut}
        return json_response(found)

    async def info(self) -> Response:
        """`GET /info`: what the page must know of the models."""
        serve = self.models.config.serve
        found = []
        for served in self.models.loaded():
            reader, task = self.reader(served), served.task
            metric = feedback_metric(task, served.example)
            names = task.model_kwargs().get("id2label") if task.target else None
            found.append(
                {
                    "name": served.name,
                    "version": served.version,
                    "task": served.config.task.name,
                    "inputs": [column.in_json() for column in reader.columns],
                    "default": reader.default and reader.default.name,
                    "labels": names and list(names.values()),
                    "explains": isinstance(task, Explains),
                    "draws": isinstance(task, Draws),
                    "chats": served.writer is not None and served.writer.chat is not None,
                    "streams": served.writer is not None,
                    "feedback": metric is not None,
                    "metric": metric,
                    "example": None if reader.images else served.example_row,
                }
            )
        limits = {"rows": serve.max_rows, "text": serve.max_text, "image_pixels": serve.max_pixels}
        limits["body"] = self.max_body
        return json_response({"models": found, "key": self.key, "limits": limits})


async def predict(
    request: Request,
    models: Models,
    served: Served,
    rows: list[Row],
    columns: Sequence[InputColumn],
    passes: int = 0,
    draw: bool = False,
    decode: Callable[[list[Any], Encoded], list[Answer]] | None = None,
) -> tuple[list[dict[str, Any]], list[int]]:
    """The answers to rows in their order, and the rows that were cut.

    A row that is bad has its reason as `error`, as in `llmft predict`.

    Args:
        served: see `Models.held`.
        columns: those that the model reads.
        passes: for answers that are explained, how many more rows the model is asked at most. The queue counts them.
        decode: see `Served.submit`.

    Raises:
        Refused: if all rows are bad, the queue is full, there is no answer in time, or more rows are to be explained
            than the queue ever holds.
        Left: if the client has closed the connection.
    """
    start = time.monotonic()
    serve, count = models.config.serve, len(rows) + passes
    until = start + serve.timeout_s
    if passes and len(rows) > 1 and count > serve.queue:
        fits = max(serve.queue * len(rows) // count, 1)
        what = f"explaining {len(rows)} rows takes up to {passes:,} more of them, and the queue holds {serve.queue:,}"
        raise Refused(422, f"{what}; send at most {plural(fits, 'rows')} of this size with explain", reason="rows")
    try:
        models.admission.admit(count)
    except Full as full:
        headers = {"retry-after": str(full.retry_after)}
        raise Refused(429, "the queue is full; ask again later", headers=headers, reason="full") from None
    try:
        work = _predict(request, models, served, rows, columns, until, passes > 0, draw, decode)
        return await unless_left(request, work, until - start)
    except TimeoutError:  # of the questions of an explanation
        what = f"there was no answer within {until - start:g} seconds"
        raise Refused(504, what, reason="deadline") from None
    finally:
        models.admission.release(count, time.monotonic() - start)


async def _predict(
    request: Request,
    models: Models,
    served: Served,
    rows: list[Row],
    columns: Sequence[InputColumn],
    until: float,
    explain: bool,
    draw: bool,
    decode: Callable[[list[Any], Encoded], list[Answer]] | None,
) -> tuple[list[dict[str, Any]], list[int]]:
    loop = asyncio.get_running_loop()
    inline = _characters(rows) <= INLINE
    parts, bad = served.read(rows) if inline else await loop.run_in_executor(None, served.read, rows)
    reasons = {place: told(why, rows[place], columns) for place, why in bad.items()}
    if len(bad) == len(rows):
        raise invalid([(rows[place].id, why) for place, why in reasons.items()])
    request_id = request.scope.setdefault("llmft_id", new_id())
    works = []
    gone: Future[None] = Future()  # done when the client has left
    try:
        for places, encoded in parts:
            ids = [f"{request_id}-{place}" for place in places]
            tokens = sum(each.get("length", 0) for each in encoded.features)
            heard = partial(_heard, models.watch, served, ids, encoded, tokens)
            works.append(served.submit(encoded, heard, decode=decode))
        made = [await asyncio.wrap_future(work.done) for work in works]
        for place, (_, encoded) in enumerate(parts):
            if explain:
                made[place] = await loop.run_in_executor(
                    None, with_explanations, served, encoded, made[place], until, gone
                )
            if draw:
                made[place] = await loop.run_in_executor(None, drawn, served, encoded, made[place])
    except asyncio.CancelledError:
        for work in works:
            work.drop()
        gone.cancel()
        raise
    found = [part._replace(found=answers) for part, answers in zip(parts, made, strict=True)]
    cut = sorted(part.places[row] for part in parts for row in part.found.cut)
    return in_order(len(rows), found, reasons), cut  # type: ignore[arg-type]


def _heard(watch: Watch, served: Served, ids: list[str], encoded: Encoded, tokens: int, answers: list[Any]) -> None:
    pixels = [each["pixels"] for each in encoded.features if "pixels" in each]
    watch.answered(served, ids, encoded.rows, answers, tokens, len(encoded.cut), pixels or None)


def _characters(rows: list[Row]) -> int:
    """How long the texts of rows are. What is neither text nor number, such as an image, counts as long."""
    values = [value for row in rows for value in row.values.values() if value is not None]
    return sum(len(v) if isinstance(v, str) else 16 if isinstance(v, int | float) else INLINE + 1 for v in values)
