"""Faults of clients, models, and disks: what a client gets, and that the service goes on."""

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmft.schema.problem import UserError
from tests.serving.conftest import Client

JSON = {"content-type": "application/json"}


@pytest.fixture
def listening(serving: Callable[..., Client]) -> Iterator[Callable[..., tuple[str, int]]]:
    """Start a server in a thread as `llmft serve` does; returns its address."""
    import uvicorn

    from llmft.serving.connections import Connection

    running = []

    def start(seconds: float = 0.5, app: Any = None, **keys: Any) -> tuple[str, int]:
        app = app or serving(read_timeout_s=seconds, **keys).app
        kind = type("Limited", (Connection,), {"seconds": seconds})
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, log_level="critical", lifespan="off", http=kind, timeout_keep_alive=1)
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return server.servers[0].sockets[0].getsockname()

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


def closed_after(connection: socket.socket, most: float = 5.0) -> float:
    """Seconds until the server closes a connection; what it sends before is dropped."""
    connection.settimeout(most)
    start = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return time.monotonic() - start


def request(body: bytes, *headers: str, path: str = "/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def slow(client: Client, seconds: float) -> None:
    """Make the model of an application slow."""
    batcher = client.app.state.models.get("texts").batcher
    run = batcher.run

    def wait(features: list[Any]) -> list[Any]:
        time.sleep(seconds)
        return list(run(features))

    batcher.run = wait


def test_s1_a_body_that_is_too_large(serving: Callable[..., Client], listening: Callable[..., tuple[str, int]]) -> None:
    """By its length before it is sent, and in chunks as it comes."""
    client = serving(max_body=1000)
    found = client.ask("POST", "/predict", content=b"x" * 1001, headers=JSON)
    assert (found.status_code, found.headers["content-type"]) == (413, "application/problem+json")
    address = listening(5, app=client.app)
    with socket.create_connection(address) as connection:
        connection.sendall(request(b"", "Transfer-Encoding: chunked"))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 2000:  # the answer comes before the end of the body
                connection.sendall(b"64\r\n" + b"x" * 100 + b"\r\n")
                sent += 100
            connection.settimeout(5)
            assert b" 413 " in connection.recv(65536)
    with socket.create_connection(address) as connection:  # a length alone, without a body
        connection.sendall(request(b"", "Content-Length: 1000000000000"))
        connection.settimeout(5)
        assert b" 413 " in connection.recv(65536)


def test_s2_a_flood_of_ten_times_the_queue(serving: Callable[..., Client]) -> None:
    client = serving(queue=8)
    slow(client, 0.02)
    found = client.together(*[("POST", "/predict", {"json": {"text": f"lumo {n}"}}) for n in range(80)])
    codes = [each.status_code for each in found]
    assert set(codes) == {200, 429}
    assert codes.count(200) >= 8
    assert all(each.json()["answers"][0]["answer"] in ("good", "bad") for each in found if each.status_code == 200)
    refused = [each for each in found if each.status_code == 429]
    assert all(each.headers["retry-after"].isdecimal() and int(each.headers["retry-after"]) >= 1 for each in refused)
    assert client.app.state.models.depth() == 0
    assert client.predict(text="lumo")["answers"]


def test_s3_a_client_that_sends_a_byte_a_second(listening: Callable[..., tuple[str, int]]) -> None:
    """Headers and bodies alike; others are answered meanwhile."""
    address = listening(0.4)
    with socket.create_connection(address) as headers, socket.create_connection(address) as body:
        body.sendall(request(b'{"te', "Content-Length: 100"))
        ended = set()
        for byte in b"POST /predict HTTP/1.1":
            for connection in (headers, body):
                with contextlib.suppress(OSError):
                    connection.sendall(bytes([byte]))
            time.sleep(0.1)
            for name, connection in (("headers", headers), ("body", body)):
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    if name == "body" or connection.recv(1, socket.MSG_PEEK) == b"":
                        found = connection.recv(4096)
                        assert name == "headers" or b" 408 " in found
                        ended.add(name)
                connection.setblocking(True)
            if len(ended) == 2:
                break
            with socket.create_connection(address) as other:
                other.sendall(request(b'{"text":"lumo"}', "Content-Length: 15"))
                assert b" 200 " in other.recv(65536)
        assert ended == {"headers", "body"}


def test_a_body_that_never_ends(listening: Callable[..., tuple[str, int]]) -> None:
    address = listening(0.3, max_body=10**7)
    with socket.create_connection(address) as connection:
        connection.sendall(request(b"", "Transfer-Encoding: chunked"))
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start < 5:
                connection.sendall(b"1\r\nx\r\n")
                time.sleep(0.02)
        assert time.monotonic() - start < 3


def test_a_hundred_connections_that_say_nothing(listening: Callable[..., tuple[str, int]]) -> None:
    """They are closed, with a header that never ends too, and a request beside them is answered."""
    address = listening(0.4)
    silent = [socket.create_connection(address) for _ in range(100)]
    silent[0].sendall(b"GET / HTTP/1.1\r\nX: ")
    with contextlib.suppress(OSError):
        silent[0].sendall(b"x" * 200_000)
    with socket.create_connection(address) as other:
        other.sendall(request(b'{"text":"lumo"}', "Content-Length: 15"))
        assert b" 200 " in other.recv(65536)
        assert closed_after(other) < 4  # and kept alive for a second alone
    assert max(closed_after(connection) for connection in silent) < 3
    for connection in silent:
        connection.close()


def test_s3_the_work_of_a_client_that_left_is_dropped(
    serving: Callable[..., Client], listening: Callable[..., tuple[str, int]]
) -> None:
    client = serving(workers=1)
    batcher = client.app.state.models.get("texts").batcher
    run, seen, gate = batcher.run, [], threading.Event()

    def gated(features: list[Any]) -> list[Any]:
        seen.append(len(features))
        gate.wait(10)
        return list(run(features))

    batcher.run = gated
    address = listening(5, app=client.app)
    first = socket.create_connection(address)
    first.sendall(request(b'{"text":"lumo"}', "Content-Length: 15"))
    while not seen:
        time.sleep(0.01)
    second = socket.create_connection(address)
    second.sendall(request(b'{"text":"mirk"}', "Content-Length: 15"))
    while client.app.state.models.depth() < 2:
        time.sleep(0.01)
    second.close()
    while client.app.state.models.depth() > 1:
        time.sleep(0.01)
    gate.set()
    assert b" 200 " in first.recv(65536)
    assert client.predict(text="shine")["answers"]
    assert seen == [1, 1]  # of the first and the last
    first.close()


def test_the_explanation_for_a_client_that_left_is_dropped(
    serving: Callable[..., Client], listening: Callable[..., tuple[str, int]]
) -> None:
    client = serving(workers=1)
    batcher = client.app.state.models.get("texts").batcher
    run, seen, gate = batcher.run, [], threading.Event()

    def gated(features: list[Any]) -> list[Any]:
        seen.append(len(features))
        if len(features) > 1:
            gate.wait(10)
        return list(run(features))

    batcher.run = gated
    body = json.dumps({"text": "lumo " * 20, "explain": True}).encode()
    with socket.create_connection(listening(5, app=client.app)) as connection:
        connection.sendall(request(body, f"Content-Length: {len(body)}"))
        while len(seen) < 2:
            time.sleep(0.01)
    while client.app.state.models.depth():
        time.sleep(0.01)
    gate.set()
    assert client.predict(text="shine")["answers"]
    assert seen == [1, 8, 1]  # 13 of the 21 texts with a hidden word were not computed


def test_a_path_with_a_slash_at_its_end_is_another_path(serving: Callable[..., Client]) -> None:
    """Not a redirection without a body, which clients of POST do not follow."""
    found = serving().ask("POST", "/predict/texts/", json={"text": "lumo"})
    assert (found.status_code, "there is no such path; /docs lists all" in found.text) == (404, True)


def test_rows_of_explanations_count_in_the_queue(serving: Callable[..., Client]) -> None:
    """32 long rows would be 3,200 questions: refused with what fits, before anything runs."""
    client = serving(queue=50)
    models = client.app.state.models
    seen, admit = [], models.admission.admit
    models.admission.admit = lambda rows: (seen.append(rows), admit(rows))
    long = "lumo " * 200
    found = client.ask("POST", "/predict", json={"texts": [long] * 4, "explain": True})
    assert found.status_code == 422
    said = "explaining 4 rows takes up to 400 more of them, and the queue holds 50; send at most 1 row of this size"
    assert found.json()["detail"].startswith(said)
    assert seen == []
    assert client.predict(texts=["lumo mirk", "tavo"], explain=True)["answers"][0]["explanation"]["parts"]
    assert client.predict(text=long, explain=True)["answers"][0]["explanation"]["method"] == "integrated gradients"
    assert client.predict(texts=[long] * 4)["answers"]
    assert seen == [2 + 3 + 2, 1 + 100, 4]
    assert models.depth() == 0


@pytest.mark.parametrize("column", ["image", "photo.data", "a.b.c"])
def test_a_nested_image_is_checked_by_its_header(column: str) -> None:
    from llmft import tasks
    from llmft.config.load import load
    from llmft.serving.bodies import Reader
    from llmft.serving.http import Refused

    config = load("finetune", ["+recipe=cifar_resnet", "smoke=true", f"dataset.columns.image={column}"])
    limits = config.serve.model_copy(update={"max_pixels": 99, "max_text": 50})
    reader = Reader(tasks.build(config.task), config.dataset, limits)
    head = b"P5 10 %d 255 "
    sent: Any = {}
    for size, error in ((9, None), (10, "at most 99 pixels"), (0, "not an image")):
        sent = base64.b64encode(head % size + bytes(10 * size)).decode()
        for part in reversed(column.split(".")):
            sent = {part: sent, "other": 1}
        if error is None:
            (row,) = reader.rows({"row": sent})
            assert row.values[column]["bytes"].startswith(b"P5")
        else:
            with pytest.raises(Refused, match=error):
                reader.rows({"row": sent})


GARBAGE = [
    b"", b"{", b"[]", b"null", b"7", b'"text"', b"{}", b'{"text": NaN}', b'{"text": 1e999}', b'{"text": "\\ud800"}',
    b'{"text": ' + b"1" * 5000 + b"}", b'{"text": "\xff"}', b"[" * 100_000, b'{"a":' * 2000, b'{"text": ["a"]}', b'{"text": {"a": 1}}',
    b'{"text": true}', b'{"text": ""}', b'{"text": " \\n"}', b'{"text": "x", "texts": ["x"]}', b'{"text": "x", "more": 1}',
    b'{"texts": []}', b'{"texts": "x"}', b'{"texts": [1]}', b'{"rows": {}}', b'{"rows": [null]}', b'{"rows": [[]]}', b'{"rows": [{}]}',
    b'{"rows": [{"other": "x"}]}', b'{"row": {"text": null}}', b'{"row": {"text": 1.5}}', b'{"text": "x", "explain": 1}',
    b'{"text": "x", "model": "other"}', b'{"text": "x", "model": 7}', b'{"row": {"text": "x", "text_pair": ["y"]}}',
    b'{"row": {"text": "x", "text_pair": "y"}}', "{\"text\": \"lumo\"}".encode("utf-16"), b"\x00" * 100, b'{"rows": [' + b'{"text":"x"},' * 40 + b'{"text":"x"}]}',
    b'{"row": {"text": "' + b"x" * 30_000 + b'"}}', b'{"row": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
]  # fmt: skip


def test_s4_garbage_is_refused_with_a_path_and_not_repeated(serving: Callable[..., Client]) -> None:
    client = serving()
    for found, body in zip(
        client.together(*[("POST", "/predict", {"content": body, "headers": JSON}) for body in GARBAGE]),
        GARBAGE,
        strict=True,
    ):
        assert 400 <= found.status_code < 500, (body[:60], found.text)
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["status"] == found.status_code
        assert "Traceback" not in found.text
        assert len(found.content) < 2000
    paths = {
        '{"rows": [{"text": "x"}, {"text": 5}]}': "rows.1.text",
        '{"texts": ["x", 5]}': "texts.1",
        '{"row": {"text": 5}}': "row.text",
        '{"text": "x", "explain": "yes"}': "explain",
    }
    for body, path in paths.items():
        found = client.ask("POST", "/predict", content=body.encode(), headers=JSON)
        assert found.json()["errors"][0]["path"] == path
    secret = "tavo-1234567"
    for body in (
        {"row": {"text": [secret]}},
        {"row": {"text": {"a": secret}}},
        {secret: 1},
        {"row": {"text": " ", "n": secret}},
    ):
        assert secret not in client.ask("POST", "/predict", json=body).text.replace(f"{secret}: is not known", "")
    assert client.predict(text="lumo")["answers"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"rows": [{"other": "lumo"}]}, "rows.0.text: is missing"),
        ({"row": {"text": 7}}, "row.text: must be a text"),
        ({"text": "lumo", "texts": ["mirk"]}, "the body must have exactly one of rows, row, text, texts"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(body: Any, detail: str, serving: Callable[..., Client]) -> None:
    found = serving().ask("POST", "/predict", json=body)
    assert found.status_code == 422
    assert found.json()["detail"].startswith(detail)


def test_a_path_that_is_not_there_and_a_method(serving: Callable[..., Client]) -> None:
    client = serving()
    assert client.ask("GET", "/predictions").json()["detail"] == "there is no such path; /docs lists all"
    assert client.ask("GET", "/predict").json()["detail"] == "GET does not fit this path"
    assert client.ask("HEAD", "/").status_code == 200


def test_a_bad_row_among_good_ones_fails_alone(serving: Callable[..., Client]) -> None:
    client = serving()
    answers = client.predict(rows=[{"text": "lumo"}, {"text": " "}, {"text": "mirk"}])["answers"]
    assert answers[1] == {"error": "has an empty text"}
    assert [answers[0], answers[2]] == client.predict(texts=["lumo", "mirk"])["answers"]


def test_s5_alone_and_in_company(serving: Callable[..., Client]) -> None:
    client = serving()
    texts = [" ".join(["lumo", "mirk", "tavo"] * n) for n in range(1, 9)]
    alone = [client.predict(text=text)["answers"][0] for text in texts]
    together = client.predict(texts=texts)["answers"]
    for one, other in zip(alone, together, strict=True):
        assert one["answer"] == other["answer"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)


def test_a_model_that_takes_ten_seconds(serving: Callable[..., Client]) -> None:
    """The client gets 504 in time, and its place in the queue is free again."""
    client = serving(timeout_s=0.3)
    gate = threading.Event()
    batcher = client.app.state.models.get("texts").batcher
    run = batcher.run
    batcher.run = lambda features: (gate.wait(10), run(features))[1]
    start = time.monotonic()
    found = client.ask("POST", "/predict", json={"text": "lumo"})
    assert found.status_code == 504
    assert time.monotonic() - start < 3
    assert client.app.state.models.depth() == 0
    gate.set()
    batcher.run = run
    assert client.ask("POST", "/predict", json={"text": "lumo"}).status_code == 200


def test_a_model_that_fails_says_nothing_of_its_code(
    serving: Callable[..., Client], capfd: pytest.CaptureFixture[str]
) -> None:
    client = serving()
    batcher = client.app.state.models.get("texts").batcher
    run = batcher.run

    def fail(features: list[Any]) -> list[Any]:
        if len(features) > 1 or features[0]["length"] == 5:
            raise RuntimeError("secret weights")
        return list(run(features))

    batcher.run = fail
    found = client.together(
        *[("POST", "/predict", {"json": {"text": text}}) for text in ("lumo", "lumo mirk tavo", "mirk")]
    )
    assert [each.status_code for each in found] == [200, 500, 200]  # one bad row fails alone
    assert "secret" not in found[1].text
    assert "Traceback" not in found[1].text
    assert "secret weights" in capfd.readouterr().err


@pytest.mark.parametrize("given", [None, "", "wrong", "key-é", "Bearer"])
def test_s9_a_key(given: str | None, serving: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFT_API_KEY", "right-key")
    client = serving()
    headers = {} if given is None else {"authorization": f"Bearer {given}".encode()}
    for method, path in (
        ("POST", "/predict"),
        ("GET", "/info"),
        ("GET", "/v2"),
        ("GET", "/openapi.json"),
        ("POST", "/v2/repository/models/texts/load"),
        ("GET", "/v1/models"),
        ("GET", "/none"),
    ):
        found = client.ask(method, path, headers=headers)
        assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
        assert ("error" in found.json()) == path.startswith(("/v1/", "/v2")), path
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert client.ask("GET", path, headers=headers).status_code == 200
    for good in ({"authorization": "Bearer right-key"}, {"x-api-key": "right-key"}):
        assert client.ask("POST", "/predict", json={"text": "lumo"}, headers=good).status_code == 200


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines", "\x00"])
def test_a_key_that_no_header_can_have(key: str, text_run: Path, here: Path) -> None:
    """A browser sends `ü` as another byte than curl does."""
    from llmft.serving.app import create

    (here / "key").write_text(key, encoding="utf-8")
    with pytest.raises(UserError, match="one line of ASCII"):
        create(str(text_run), key_file=str(here / "key"))


def test_beyond_this_machine_there_must_be_a_key(
    text_run: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmft.serving.app import create

    monkeypatch.delenv("LLMFT_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.com"):
        with pytest.raises(UserError, match="must be a loopback address without a key"):
            create(str(text_run), host=host)
    with pytest.raises(UserError, match="must hold a key"):
        create(str(text_run), host="0.0.0.0", key_file=str(write("empty", " \n")))
    with pytest.raises(UserError, match="cannot be read"):
        create(str(text_run), key_file="absent")
    assert create(str(text_run), host="0.0.0.0", key_file=str(write("key", "abc\n"))).state.key == b"abc"


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({}, True),
        ({"host": "127.0.0.1:8000"}, True),
        ({"host": "[::1]:8000"}, True),
        ({"host": "LOCALHOST"}, True),
        ({"host": "rebound.example.com"}, False),
        ({"host": "localhost.example.com"}, False),
        ({"host": "[::1"}, False),
        ({"host": ""}, False),
        ({"origin": "http://localhost"}, True),
        ({"origin": "http://example.com"}, False),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
        ({"content-type": "text/plain"}, False),
        ({"content-type": ""}, False),
        ({"content-encoding": "gzip"}, False),
    ],
)  # fmt: skip
def test_pages_of_other_sites_cannot_ask(headers: dict[str, str], fine: bool, serving: Callable[..., Client]) -> None:
    found = serving().ask("POST", "/predict", content=b'{"text": "lumo"}', headers=JSON | headers)
    assert found.status_code == 200 if fine else found.status_code in (403, 415)
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"].startswith("default-src 'none'")


def newer(run: Path, folder: Path) -> Path:
    """A copy of a run in a folder of runs, whose weights can be changed."""
    shutil.copytree(run, folder)
    return folder


def test_s8_a_bad_version_changes_nothing(
    serving: Callable[..., Client], text_run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changed weights, a missing file, a broken config; the folder that is gone; and each is counted."""
    run = newer(text_run, here / "run")
    client = serving(run)
    watch, failed = client.app.state.watch, []
    watch.load_failed = failed.append
    before = client.predict(text="lumo mirk")
    weights = run / "model/model.safetensors"
    data = weights.read_bytes()
    load = ("POST", "/v2/repository/models/texts/load", {})
    for spoil in (
        lambda: weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1])),
        lambda: weights.write_bytes(data[: len(data) // 2]),
        weights.unlink,
        lambda: (run / "model/task.json").write_text("{"),
        lambda: (run / "config.yaml").write_text("a: ["),
        lambda: shutil.rmtree(run),
    ):
        spoil()
        found = client.together(load)[0]
        assert (found.status_code, "stays as it is" in found.text) == (409, True), found.text
        assert str(run) not in found.text
        reason = capsys.readouterr().err
        assert reason.startswith("note: texts stays as it is: "), reason
        assert str(run) in reason and "this configuration" not in reason and "command line" not in reason, reason
        assert client.predict(text="lumo mirk")["answers"] == before["answers"]
    assert failed == ["texts"] * 6


def test_a_reload_while_requests_are_in_flight(serving: Callable[..., Client], text_run: Path, here: Path) -> None:
    """None is lost; the threads of the old version end, and the new one answers."""
    run = newer(text_run, here / "run")
    client = serving(run)
    models = client.app.state.models
    old = models.get("texts")
    slow(client, 0.05)
    facts = json.loads((run / "model/task.json").read_text())
    (run / "model/task.json").write_text(json.dumps(facts) + "\n\n")  # another version
    asked = [("POST", "/predict", {"json": {"text": f"lumo {n}"}}) for n in range(40)]
    found = client.together(*asked[:20], ("POST", "/v2/repository/models/texts/load", {}), *asked[20:])
    assert {each.status_code for each in found} == {200}
    assert models.get("texts") is not old
    assert client.predict(text="lumo")["version"] == models.get("texts").version != old.version
    for thread in old.batcher._threads:
        thread.join(5)
        assert not thread.is_alive()


def test_the_run_folder_is_not_written_and_may_go(serving: Callable[..., Client], text_run: Path, here: Path) -> None:
    run = newer(text_run, here / "run")
    client = serving(run)
    before = client.predict(texts=["lumo", "mirk"])
    files = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    assert client.predict(texts=["lumo", "mirk"])["answers"] == before["answers"]
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == files
    shutil.rmtree(run)
    assert client.predict(texts=["lumo", "mirk"])["answers"] == before["answers"]
    assert client.ask("GET", "/info").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/predict/..%2F..%2Fetc%2Fpasswd",
        "/predict/te%00xts",
        "/v2/models/..%2Ftexts/infer",
        "/v2/models/%2Fetc%2Fpasswd/ready",
        "/v2/repository/models/..%2Ftexts/load",
        "/page/..%2Fapp.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
    ],
)
def test_x4_a_name_is_no_path(path: str, serving: Callable[..., Client]) -> None:
    client = serving()
    for method in ("GET", "POST"):
        assert client.ask(method, path, json={"text": "lumo"}).status_code in (404, 405)


def test_x5_the_key_is_written_nowhere(
    serving: Callable[..., Client],
    text_run: Path,
    write: Callable[..., Path],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LLMFT_API_KEY", raising=False)
    client = serving(key_file=str(write("key", "canary-5e7b\n")), feedback=str(here / "feedback.jsonl"))
    right = {"authorization": "Bearer canary-5e7b"}
    asked = client.ask("POST", "/predict", json={"text": "lumo"}, headers=right)
    body = {"id": asked.json()["ids"][0], "label": asked.json()["answers"][0]["answer"]}
    assert client.ask("POST", "/feedback", json=body, headers=right).status_code == 200
    said = [
        client.ask("GET", path, headers=right).text for path in ("/info", "/metrics", "/stats", "/openapi.json", "/")
    ]
    said += [client.ask("POST", "/predict", content=b"{", headers=JSON | right).text, asked.text, *capfd.readouterr()]
    files = [file for folder in (text_run, here) for file in folder.rglob("*") if file.is_file() and file.name != "key"]
    assert here / "feedback.jsonl" in files
    assert not [
        each for each in [*(text.encode() for text in said), *(f.read_bytes() for f in files)] if b"canary" in each
    ]


def test_a_version_stays_until_the_requests_that_it_has_are_answered(
    serving: Callable[..., Client], text_run: Path
) -> None:
    """A version is replaced while a body arrives: nothing waits for threads that have ended."""
    client = serving()
    models = client.app.state.models
    before = models.get("texts")
    body = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["lumo"]}]}).encode()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if models.get("texts") is before:
            await asyncio.to_thread(models.load, "texts")
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.sleep(60)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v2/models/texts/infer", "raw_path": b"", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "http_version": "1.1",
        "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(client.app(scope, receive, send), 20))
    assert sent[0]["status"] == 200
    assert json.loads(sent[1]["body"])["model_version"] == before.version
    assert models.get("texts") is not before
    assert before.retired
    assert before.users == 0
    for thread in before.batcher._threads:
        thread.join(5)
        assert not thread.is_alive()
    assert client.predict(text="lumo")["answers"]


def test_a_request_between_two_versions_takes_the_newer(serving: Callable[..., Client]) -> None:
    """Another thread replaces the version after it was looked up, and before the request is counted in."""
    models = serving().app.state.models
    before, looked = models.get("texts"), []

    def get(name: str) -> Any:
        found = type(models).get(models, name)
        if not looked:
            looked.append(name)
            models.load(name)
        return found

    models.get = get
    held = models.hold("texts")
    assert held is not before
    assert held.users == 1
    assert not before.batcher._waiting
    held.release()


def test_an_export_is_hashed_once(text_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of several GB takes seconds each time."""
    from llmft.data import committed, files
    from llmft.serving import models
    from llmft.serving.app import create

    hashed: list[str] = []

    def digest(file: Path) -> str:
        hashed.append(file.name)
        return str(files.digest(file))

    for module in (committed, models):
        monkeypatch.setattr(module, "digest", digest)
    app = create(str(text_export))
    app.state.models.load_all()
    app.state.models.get("texts").batcher.close()
    assert hashed.count("model.onnx") == 1
    assert len(hashed) == len(set(hashed))


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (
            "this row has no column 'text'; it has 'other'. Write dataset.columns.text=COLUMN.",
            "the row has no column 'text'; it has 'other'. The model reads 'text', 'age'",
        ),
        ("age is 'x', not a number (this row)", "age is …, not a number"),
        ("has no entity <e1>. Mark both, as in <e1>a</e1>.", "has no entity <e1>. Mark both, as in <e1>a</e1>"),
    ],
)
def test_reasons_say_what_a_client_can_do(why: str, said: str) -> None:
    from llmft.predictions.inputs import Row
    from llmft.serving.bodies import InputColumn, told

    columns = [InputColumn("text", "text", "text", True), InputColumn("age", "features", "number", False)]
    assert told(why, Row("rows.0", {"age": "x"}), columns) == said
