"""The OpenAPI document says what the routes take; garbage is refused, whatever it is."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from tests.serving.conftest import Client
from tests.serving.test_faults import GARBAGE, JSON


def test_routes_are_typed_by_the_task(serving: Callable[..., Client]) -> None:
    client = serving()
    document = client.ask("GET", "/openapi.json").json()
    assert {"/predict", "/predict/texts", "/info", "/v2/health/ready"} <= document["paths"].keys()
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["row"]["required"] == ["text"]
    assert body["schema"]["properties"]["row"]["properties"].keys() == {"text"}
    assert client.ask("POST", "/predict", json=body["example"]).status_code == 200
    page = client.ask("GET", "/docs")
    assert "POST /predict" in page.text
    assert "http" not in page.text.replace("https://json-schema.org", "")
    about = client.ask("GET", "/info").json()
    assert about["models"][0]["inputs"] == [
        {"name": "text", "role": "text", "kind": "text", "required": True, "values": []}
    ]
    assert about["models"][0]["example"] == {"text": "Some text."}


def requests(count: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Garbage of many kinds: known mistakes, bytes that were changed, values of any type, odd paths and headers."""
    rng = random.Random(7)
    good = json.dumps({"rows": [{"text": "lumo mirk", "text_pair": None}]}).encode()
    infer = json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["lumo"]}]}).encode()
    values = [
        None,
        True,
        0,
        -1,
        1e300,
        "",
        "x",
        "\u0000",
        "é" * 300,
        [],
        [[]],
        {},
        {"text": "x"},
        [{"text": 1}],
        "9" * 400,
    ]
    keys = ["rows", "row", "text", "texts", "model", "explain", "draw", "inputs", "id", "", "é"]
    paths = ["/predict", "/predict/texts", "/predict/other", "/v2/models/texts/infer", "/predict/%2e%2e", "/v2/models/%00/infer", "/v1/chat/completions", "/feedback", "/nowhere"]  # fmt: skip
    found = []
    for number in range(count):
        kind = number % 4
        if kind == 0:
            body = rng.choice(GARBAGE)
        elif kind == 1:
            body = bytearray(rng.choice((good, infer)))
            for _ in range(rng.randint(1, 4)):
                body[rng.randrange(len(body))] = rng.randrange(256)
            body = bytes(body[: rng.randint(1, len(body))])
        elif kind == 2:
            body = json.dumps({rng.choice(keys): rng.choice(values) for _ in range(rng.randint(0, 3))}).encode()
        else:
            body = json.dumps(
                {"inputs": [{key: rng.choice(values) for key in ("name", "shape", "datatype", "data", "parameters")}]}
            ).encode()
        headers = dict(JSON)
        if rng.random() < 0.1:
            headers["inference-header-content-length"] = rng.choice(["0", "5", "-1", "x", "9" * 30])
        if rng.random() < 0.1:
            headers["content-type"] = rng.choice(["", "text/plain", "application/x+json", "é".encode()])
        found.append(
            (
                rng.choice(["POST", "POST", "POST", "GET", "PUT"]),
                rng.choice(paths),
                {"content": body, "headers": headers},
            )
        )
    return found


def survives(client: Client, count: int) -> None:
    for start in range(0, count, 100):
        for found in client.together(*requests(count)[start : start + 100]):
            assert found.status_code < 500, found.text
            assert "Traceback" not in found.text
    assert client.predict(text="lumo")["answers"]
    assert client.app.state.models.depth() == 0


def test_garbage(serving: Callable[..., Client]) -> None:
    survives(serving(queue=1000), 400)


@pytest.mark.slow
def test_ten_thousand_requests_of_garbage(serving: Callable[..., Client]) -> None:
    client = serving(queue=1000)
    asked = requests(10_000)
    for start in range(0, len(asked), 100):
        assert all(found.status_code < 500 for found in client.together(*asked[start : start + 100]))
    assert client.predict(text="lumo")["answers"]


@pytest.mark.slow
def test_schemathesis_finds_nothing(serving: Callable[..., Client]) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    client = serving(queue=1000)
    schema = schemathesis.openapi.from_dict(client.ask("GET", "/openapi.json").json())
    codes = []

    def check(case: Any) -> None:
        body = {"json": case.body} if case.method == "POST" else {}
        found = client.ask(case.method, case.formatted_path, **body)
        codes.append(found.status_code)
        assert found.status_code < 500, found.text

    for operation in schema.get_all_operations():
        if operation.ok().path.startswith(("/predict", "/v2", "/info")):
            settings(max_examples=100, deadline=None)(given(case=operation.ok().as_strategy())(check))()
    assert 200 in codes
    assert 422 in codes
