"""What a service tells of itself: metrics for Prometheus, numbers for its page, drift, and the feedback of people.

One object a service. The methods of `Watch` are called from the event loop and from worker threads. Nothing here may
fail or slow a request: a measurement that cannot be taken is logged and left out.
"""

import json
import math
import os
import sys
import time
from asyncio import to_thread
from collections import Counter as Tally
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from threading import Lock
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from llmft.data.source import Rows, Table
from llmft.metrics.drift import Drift, Reference
from llmft.schema.serving import ServeConfig
from llmft.serving.http import Refused, json_response, read_json
from llmft.tasks.measurements import Meter, of_answers
from llmft.tasks.task import Answer, Task

if TYPE_CHECKING:
    from llmft.serving.models import Models, Served

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
LABELS = 100  # label values of a model in a metric; each is a series that Prometheus keeps
RECENT = 1000  # answers and feedback that rolling shares are of
REMEMBERED = 10_000  # answers whose id can get feedback
LONGEST = 4096  # characters of an answer that is remembered: 10,000 of them take 40 MB at most
BUCKET = 10  # seconds of traffic in a point of the chart
BUCKETS = 60  # points: ten minutes
SAMPLED = 1000  # latencies kept a bucket
FEEDBACK_BODY = 64_000  # bytes


class Series:
    """The metrics that /metrics shows, in a registry of their own, so that two services can live in one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second series for each counter, which no query reads
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # resident memory and processor time; on Linux alone

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"llmft_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"llmft_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"llmft_{name}", what, labels, buckets=buckets, registry=registry)

        self.requests = counter("requests", "HTTP requests by route and status code", "route", "code")
        self.seconds = histogram(
            "request_seconds", "Seconds of a request, from its head to its answer", SECONDS, "route"
        )
        self.rejected = counter("rejected", "Requests that were refused, by reason", "reason")
        for reason in ("full", "deadline"):  # from 0 on: Prometheus sees no increase in the first value of a series
            self.rejected.labels(reason)
        self.depth = gauge("queue_depth", "Rows that were admitted and are not answered yet")
        self.waits = histogram("queue_wait_seconds", "Longest wait of a batch in the queue", SECONDS, "model")
        self.batches = histogram("batch_rows", "Rows in a run of the model", ROWS, "model")
        self.inference = histogram("inference_seconds", "Seconds of a run of the model", SECONDS, "model")
        self.tokens = counter("input_tokens", "Tokens of the inputs that were answered", "model")
        self.truncated = counter("truncated", "Inputs that were cut to task.max_length", "model")
        self.answers = counter("answers", "Answers by label; of a model without labels all together", "model", "label")
        self.confidence = histogram("confidence", "The score that an answer has", SHARES, "model")
        self.drift = gauge("drift", "Distance of the last rows from the reference, 0 to 1", "model", "statistic")
        self.limit = gauge("drift_limit", "The distance from which it is more than chance", "model", "statistic")
        self.alarm = gauge("drift_alarm", "1 if the distance is above its limit", "model", "statistic")
        self.feedback = counter("feedback", "Labels that people sent for answers", "model")
        self.accuracy = gauge("feedback_score", f"Mean score of the last {RECENT} labeled answers", "model", "metric")
        self.lost = counter("feedback_lost", "Feedback that could not be written to serve.feedback")
        self.info = gauge("model_info", "1 for the version that answers", "model", "version", "sha256", "task")
        self.reload_failures = counter("reload_failures", "Versions that could not be loaded", "model")


@dataclass
class Watched:
    """What is known of one model while it is served."""

    served: "Served"
    meter: Meter | None
    """None without a reference.json."""
    drift: Drift | None
    count: int = 0
    unmeasured: int = 0
    labels: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    known: set[str] = field(default_factory=set)
    """Labels that have a series."""
    scores: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    """What labeled answers add to the metric, see `RowScore`."""
    metric: str = ""


@dataclass
class Bucket:
    """The traffic of BUCKET seconds."""

    number: int
    requests: int = 0
    errors: int = 0
    seconds: list[float] = field(default_factory=list)


class BadFeedback(ValueError):
    """Why feedback cannot be taken, as a sentence."""


class Watch:
    """Counts what happens, compares rows with the reference, and keeps feedback."""

    def __init__(self, config: ServeConfig) -> None:
        self.series = Series()
        self.file = Path(config.feedback) if config.feedback else None
        self._lock = Lock()
        self._models: dict[str, Watched] = {}
        self._remembered: OrderedDict[str, tuple[str, Any]] = OrderedDict()
        self._buckets: deque[Bucket] = deque(maxlen=BUCKETS)
        self._latencies: deque[float] = deque(maxlen=2 * SAMPLED)
        self._totals = Tally[str]()

    # What the service calls.

    def request(self, route: str, code: int, seconds: float) -> None:
        """A finished HTTP request; `route` is the template of its path."""
        self.series.requests.labels(route, str(code)).inc()
        _observe(self.series.seconds.labels(route), seconds)
        if not (route.startswith(("/predict", "/v1/")) or route.endswith("/infer")):
            return
        with self._lock:
            bucket = self._bucket()
            bucket.requests += 1
            bucket.errors += code >= 500
            self._totals["requests"] += 1
            self._totals["errors"] += code >= 500
            if code < 400:
                self._latencies.append(seconds)
                if len(bucket.seconds) < SAMPLED:
                    bucket.seconds.append(seconds)

    def rejected(self, reason: str) -> None:
        """A request that was refused."""
        self.series.rejected.labels(reason).inc()
        with self._lock:
            self._totals["rejected"] += reason != "not_ready"  # mostly probes of /v2/health/ready while a model loads

    def batch(self, name: str, rows: int, waited: float, seconds: float) -> None:
        """A run of the model; `waited` is the longest wait of its rows in the queue, in seconds."""
        _observe(self.series.batches.labels(name), rows)
        _observe(self.series.waits.labels(name), waited)
        _observe(self.series.inference.labels(name), seconds)

    def answered(
        self,
        served: "Served",
        ids: Sequence[str],
        rows: Rows,
        answers: Sequence[Answer],
        tokens: int,
        cut: int,
        pixels: Sequence[bytes] | None = None,
    ) -> None:
        """A request that was answered: count it, and compare its rows with the reference.

        Args:
            tokens: of all its inputs.
            cut: how many inputs were truncated.
            pixels: of images, what the model saw.
        """
        name = served.name
        self.series.tokens.labels(name).inc(tokens)
        self.series.truncated.labels(name).inc(cut)
        good = [row for row, answer in enumerate(answers) if "error" not in answer]
        with self._lock:
            watched = self._models.get(name)
            if watched is None or watched.served.version != served.version:
                return  # an answer of the version before
            watched.count += len(good)
            ids = [ids[row] for row in good]
            for id, row in zip(ids, good, strict=True):
                self._remember(id, name, answers[row])
            measured = of_answers([answers[row] for row in good])
            self._count(watched, measured, len(good))
            if watched.meter and watched.drift and good:
                table = Table({key: [rows[key][row] for row in good] for key in rows.column_names if key != "id"}, ids)
                own = [pixels[row] for row in good] if pixels else None
                try:
                    measured |= watched.meter.measure_inputs(table, own)
                except Exception as error:  # of a task of another package: a row is answered even so
                    if not watched.unmeasured:
                        what = f"note: rows of {name} that cannot be measured are left out of its drift: {error!r}"
                        print(what, file=sys.stderr, flush=True)
                    watched.unmeasured += len(good)
                    return
                if watched.drift.update(measured):
                    self._show(watched)

    def loaded(self, served: "Served") -> None:
        """A version that answers from now on."""
        try:
            reference = Reference.load(served.folder)
        except (ValueError, OSError) as error:
            print(f"drift of {served.name} is not watched: {error}", file=sys.stderr)
            reference = None
        meter = Meter.of_reference(served.task, reference) if reference else None
        with self._lock:
            before = self._models.get(served.name)
            self._models[served.name] = Watched(served, meter, Drift(reference) if reference else None)
            for series in (self.series.drift, self.series.limit, self.series.alarm) if before else ():
                series.remove_by_labels({"model": served.name})  # of the version before
        if before:
            self.series.info.remove_by_labels({"model": served.name})
        self.series.feedback.labels(served.name)
        self.series.reload_failures.labels(served.name)
        self.series.info.labels(served.name, served.version, served.sha256, served.config.task.name).set(1)

    def load_failed(self, name: str) -> None:
        """A version that could not be loaded; the one before goes on."""
        self.series.reload_failures.labels(name).inc()

    def routes(self, app: FastAPI, models: "Models") -> None:
        """Add GET /metrics, GET /stats, and POST /feedback."""
        self.series.depth.set_function(models.depth)

        async def metrics() -> Response:
            return Response(generate_latest(self.series.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

        async def stats() -> Response:
            return json_response(self.stats())

        async def feedback(request: Request) -> Response:
            body = await read_json(request, FEEDBACK_BODY)
            try:
                found, line = self.score(body)
            except BadFeedback as error:
                raise Refused(422, str(error), reason="feedback") from error
            if self.file:
                found["kept"] = await to_thread(self.keep, line)
            return json_response(found)

        for path, route, method in (
            ("/metrics", metrics, "GET"),
            ("/stats", stats, "GET"),
            ("/feedback", feedback, "POST"),
        ):
            app.add_api_route(path, route, methods=[method], include_in_schema=False)

    # What the routes answer.

    def stats(self) -> dict[str, Any]:
        """Traffic of the last ten minutes, latencies in ms of the last answers, and each model's answers and drift."""
        with self._lock:
            now = self._bucket().number
            history = [
                {
                    "seconds_ago": BUCKET * (now - bucket.number),
                    "requests": bucket.requests,
                    "errors": bucket.errors,
                    **{f"{name}_ms": value for name, value in percentiles(bucket.seconds).items() if name != "p95"},
                }
                for bucket in self._buckets
            ]
            return {
                **{key: self._totals[key] for key in ("requests", "errors", "rejected")},
                "latency_ms": percentiles(self._latencies),
                "history": history,
                "models": {name: _described(watched) for name, watched in self._models.items()},
            }

    def score(self, body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The rolling score with a piece of feedback, `{"id": ..., "label": ...}`, and the line to keep.

        Raises:
            BadFeedback: for an unknown id, and a label that the task cannot have.
        """
        if not isinstance(body, dict) or not isinstance(body.get("id"), str) or "label" not in body:
            raise BadFeedback('must be {"id": the id of an answer, "label": the right answer}')
        with self._lock:
            known = self._remembered.get(body["id"])
            if known is None or (watched := self._models.get(known[0])) is None:
                raise BadFeedback(
                    f"id: must be that of one of the last {REMEMBERED:,} answers, and each takes feedback once"
                )
            name, answer = known
            part = self._part(watched, answer, body["label"])
            del self._remembered[body["id"]]  # one answer counts once
            watched.scores.append(part)
            score = _mean(watched)
            self.series.feedback.labels(name).inc()
            self.series.accuracy.labels(name, watched.metric).set(score)
            found = {"metric": watched.metric, "value": score, "of": len(watched.scores)}
            line = {"time": round(time.time(), 3), "model": name, "version": watched.served.version}
        if "accuracy" in watched.metric:
            found["accuracy"] = score
        return found, line | {"id": body["id"], "answer": answer["answer"], "label": body["label"]}

    def keep(self, line: dict[str, Any]) -> bool:
        """Append a line to the file, whole or not at all; False if the disk refuses, which is counted."""
        assert self.file
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
        try:
            with self.file.open("ab") as stream:
                start = stream.tell()
                try:
                    stream.write(data)
                    stream.flush()
                except OSError:
                    os.truncate(self.file, start)  # no half line, in which the next one would end up
                    raise
        except OSError:
            self.series.lost.inc()
            return False
        return True

    # With the lock held.

    def _bucket(self) -> Bucket:
        number = int(time.monotonic() // BUCKET)
        if not self._buckets or self._buckets[-1].number != number:
            while self._buckets and self._buckets[0].number <= number - BUCKETS:
                self._buckets.popleft()
            self._buckets.append(Bucket(number))
        return self._buckets[-1]

    def _remember(self, id: str, name: str, answer: Answer) -> None:
        if len(str(answer.get("answer"))) > LONGEST:
            return
        self._remembered[id] = name, {"answer": answer.get("answer")}
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _count(self, watched: Watched, measured: dict[str, list[Any]], rows: int) -> None:
        name = watched.served.name
        labels = [label for label in measured.get("answer", []) if isinstance(label, str)]
        for label in labels or [""] * rows:
            if label not in watched.known and len(watched.known) >= LABELS:
                label = "other"
            watched.known.add(label)
            self.series.answers.labels(name, label).inc()
        watched.labels.extend(labels)
        for value in measured.get("confidence", []):
            if value is not None:
                _observe(self.series.confidence.labels(name), value)

    def _show(self, watched: Watched) -> None:
        assert watched.drift
        for found in watched.drift.state()["statistics"]:
            names = (watched.served.name, found["name"])
            self.series.drift.labels(*names).set(found["value"])
            self.series.limit.labels(*names).set(found["limit"])
            self.series.alarm.labels(*names).set(found["alarm"])

    def _part(self, watched: Watched, answer: Answer, label: Any) -> tuple[float, float]:
        """What an answer adds to the metric of the task, and to the whole."""
        task = watched.served.task
        try:
            if isinstance(answer["answer"], float) and (isinstance(label, bool) or not isinstance(label, int | float)):
                raise ValueError(label)
            if task.target:
                task.target.encode([label])  # refuses what no answer can be
            found = task.row_score(answer, label)
            if not math.isfinite(found.part / found.whole):
                raise ValueError(label)
        except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError, IndexError) as error:
            names = list(map(str, task.model_kwargs().get("id2label", {}).values())) if task.target else []
            one_of = f": it must be one of {', '.join(names[:10])}" if names else ""
            one_of = ": it must be a number" if isinstance(answer["answer"], float) else one_of
            raise BadFeedback(f"the label is not of the form that answers of this model have{one_of}") from error
        watched.metric = found.metric
        return found.part, found.whole


def feedback_metric(task: Task[Any], example: Answer) -> str | None:
    """The metric that feedback adds to, such as accuracy, or mae for numbers; None for answers that are more than
    labels, a number, or a text.

    Args:
        example: an answer of the model.
    """
    answer = example.get("answer")
    if not isinstance(answer, str | int | float) and task.target is None:
        return None
    try:
        return task.row_score(example, answer).metric
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):  # its references have another form
        return None


def _observe(histogram: Histogram, value: float) -> None:
    """Count a value, unless it is NaN: prometheus_client would count it in no bucket, and the sum would stay NaN."""
    if math.isfinite(value):
        histogram.observe(value)


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """p50, p95, and p99 in ms; None without values."""
    if not seconds:
        return {"p50": None, "p95": None, "p99": None}
    cuts = quantiles([*seconds, seconds[-1]] if len(seconds) == 1 else seconds, n=100, method="inclusive")
    return {f"p{share}": round(1000 * cuts[share - 1], 3) for share in (50, 95, 99)}


def _mean(watched: Watched) -> float:
    return sum(part for part, _ in watched.scores) / sum(whole for _, whole in watched.scores)


def _described(watched: Watched) -> dict[str, Any]:
    """What /stats says of a model."""
    shares = {label: count / len(watched.labels) for label, count in Tally(watched.labels).most_common(LABELS)}
    score = {"metric": watched.metric, "value": _mean(watched), "of": len(watched.scores)} if watched.scores else None
    return {
        "version": watched.served.version,
        "answers": watched.count,
        "labels": shares or None,
        "drift": watched.drift.state() if watched.drift else None,
        "accuracy": score,
    }
