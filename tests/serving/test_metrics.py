"""What a service tells of itself: /metrics, /stats, and /feedback, the dashboard, and the alert rules."""

import errno
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("prometheus_client")
pytest.importorskip("fastapi")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.arrow import to_dataset
from llmft.data.source import Table
from llmft.schema.serving import ServeConfig
from llmft.serving import metrics as module
from llmft.serving.http import Refused
from llmft.serving.metrics import BUCKET, BUCKETS, LABELS, BadFeedback, Watch, feedback_metric, percentiles
from llmft.tasks.task import Task
from llmft.training.evaluation import Split
from llmft.training.features import encode
from llmft.training.reference import write_reference

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ANSWER = {"answer": "bad", "scores": {"bad": 0.75, "good": 0.25}}


@dataclass
class Served:
    """What the watch reads of a loaded model."""

    task: Task[Any]
    folder: Path
    name: str = "tickets"
    version: str = "aaaaaaaaaaaa"
    sha256: str = "a" * 64
    config: Any = field(default_factory=lambda: SimpleNamespace(task=SimpleNamespace(name="text_classification")))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A task with a reference of 60 rows, whose labels take turns."""
    folder = tmp_path_factory.mktemp("model")
    config = compose("finetune", ["+recipe=bert_textcls", "smoke=true"])
    task = tasks.build(config.task)
    rows = to_dataset(Table(task.synthetic_rows(120, seed=0), [f"a:{row}" for row in range(120)]))
    task = task.fit(rows, config.model)
    held = rows.select(range(60))
    answers = [{"answer": label, "scores": {"bad": 0.5, "good": 0.5}} for label in held["label"]]
    splits = {"train": Split(rows, None), "validation": Split(held, encode(task, held))}
    write_reference(task, splits, "validation", answers, "salt", folder)
    return Served(task, folder)


@pytest.fixture
def watch(served: Served) -> Watch:
    found = Watch(ServeConfig())
    found.loaded(served)
    return found


@pytest.fixture
def client(watch: Watch) -> Iterator[TestClient]:
    app = FastAPI()
    app.add_exception_handler(Refused, lambda request, error: error.response())  # type: ignore[attr-defined]
    watch.routes(app, SimpleNamespace(depth=lambda: 3))
    with TestClient(app) as found:
        yield found


def answered(watch: Watch, served: Served, ids: list[str], text: str = "tavo renn", answer: Any = None) -> None:
    rows = Table({"text": [text] * len(ids)}, ids)
    watch.answered(served, ids, rows, [answer or ANSWER] * len(ids), tokens=4 * len(ids), cut=0)


def value(watch: Watch, name: str, **labels: str) -> float | None:
    return watch.series.registry.get_sample_value(name, labels)


def test_requests_are_counted(watch: Watch, client: TestClient) -> None:
    watch.request("/predict", 200, 0.02)
    watch.request("/predict", 500, 0.01)
    watch.request("/metrics", 200, 0.001)
    watch.rejected("full")
    watch.rejected("not_ready")  # a probe
    watch.batch("tickets", 8, 0.002, 0.03)
    watch.load_failed("tickets")
    text = client.get("/metrics").text
    for line in (
        'llmft_requests_total{code="200",route="/predict"} 1.0',
        'llmft_request_seconds_bucket{le="0.025",route="/predict"} 2.0',
        'llmft_rejected_total{reason="full"} 1.0',
        'llmft_batch_rows_sum{model="tickets"} 8.0',
        'llmft_inference_seconds_count{model="tickets"} 1.0',
        'llmft_reload_failures_total{model="tickets"} 1.0',
        "llmft_queue_depth 3.0",
    ):
        assert f"\n{line}\n" in text
    found = client.get("/stats").json()
    assert (found["requests"], found["errors"], found["rejected"]) == (2, 1, 1)
    assert found["latency_ms"] == {"p50": 20.0, "p95": 20.0, "p99": 20.0}
    assert found["history"] == [{"seconds_ago": 0, "requests": 2, "errors": 1, "p50_ms": 20.0, "p99_ms": 20.0}]


def test_a_value_that_is_not_a_number_stays_out_of_histograms(watch: Watch, served: Served) -> None:
    """prometheus_client counts a NaN in no bucket, and the sum is NaN for ever."""
    watch.request("/predict", 200, float("nan"))
    watch.batch("tickets", 1, float("nan"), float("inf"))
    answered(watch, served, ["a"], answer={"answer": "bad", "scores": {"bad": float("nan")}})
    sums = [s for m in watch.series.registry.collect() for s in m.samples if s.name.endswith("_sum")]
    assert len(sums) > 3
    assert all(sample.value == sample.value < float("inf") for sample in sums)


def test_percentiles() -> None:
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}
    assert percentiles([0.5]) == {"p50": 500.0, "p95": 500.0, "p99": 500.0}
    assert percentiles([n / 1000 for n in range(101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_history_has_ten_minutes(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in range(BUCKETS + 5):
        watch.request("/predict", 200, 0.01)
        now[0] += BUCKET
    now[0] += 5 * BUCKET
    found = watch.stats()["history"]
    assert found[0]["seconds_ago"] < BUCKET * BUCKETS
    assert found[-1] == {"seconds_ago": 0, "requests": 0, "errors": 0, "p50_ms": None, "p99_ms": None}


def test_answers_and_drift(watch: Watch, served: Served) -> None:
    answered(watch, served, [f"a{n}" for n in range(50)], text="wholly other words")
    assert value(watch, "llmft_answers_total", model="tickets", label="bad") == 50
    assert value(watch, "llmft_input_tokens_total", model="tickets") == 200
    assert value(watch, "llmft_confidence_bucket", model="tickets", le="0.8") == 50
    names = {"length", "new words", "answer", "confidence"}
    found = {name: value(watch, "llmft_drift_alarm", model="tickets", statistic=name) for name in names}
    assert found["new words"] == found["answer"] == 1
    assert value(watch, "llmft_drift", model="tickets", statistic="new words") == 1
    limit = value(watch, "llmft_drift_limit", model="tickets", statistic="new words")
    assert limit
    assert 0 < limit < 1
    (model,) = watch.stats()["models"].values()
    assert (model["answers"], model["labels"], model["accuracy"]) == (50, {"bad": 1.0}, None)
    assert {each["name"] for each in model["drift"]["statistics"]} == names
    json.dumps(watch.stats(), allow_nan=False)


def test_rows_with_an_error_are_left_out(watch: Watch, served: Served) -> None:
    rows = Table({"text": ["tavo", ""]}, ["1", "2"])
    for _ in range(50):
        watch.answered(served, ["x", "y"], rows, [ANSWER, {"error": "is empty"}], 1, 0)
    assert value(watch, "llmft_answers_total", model="tickets", label="bad") == 50
    assert watch.stats()["models"]["tickets"]["drift"]["window"] == 50


def test_another_version_starts_anew(watch: Watch, served: Served) -> None:
    answered(watch, served, [f"a{n}" for n in range(50)])
    new = Served(served.task, served.folder, version="b" * 12)
    watch.loaded(new)
    assert value(watch, "llmft_drift", model="tickets", statistic="length") is None
    versions = [s.labels["version"] for m in watch.series.info.collect() for s in m.samples]
    assert versions == ["b" * 12]
    answered(watch, served, ["late"])  # of the version before
    assert watch.stats()["models"]["tickets"]["answers"] == 0
    answered(watch, new, ["b"])
    assert watch.stats()["models"]["tickets"]["answers"] == 1


def test_a_model_without_a_reference_is_served_all_the_same(watch: Watch, served: Served, here: Path) -> None:
    plain = Served(served.task, here, name="plain")
    watch.loaded(plain)
    answered(watch, plain, ["a"])
    assert watch.stats()["models"]["plain"]["drift"] is None
    (here / "reference.json").write_text("{")
    watch.loaded(plain)
    assert watch.stats()["models"]["plain"]["drift"] is None


def test_rows_that_cannot_be_measured_are_left_out(
    watch: Watch, served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(row: dict[str, Any]) -> str:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(served.task, "format_input", fails)
        answered(watch, served, ["a"] * 30)
        answered(watch, served, ["a"] * 30)
    said = capsys.readouterr().err
    assert said == "note: rows of tickets that cannot be measured are left out of its drift: ZeroDivisionError()\n"
    answered(watch, served, ["a"] * 50)
    found = watch.stats()["models"]["tickets"]
    assert (found["answers"], found["drift"]["window"]) == (110, 50)


def test_labels_without_end_are_one_series(watch: Watch, served: Served) -> None:
    for number in range(LABELS + 20):
        answered(watch, served, [str(number)], answer={"answer": f"l{number}", "scores": {f"l{number}": 1.0}})
    assert value(watch, "llmft_answers_total", model="tickets", label="other") == 20


def test_feedback_gives_a_rolling_accuracy(watch: Watch, served: Served, client: TestClient) -> None:
    answered(watch, served, ["a", "b", "c"])
    assert client.post("/feedback", json={"id": "a", "label": "bad"}).json() == {
        "metric": "accuracy",
        "value": 1.0,
        "of": 1,
        "accuracy": 1.0,
    }
    assert client.post("/feedback", json={"id": "b", "label": "good"}).json()["value"] == 0.5
    assert value(watch, "llmft_feedback_score", model="tickets", metric="accuracy") == 0.5
    assert watch.stats()["models"]["tickets"]["accuracy"] == {"metric": "accuracy", "value": 0.5, "of": 2}
    for body, part in (
        ({"id": "a", "label": "bad"}, "takes feedback once"),  # counted already
        ({"id": "c", "label": "other"}, "must be one of bad, good"),
        ({"id": "c", "label": {"a": 1}}, "must be one of"),
        ({"id": "c"}, "must be"),
        ({"id": 3, "label": "bad"}, "must be"),
        ([], "must be"),
    ):
        found = client.post("/feedback", json=body)
        assert found.status_code == 422
        assert part in found.json()["detail"]


def test_feedback_on_numbers_is_a_mean_error(watch: Watch, here: Path) -> None:
    config = compose("finetune", ["+recipe=tabular_regression", "smoke=true"])
    task = tasks.build(config.task)
    rows = to_dataset(Table(task.synthetic_rows(20, seed=0), [f"a:{row}" for row in range(20)]))
    numbers = Served(task.fit(rows, config.model), here, name="numbers")
    watch.loaded(numbers)
    watch.answered(numbers, ["a"], Table({"features": [{}]}, ["a"]), [{"answer": 2.0}], 0, 0)
    for label in ("5", True, None, [5]):
        with pytest.raises(BadFeedback, match="it must be a number"):
            watch.score({"id": "a", "label": label})
    assert watch.score({"id": "a", "label": 5})[0] == {"metric": "mae", "value": 3.0, "of": 1}


def test_feedback_is_kept_in_a_file(served: Served, here: Path) -> None:
    file = here / "feedback.jsonl"
    watch = Watch(ServeConfig(feedback=str(file)))
    watch.loaded(served)
    answered(watch, served, ["é"])
    line = watch.score({"id": "é", "label": "good"})[1]
    assert watch.keep(line)
    assert watch.keep(line)
    found = [json.loads(each) for each in file.read_text(encoding="utf-8").splitlines()]
    assert len(found) == 2
    assert found[0] | {"time": 0} == {
        "time": 0,
        "model": "tickets",
        "version": "aaaaaaaaaaaa",
        "id": "é",
        "answer": "bad",
        "label": "good",
    }


def test_a_full_disk_is_survived_and_counted(served: Served, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = here / "feedback.jsonl"
    watch = Watch(ServeConfig(feedback=str(file)))
    assert watch.keep({"id": "first"})
    before = file.read_bytes()
    opened = Path.open

    class Full:
        """A file whose disk takes five bytes more."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            self.stream.close()

        def tell(self) -> int:
            return int(self.stream.tell())

        def write(self, data: bytes) -> None:
            self.stream.write(data[:5])
            self.stream.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, mode: Full(opened(path, mode)))
    assert not watch.keep({"id": "second"})
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert value(watch, "llmft_feedback_lost_total") == 1
    watch.file = here / "no" / "folder.jsonl"
    assert not watch.keep({"id": "third"})
    assert value(watch, "llmft_feedback_lost_total") == 2


def exported(client: TestClient) -> set[str]:
    """The names of all samples of /metrics, with those of series that have no sample yet."""
    names = set()
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            names |= {name} | (
                {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else set()
            )
    return names


def metric_names(query: str) -> set[str]:
    """The metrics that a query of PromQL names."""
    query = re.sub(r'"[^"]*"', "", query)
    query = re.sub(r"\b(by|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", query)
    query = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", query)
    return set(re.findall(r"\b(?:llmft|process|up)(?:_[a-z0-9_]+)?\b", query))


def queries() -> list[str]:
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_every_query_names_a_metric_that_is_exported(watch: Watch, client: TestClient) -> None:
    known = exported(client) | {"up"}  # which Prometheus makes itself
    assert len(queries()) > 25
    for query in queries():
        assert metric_names(query), query
        assert metric_names(query) <= known, query


def test_every_metric_is_on_the_dashboard(client: TestClient) -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    shown = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    ours = {
        name
        for name in exported(client)
        if name.startswith("llmft_") and not name.endswith(("_bucket", "_sum", "_count", "_created"))
    }
    assert {name for name in ours if name not in shown} == set()


CASES = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="llmft", instance="a"}}', values: '1 1 0 0 0 0 0 0 0 0'}}
      - {{series: 'llmft_requests_total{{route="/predict", code="200", instance="a"}}', values: '0+90x30'}}
      - {{series: 'llmft_requests_total{{route="/predict", code="500", instance="a"}}', values: '0+10x30'}}
      - {{series: 'llmft_requests_total{{route="/v2/health/ready", code="503", instance="b"}}', values: '0+10x30'}}
      - {{series: 'llmft_drift_alarm{{model="m", statistic="length", instance="a"}}', values: '0x5 1x25'}}
      - {{series: 'llmft_rejected_total{{reason="full", instance="a"}}', values: '0+6x30'}}
      - {{series: 'llmft_rejected_total{{reason="text", instance="b"}}', values: '0+6x30'}}
      - {{series: 'llmft_reload_failures_total{{model="m", instance="a"}}', values: '0 0 0 1x27'}}
      - {{series: 'llmft_request_seconds_bucket{{route="/predict", le="1.0", instance="a"}}', values: '0+50x30'}}
      - {{series: 'llmft_request_seconds_bucket{{route="/predict", le="2.5", instance="a"}}', values: '0+100x30'}}
      - {{series: 'llmft_request_seconds_bucket{{route="/predict", le="+Inf", instance="a"}}', values: '0+100x30'}}
      - {{series: 'llmft_feedback_score{{model="m", metric="accuracy", instance="a"}}', values: '0.5x30'}}
      - {{series: 'llmft_feedback_total{{model="m", instance="a"}}', values: '0+10x30'}}
    alert_rule_test:
      - {{eval_time: 3m, alertname: LlmftErrors}}
      - {{eval_time: 4m, alertname: LlmftDrift}}
      - {{eval_time: 1m, alertname: LlmftDown}}
      - {{eval_time: 5m, alertname: LlmftScoreLow}}
      - {{eval_time: 25m, alertname: LlmftFeedbackLost}}
"""


def test_the_rules_alarm_when_they_should(here: Path) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool; Debian's package prometheus has it")
    (here / "tests.yml").write_text(CASES.format(rules=DEPLOY / "alerts.yml"))
    for words in (
        ["check", "rules", str(DEPLOY / "alerts.yml")],
        ["check", "config", str(DEPLOY / "prometheus.yml")],
        ["test", "rules", "tests.yml"],
    ):
        found = subprocess.run([promtool, *words], cwd=here, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
    # What does alarm is told in the failure of a test that expects nothing, with its labels.
    fired = [
        (5, "Down", "a"),
        (20, "Errors", "a"),
        (10, "Drift", "m"),
        (10, "Overloaded", "a"),
        (20, "Slow", "/predict"),
    ]
    for minute, name, label in [*fired, (4, "ReloadFailed", "m"), (25, "ScoreLow", "m")]:
        (here / "tests.yml").write_text(
            CASES.format(rules=DEPLOY / "alerts.yml") + f"      - {{eval_time: {minute}m, alertname: Llmft{name}}}\n"
        )
        found = subprocess.run(
            [promtool, "test", "rules", "tests.yml"], cwd=here, capture_output=True, text=True, check=False
        )
        told = found.stdout + found.stderr
        assert found.returncode == 1, name
        assert f"Llmft{name}" in told
        assert f'"{label}"' in told
        assert told.count("severity=") == 1, told


def test_metrics_can_be_scraped_by_prometheus(client: TestClient, watch: Watch, here: Path) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool; Debian's package prometheus has it")
    text = client.get("/metrics").text
    found = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert "error" not in (found.stdout + found.stderr).lower(), found.stdout + found.stderr


def test_a_service_is_watched(serving: Any) -> None:
    """The whole way: an answer has an id, its feedback is counted, and /metrics and /stats show both."""
    client = serving()
    found = client.predict(rows=[{"text": "tavo renn"}, {"text": "lumo shine"}])
    (name,) = client.ask("GET", "/stats").json()["models"]
    sent = client.ask("POST", "/feedback", json={"id": found["ids"][0], "label": found["answers"][0]["answer"]})
    assert sent.json() == {"metric": "accuracy", "value": 1.0, "of": 1, "accuracy": 1.0}
    assert client.ask("POST", "/feedback", json={"id": "no", "label": "good"}).status_code == 422
    text = client.ask("GET", "/metrics").text
    for line in (
        'llmft_requests_total{code="200",route="/predict"} 1.0',
        f'llmft_feedback_total{{model="{name}"}} 1.0',
        f'llmft_batch_rows_sum{{model="{name}"}} 3.0',  # with the row by which a model is tried when it is loaded
        'llmft_rejected_total{reason="feedback"} 1.0',
    ):
        assert f"\n{line}\n" in text, text
    stats = client.ask("GET", "/stats").json()
    assert stats["requests"] == 1
    assert stats["latency_ms"]["p50"] > 0
    assert stats["models"][name]["answers"] == 2
    assert "_created" not in text  # a second series for each counter, which no query reads


@pytest.mark.parametrize(
    ("problem", "answer", "metric"),
    [("single_label", "good", "accuracy"), ("regression", 2.5, "mae"), ("multi_label", ["good"], "subset_accuracy")],
)
def test_info_says_what_feedback_measures(problem: str, answer: Any, metric: str) -> None:
    config = compose("finetune", ["+recipe=bert_textcls", f"task.problem={problem}", "smoke=true"])
    target: Any = SimpleNamespace(labels=["good", "bad"])
    task = tasks.build(config.task).with_state(SimpleNamespace(target=target))  # type: ignore[arg-type]
    assert feedback_metric(task, {"answer": answer, "scores": {"good": 0.9, "bad": 0.1}}) == metric
