"""`llmft chat http://...`: a server that answers what a test needs, and what is said where it does not answer."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmft.commands.remote import RemoteChat, Server

Run = Callable[..., tuple[int, str, str]]


class Service:
    """OpenAI's routes: each POST takes the next of `answers`, a list of events to stream or (status, body)."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.models = ["talk"]
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.keys.append(self.headers.get("Authorization"))
                if self.headers.get("Authorization") == "Bearer wrong":
                    return self.reply(401, json.dumps({"title": "Unauthorized", "detail": "the key is wrong"}))
                if self.path == "/moved/v1/models":
                    self.send_response(302)
                    self.send_header("Location", "/v1/models")
                    return self.end_headers()
                return self.reply(200, json.dumps({"data": [{"id": name} for name in service.models]}))

            def do_POST(self) -> None:
                service.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                answer = service.answers.pop(0)
                if isinstance(answer, tuple):
                    return self.reply(*answer)
                return self.reply(200, "".join(f"data: {event}\n\n" for event in answer), "text/event-stream")

            def reply(self, status: int, text: str, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def type_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def said(*parts: str, reason: str | None = "stop") -> list[str]:
    """The events of an answer."""
    events = [{"choices": [{"delta": {"content": part}, "finish_reason": None}]} for part in parts]
    events += [{"choices": [{"delta": {}, "finish_reason": reason}]}] * (reason is not None)
    return [json.dumps(event, ensure_ascii=False) for event in events] + ["[DONE]"] * (reason is not None)


def refused(status: int, message: str, code: str | None = None) -> tuple[int, str]:
    return status, json.dumps({"error": {"message": message, "code": code}})


def test_turns_go_to_the_server_with_what_was_set(
    llmft: Run, service: Service, type_lines: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMFT_API_KEY", "a key")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not for this machine itself
    service.answers = [said("Hé", "llo 😀"), said("x", reason="length")]
    type_lines("你好\nand?\n/history\n")
    words = ("chat.system=Be kind, 对.", "generation.max_new_tokens=7", "generation.temperature=0.5", "seed=3")
    code, out, err = llmft("chat", service.address + "/v1/", *words)
    assert (code, out) == (0, "Héllo 😀\nx\n"), err
    assert "(cut; generation.max_new_tokens says" in err
    assert "system: Be kind, 对.\nuser: 你好\nassistant: Héllo 😀\nuser: and?\nassistant: x\n" in err
    assert service.keys == ["Bearer a key"]
    system = {"role": "system", "content": "Be kind, 对."}
    turns = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "Héllo 😀"}]
    fields = {"model": "talk", "stream": True, "max_tokens": 7, "temperature": 0.5, "seed": 3}
    assert service.asked[0] == fields | {"messages": [system, turns[0]]}
    assert service.asked[1]["messages"] == [system, *turns, {"role": "user", "content": "and?"}]


def test_what_does_not_come_is_said_and_the_chat_goes_on(
    llmft: Run, service: Service, type_lines: Callable[[str], None]
) -> None:
    full = refused(429, "the queue is full")
    broken = [*said("half", reason=None), json.dumps({"error": {"message": "the model failed"}})]
    service.answers = [full, (502, "<html>"), broken, said("cut", reason=None), said("whole")]
    type_lines("a\nb\nc\nd\ne\n")
    code, out, err = llmft("chat", service.address, "generation.sample=false")
    assert (code, out) == (0, "half\ncut\nwhole\n")
    assert "error: the queue is full\nerror: the server answers 502\n (broken off: the model failed)\n" in err
    assert "(broken off: the server closed the connection)" in err
    assert [[turn["content"] for turn in asked["messages"]] for asked in service.asked[2:]] == [
        ["c"],
        ["c", "half", "d"],
        ["c", "half", "d", "cut", "e"],
    ], "messages without an answer are forgotten"
    assert {asked["temperature"] for asked in service.asked} == {0}


def test_the_oldest_turns_are_left_out_where_the_server_has_no_room(
    capsys: pytest.CaptureFixture[str], service: Service
) -> None:
    chat = RemoteChat(Server(service.address), "talk", {}, wanted="")
    turns = [{"role": role, "content": str(n)} for n in range(2) for role in ("user", "assistant")]
    chat.messages = list(turns)
    service.answers = [refused(400, "too long", "context_length_exceeded")] * 2 + [said("ok")]
    parts: list[str] = []
    chat.ask("b", parts.append)
    assert parts == ["ok", "", "\n"]
    empty = {"role": "system", "content": ""}
    asked = [asked["messages"] for asked in service.asked]
    assert asked[0] == [empty, *turns, {"role": "user", "content": "b"}]
    assert asked[2] == [empty, {"role": "user", "content": "b"}]
    assert "(2 of the oldest turns left out: the model has no room for them)" in capsys.readouterr().err


def test_a_server_that_cannot_be_used_is_said_in_a_sentence(
    llmft: Run, service: Service, type_lines: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines("")
    cases = [
        ((f"{service.address}/moved",), 1, "refuses to list its models: the server answers 302"),
        ((service.address, "model=other"), 2, "model  must be one of talk, got other (command line). Write model=talk."),
        ((service.address, "model.path=x"), 2, "model.path  cannot be set for a server; llmft chat ADDRESS accepts"),
        ((service.address, "generation.max_new_tokens=0"), 2, "generation.max_new_tokens  must be greater than or equal to 1, got '0'"),
        ((service.address, "seed=x"), 2, "seed  must be a whole number, got 'x'"),
        (("http://127.0.0.1:9",), 1, "failed: http://127.0.0.1:9 cannot be reached, or is not a server of models: Connection refused"),
        (("http://",), 1, "cannot be reached"),
    ]  # fmt: skip
    for words, status, what in cases:
        code, out, err = llmft("chat", *words)
        assert (code, out) == (status, ""), words
        assert what in err
    monkeypatch.setenv("LLMFT_API_KEY", "wrong")
    code, _, err = llmft("chat", service.address)
    assert (code, "the key is wrong. Set the environment variable LLMFT_API_KEY." in err) == (2, True)
    monkeypatch.delenv("LLMFT_API_KEY")
    service.models = ["a", "b"]
    code, _, err = llmft("chat", service.address)
    assert (code, "model  must be one of a, b" in err) == (2, True)
    service.models = []
    assert "has no model that writes texts" in llmft("chat", service.address)[2]
