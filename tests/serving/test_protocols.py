"""The Open Inference Protocol: what Triton's own client and hand-made requests get."""

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

from tests.serving.conftest import Client

TEXTS = ["lumo is good", "mirk is bad", "shine vita lumo"]


@pytest.fixture
def address(serving: Callable[..., Client]) -> Iterator[str]:
    """Where a server in a thread listens."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(serving().app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"{host}:{port}"
    server.should_exit = True
    thread.join()


def test_tritonclient_works_as_it_is(address: str, serving: Callable[..., Client]) -> None:
    http = pytest.importorskip("tritonclient.http")
    expected = serving().predict(texts=TEXTS)["answers"]
    with http.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("texts")
        assert not client.is_model_ready("other")
        about = client.get_model_metadata("texts")
        assert about["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert [output["name"] for output in about["outputs"]] == ["answer", "scores"]
        texts = numpy.array([text.encode() for text in TEXTS], dtype=object)
        for binary in (True, False):
            given = http.InferInput("text", [len(TEXTS)], "BYTES")
            given.set_data_from_numpy(texts, binary_data=binary)
            found = client.infer("texts", [given], request_id="seven")
            assert found.get_response()["id"] == "seven"
            assert found.as_numpy("answer").tolist() == [answer["answer"] for answer in expected]
            labels = json.loads(found.get_output("scores")["parameters"]["labels"])
            scores = [dict(zip(labels, row, strict=True)) for row in found.as_numpy("scores").tolist()]
            assert scores == [answer["scores"] for answer in expected]
        client.load_model("texts")
        assert client.get_model_repository_index()[0]["state"] == "READY"
        with pytest.raises(Exception, match="no model of this name"):
            client.infer("other", [given])


def tensor(**more: Any) -> dict[str, Any]:
    return {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["lumo"]} | more


@pytest.mark.parametrize(
    ("inputs", "path"),
    [
        ([], "inputs"),
        ("text", "inputs"),
        ([7], "inputs"),
        ([tensor(name="other")], "inputs.0.name"),
        ([tensor(), tensor()], "inputs.1.name"),
        ([tensor(shape=[2])], "inputs.0.data"),
        ([tensor(shape=[])], "inputs.0.shape"),
        ([tensor(shape=[True])], "inputs.0.shape"),
        ([tensor(shape=[1, 2])], "inputs.0.shape"),
        ([tensor(shape=[-1])], "inputs.0.shape"),
        ([tensor(shape=[33])], "at most 32 rows"),
        ([tensor(data="lumo")], "inputs.0.data"),
        ([tensor(data=[7])], "inputs.0.data.0"),
        ([tensor(datatype="INT64", data=[7])], "row 0"),
        ([tensor(datatype="FP64", data=["x"])], "inputs.0.data.0"),
        ([tensor(datatype="X")], "inputs.0.datatype"),
        ([tensor(data=[None])], "row 0"),
        ([tensor(data=[""])], "row 0"),
        ([tensor(parameters={"binary_data_size": 4})], "inputs.0.parameters.binary_data_size"),
        ([tensor(parameters={"binary_data_size": -1})], "inputs.0.parameters.binary_data_size"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_path(inputs: Any, path: str, serving: Callable[..., Client]) -> None:
    found = serving().ask("POST", "/v2/models/texts/infer", json={"inputs": inputs})
    assert 400 <= found.status_code < 500
    assert found.json()["error"].count(path) == 1
    assert found.json().keys() == {"error"}


@pytest.mark.parametrize(
    ("values", "count", "fine"),
    [
        ([b"lumo"], 1, True),
        ([b"lumo", "grün".encode()], 2, True),
        ([b"lumo"], 2, False),
        ([b"lumo", b"mirk"], 1, False),
        ([b"\xff"], 1, False),
        ([b""], 1, False),
    ],
)
def test_binary_texts(values: list[bytes], count: int, fine: bool, serving: Callable[..., Client]) -> None:
    data = b"".join(struct.pack("<I", len(value)) + value for value in values)
    about = json.dumps(
        {
            "inputs": [
                {
                    "name": "text",
                    "shape": [count, 1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(data)},
                }
            ]
        }
    ).encode()
    client = serving()
    for header, rest in ((len(about), b""), (len(about), b"more"), (10**8, b""), (3, b"")):
        found = client.ask(
            "POST",
            "/v2/models/texts/infer",
            content=about + data + rest,
            headers={"Inference-Header-Content-Length": str(header)},
        )
        assert (found.status_code == 200) == (fine and header == len(about) and not rest), found.text
        assert found.status_code == 200 or 400 <= found.status_code < 500


def test_health_before_and_after_loading(text_run: Any) -> None:
    """S6: live at once, ready when the model is loaded."""
    from llmft.serving.app import create

    app = create(str(text_run))
    client = Client(app)
    before = [client.ask("GET", f"/v2/health/{what}").status_code for what in ("live", "ready")]
    assert before == [200, 503]
    asked = client.ask("POST", "/predict", json={"text": "lumo"})
    assert (asked.status_code, asked.headers["retry-after"]) == (503, "1")
    app.state.models.load_all()
    assert client.ask("GET", "/v2/health/ready").status_code == 200
    app.state.models.get("texts").batcher.close()
