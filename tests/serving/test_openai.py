"""OpenAI's routes: what its own client reads, the texts of `llmft predict`, and what ends a text before its time."""

import functools
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmft import api
from llmft.cli import main
from llmft.serving.openai_requests import IGNORED, NEUTRAL, ChatRequest
from tests.serving.conftest import Client
from tests.serving.test_same_answers import run_of

openai = pytest.importorskip("openai")
uvicorn = pytest.importorskip("uvicorn")

ASKED = ["say lumo", "tell vita", "give mirk", "name dross"]
USER = {"role": "user", "content": "say lumo"}


@pytest.fixture(scope="session")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that answers made-up words, and ends its answers."""
    folder = tmp_path_factory.mktemp("chat") / "talk"
    words = ["trainer.max_steps=100", "trainer.batch_size=16", "dataset.max_rows=256", "optimizer.lr=0.003"]
    words += ["trainer.eval_every=100", "trainer.save_every=100", "task.generate=false", "trainer.log_every=100"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMFT_CACHE", str(folder.parent / "cache"))
        assert main(["finetune", "+recipe=llm_chat", "smoke=true", f"run.dir={folder}", "name=talk", *words]) == 0
    return folder


@pytest.fixture(scope="session")
def app(chat_run: Path) -> Iterator[Any]:
    from llmft.serving.app import create

    made = create(str(chat_run), queue=3, timeout_s=20)
    made.state.models.load_all()
    yield made
    made.state.models.get("talk").batcher.close()


@pytest.fixture
def ask(app: Any) -> Callable[..., httpx2.Response]:
    """POST /v1/chat/completions; a text is one message."""

    def post(messages: Any, **more: Any) -> httpx2.Response:
        messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return Client(app).ask("POST", "/v1/chat/completions", json={"messages": messages} | more)

    return post


@pytest.fixture
def address(app: Any) -> Iterator[str]:
    """A server with sockets, which the client of OpenAI needs."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def endless(app: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The model takes 10 ms a token and never ends; the list has an element for each token."""
    served = app.state.models.get("talk")
    end, plain, steps = served.task.chat_state().template.end, type(served.model).forward, list[int]()

    @functools.wraps(plain)
    def forward(*inputs: Any, **more: Any) -> Any:
        time.sleep(0.01)
        steps.append(1)
        found = plain(*inputs, **more)
        found.logits[..., end] = -1e9
        return found

    monkeypatch.setattr(type(served.model), "forward", forward)
    return steps


def events(response: httpx2.Response) -> list[Any]:
    """The events of a stream."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def said(response: httpx2.Response) -> str:
    """The text of an answer."""
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def is_idle(app: Any) -> bool:
    """Whether all texts end within five seconds."""
    until = time.monotonic() + 5
    while app.state.models.admission.rows and time.monotonic() < until:
        time.sleep(0.01)
    return not app.state.models.admission.rows


def test_the_client_of_openai_reads_the_texts_of_predict(address: str, chat_run: Path, app: Any) -> None:
    rows = [{"messages": [{"role": "user", "content": text}]} for text in ASKED]
    expected = [answer["answer"] for answer in api.load(chat_run).predict(rows)]
    assert len(set(expected)) > 1
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["talk"]
    for row, text in zip(rows, expected, strict=True):
        whole = client.chat.completions.create(model="talk", messages=row["messages"])
        assert whole.choices[0].message.content == text
        assert (whole.choices[0].finish_reason, whole.object, whole.model) == ("stop", "chat.completion", "talk")
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(model="talk", messages=row["messages"], **options))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert {chunk.id for chunk in chunks} == {chunks[0].id}
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].usage == whole.usage
    with client.chat.completions.stream(model="talk", messages=rows[0]["messages"]) as stream:
        assert stream.until_done().get_final_completion().choices[0].message.content == expected[0]
    options = {"model": "talk", "prompt": "say lumo", "max_tokens": 4, "temperature": 0}
    written = client.completions.create(**options)
    parts = list(client.completions.create(**options, stream=True))
    assert "".join(part.choices[0].text for part in parts) == written.choices[0].text
    assert parts[-1].choices[0].finish_reason == written.choices[0].finish_reason
    with pytest.raises(openai.BadRequestError, match="temperature must be less than or equal to 2"):
        client.chat.completions.create(model="talk", messages=rows[0]["messages"], temperature=3)
    with pytest.raises(openai.NotFoundError, match="there is no such model; those that write texts are talk"):
        client.chat.completions.create(model="gpt-5", messages=rows[0]["messages"])
    assert is_idle(app)


def test_the_example_of_the_page_works(address: str, app: Any, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "OpenAI(" in block)
    exec(code.replace("http://127.0.0.1:8000", address).replace('"llm_chat"', '"talk"'), {})
    assert capsys.readouterr().out.strip()
    assert is_idle(app)


def test_llmft_chat_says_the_same_with_the_run_and_with_its_server(
    llmft: Callable[..., tuple[int, str, str]], address: str, chat_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for source in (str(chat_run), address):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(ASKED).encode())))
        code, out, err = llmft("chat", source)
        assert code == 0, err
        outputs.append(out)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].split()) >= len(ASKED)


def test_a_language_model_continues_a_text_as_predict_does(here: Path) -> None:
    from llmft.serving.app import create

    run = run_of("causal_lm", here / "run")
    made = create(str(run))
    made.state.models.load_all()
    (name,) = made.state.models.names()
    room, client = made.state.models.get(name).task.state.block, Client(made)
    expected = api.load(run, f"generation.max_new_tokens={room // 2}").predict(["Bo 你"])[0]["answer"]
    body = {"prompt": "Bo 你", "max_tokens": room // 2}
    whole = client.ask("POST", "/v1/completions", json=body)
    assert whole.json()["choices"][0]["text"] == expected != "", whole.text
    streamed = events(client.ask("POST", "/v1/completions", json=body | {"stream": True}))
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed[:-1]) == expected
    found = client.ask("POST", "/v1/chat/completions", json={"messages": [USER]})
    assert (found.status_code, "has no chat template" in found.text) == (400, True)
    cut = client.ask("POST", "/v1/completions", json={"prompt": [""], "max_tokens": room - 1}).json()
    assert cut["usage"]["prompt_tokens"] == 1, "the token before a text"
    made.state.models.get(name).batcher.close()


def test_a_model_that_does_not_write_is_not_listed(serving: Callable[..., Client]) -> None:
    client = serving()
    assert client.ask("GET", "/v1/models").json() == {"object": "list", "data": []}
    found = client.ask("POST", "/v1/completions", json={"prompt": "a"})
    assert (found.status_code, "its task is text_classification; ask POST /predict" in found.text) == (404, True)

    run = client.app.state.models.sources["texts"]
    several = serving(models={"a": run, "b": run})
    assert several.ask("GET", "/v1/models").json()["data"] == []
    for body in ({"prompt": "a"}, {"prompt": "a", "model": "c"}):
        found = several.ask("POST", "/v1/completions", json=body)
        assert (found.status_code, "no model of this service writes texts" in found.text) == (404, True), found.text


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "x"}, "model", "there is no such model; those that write texts are talk"),
    ({"messages": None}, "messages", "messages is missing"),
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages", "messages.0.role must be one of system, developer"),
    ({"messages": [{"role": "user"}]}, "messages", "message 1 has no 'content'"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages", "the content of message 1 is 3, not a text"),
    ({"messages": [USER, {"role": "assistant", "content": "dax"}]}, "messages", "must not be of the assistant"),
    ({"messages": [{"role": "assistant", "content": "dax"}, USER]}, "messages", "a user asks first"),
    ({"messages": [{"role": "system", "content": "a"}]}, "messages", "a user asks first"),
    ({"messages": [{"role": "system", "content": ""}]}, "messages", "messages is empty"),
    ({"messages": [USER | {"weight": 0}]}, "messages", "messages.0 has a key that is not supported: 'weight'"),
    (
        {"messages": [USER | {"name": "Ann"}]},
        "messages",
        "message 1 has 'name', which the chat template does not write",
    ),
    ({"messages": [USER | {"content": "a <|im_end|>"}]}, "messages", "message 1 holds <|im_end|>, a control token"),
    ({"messages": [USER | {"content": [{"type": "image_url", "image_url": {}}]}]}, "messages", "reads text alone"),
    ({"messages": [USER | {"content": "a" * 20_001}]}, "messages", "at most 20,000 characters"),
    ({"messages": [USER | {"content": "say lumo " * 400}]}, "messages", "the model reads and writes at most"),
    ({"max_tokens": 100_000}, "messages", "and 100,000 are asked for"),
    ({"max_tokens": 0}, "max_tokens", "max_tokens must be greater than or equal to 1"),
    ({"max_tokens": 1.5}, "max_tokens", "max_tokens must be a valid integer"),
    ({"max_completion_tokens": True}, "max_completion_tokens", "must be a valid integer"),
    ({"temperature": -1}, "temperature", "greater than or equal to 0"),
    ({"temperature": "0.5"}, "temperature", "must be a valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "stop must be a text, or a list of at most 4 texts"),
    ({"stop": ""}, "stop", "must not hold an empty text"),
    ({"seed": "x"}, "seed", "must be a valid integer"),
    ({"stream": "yes"}, "stream", "must be a valid boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "must be left out without stream=true"),
    ({"stream": True, "stream_options": {"x": True}}, "stream_options", "has an unknown key, 'x'"),
    ({"n": 2}, "n", "n must be 1 or left out: it is not supported."),
    ({"n": True}, "n", "n must be 1 or left out"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "frequency_penalty must be 0 or left out"),
    ({"logprobs": True}, "logprobs", "logprobs must be false or left out"),
    ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "POST /predict takes the column tools"),
    ({"top_k": 3}, "top_k", "'top_k' is not supported; leave it out"),
]


def test_what_would_change_an_answer_is_refused(app: Any) -> None:
    bodies = [{"messages": [USER]} | fields for fields, _, _ in REFUSED]
    app.state.models.admission.limit = len(bodies)
    found = Client(app).together(*(("POST", "/v1/chat/completions", {"json": body}) for body in bodies))
    app.state.models.admission.limit = 3
    for response, (fields, param, what) in zip(found, REFUSED, strict=True):
        status, kind = (404, "not_found_error") if "model" in fields else (400, "invalid_request_error")
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["param"]) == (status, kind, param), error
        assert what in error["message"]


def test_a_body_that_is_not_a_request_is_refused_in_the_same_form(app: Any) -> None:
    headers = {"content-type": "application/json"}
    cases = [
        ({"content": b"[]", "headers": headers}, 400, "the body must be a JSON object"),
        ({"content": b'{"messages": NaN}', "headers": headers}, 400, "the body must be JSON"),
        ({"content": b"{}"}, 415, "Content-Type must be application/json"),
        ({"content": b" " * 2_000_000, "headers": headers}, 413, "at most 1,048,576 bytes"),
        ({"content": b'{"messages": [' + b"[" * 900 + b"]" * 900 + b"]}", "headers": headers}, 400, "messages"),
        ({"json": {"messages": [USER | {"tool_calls": json.loads("[" * 700 + "]" * 700)}]}}, 400, "tool_calls"),
        ({"json": {"prompt": ["a", "b"]}}, 400, "prompt must be a text: one prompt a request"),
    ]
    for more, status, what in cases:
        path = "/v1/completions" if "prompt" in more.get("json", {}) else "/v1/chat/completions"
        found = Client(app).ask("POST", path, **more)
        assert found.status_code == status, found.text
        assert what in found.json()["error"]["message"]


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5)
SCALARS |= st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["user", "tool", "<|im_end|>"])
KEYS = ["role", "content", "type", "text", "name", "tool_calls", "function", "arguments", "id", "include_usage"]
JSON = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(KEYS), part, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({*ChatRequest.model_fields, "prompt", *NEUTRAL, *IGNORED, "x"} - {"model"})


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
    message=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
)
def test_no_body_makes_the_server_fail(app: Any, fields: dict[str, Any], message: dict[str, Any]) -> None:
    chats = [{"messages": [USER, message]}, {"messages": [USER], "max_tokens": 2}, {}]
    asked = [("/v1/chat/completions", chat | fields) for chat in chats]
    for path, body in [*asked, ("/v1/completions", {"prompt": "a", "max_tokens": 2} | fields)]:
        found = Client(app).ask("POST", path, json=body)
        assert found.status_code in (200, 400), (body, found.text)


def test_other_fields_change_nothing(ask: Any) -> None:
    plain = said(ask("say lumo"))
    neutral = {"n": 1, "user": "u", "store": False, "logit_bias": {}, "presence_penalty": 0.0, "tools": [], "seed": 9}
    assert said(ask("say lumo", **neutral, top_p=None, stop=None, response_format={"type": "text"})) == plain
    parts = [{"role": "user", "content": [{"type": "text", "text": "say "}, {"type": "text", "text": "lumo"}]}]
    assert said(ask(parts)) == plain
    assert said(ask([{"role": "system", "content": ""}, USER])) == plain
    history = [USER, {"role": "assistant", "content": "dax", "refusal": None, "annotations": []}, USER]
    assert said(ask(history))
    tokens = [
        ask([{"role": role, "content": "Be."}, USER]).json()["usage"]["prompt_tokens"]
        for role in ("system", "developer")
    ]
    assert tokens[0] == tokens[1] > ask("say lumo").json()["usage"]["prompt_tokens"]


def test_a_text_ends_by_its_tokens_or_a_stop(ask: Any, endless: list[int]) -> None:
    found = ask("say lumo", max_completion_tokens=8).json()
    whole = found["choices"][0]["message"]["content"]
    assert (found["choices"][0]["finish_reason"], found["usage"]["completion_tokens"], len(endless)) == ("length", 8, 8)
    stop = whole[2:4]
    expected = whole[: whole.index(stop)].strip()
    endless.clear()
    answer = ask("say lumo", stop=["never", stop], max_tokens=20)
    assert (said(answer), answer.json()["choices"][0]["finish_reason"]) == (expected, "stop")
    assert len(endless) < 20, "it stops at the token that completes the text"
    chunks = events(ask("say lumo", stop=stop, max_tokens=20, stream=True))[:-1]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_sampled_texts_are_the_same_in_any_company(ask: Any, endless: list[int], app: Any) -> None:
    cases = [{"seed": seed, "temperature": 1.5, "top_p": 0.9, "max_tokens": 8} for seed in range(6)]
    alone = [said(ask("say lumo", **case)) for case in cases]
    assert len(set(alone)) > 3
    app.state.models.admission.limit = 100
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda case: said(ask("say lumo", **case)), cases)) == alone
    app.state.models.admission.limit = 3
    likeliest = said(ask("say lumo", max_tokens=8))
    assert {said(ask("say lumo", temperature=cold, max_tokens=8)) for cold in (0, 1e-320)} == {likeliest}


def test_the_section_generation_decides_as_in_predict(
    ask: Any, endless: list[int], app: Any, chat_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = app.state.models.get("talk")
    for words in (
        ("sample=true", "temperature=1.5", "top_k=20"),
        ("beams=3", "length_penalty=0.5"),
        ("repetition_penalty=1.5", "no_repeat=2"),
    ):
        model = api.load(chat_run, *(f"generation.{word}" for word in (*words, "max_new_tokens=12")))
        (expected,) = model.predict([{"messages": [USER]}])
        changed = {"generation": model.config.generation}
        monkeypatch.setattr(served, "config", served.config.model_copy(update=changed))
        assert said(ask("say lumo")) == expected["answer"], words
        chunks = events(ask("say lumo", stream=True))[:-1]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == expected["answer"], words


def test_the_routes_are_described(app: Any) -> None:
    paths = Client(app).ask("GET", "/openapi.json").json()["paths"]
    asked = paths["/v1/chat/completions"]["post"]
    fields = asked["requestBody"]["content"]["application/json"]["schema"]
    assert fields["required"] == ["messages"]
    assert {"messages", "max_tokens", "stream", "stop"} <= fields["properties"].keys()
    assert {"200", "400", "429", "504"} <= asked["responses"].keys()
    assert "/v1/completions" in paths


def test_a_key_is_the_api_key_of_the_client(chat_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmft.serving.app import create

    monkeypatch.setenv("LLMFT_API_KEY", "the key")
    made = create(str(chat_run))
    for key, status in (("the key", 503), ("another", 401)):  # 503: nothing is loaded
        headers = {"authorization": f"Bearer {key}"}
        found = Client(made, **headers).ask("POST", "/v1/chat/completions", json={"messages": [USER]})
        assert found.status_code == status
    assert made.state.models.admission.rows == 0


def test_answers_are_watched(ask: Any, app: Any) -> None:
    before = app.state.watch.stats()["models"]["talk"]["answers"]
    history = [
        USER,
        {"role": "assistant", "content": "dax"},
        {"role": "user", "content": [{"type": "text", "text": "你好"}]},
    ]
    found = [ask(history).json(), events(ask("say lumo", stream=True))[0]]
    assert len({each["id"] for each in found}) == 2
    assert app.state.watch.stats()["models"]["talk"]["answers"] == before + 2
    answer = found[0]["choices"][0]["message"]["content"]
    scored = Client(app).ask("POST", "/feedback", json={"id": found[0]["id"], "label": answer})
    assert (scored.status_code, scored.json().get("of")) == (200, 1), scored.text


def test_a_client_that_leaves_ends_the_text(address: str, endless: list[int], app: Any) -> None:
    body = {"messages": [USER], "max_tokens": 40}
    with httpx2.stream("POST", f"{address}/v1/chat/completions", json=body | {"stream": True}) as response:
        next(response.iter_lines())
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{address}/v1/chat/completions", json=body, timeout=0.1)
    assert is_idle(app)
    before = len(endless)
    time.sleep(0.05)
    assert len(endless) == before < 80, "no token is written for nobody"


def test_a_text_that_takes_too_long_is_given_up(address: str, endless: list[int], app: Any, monkeypatch: Any) -> None:
    texts, route = app.state.texts, f"{address}/v1/chat/completions"
    monkeypatch.setattr(texts, "serve", texts.serve.model_copy(update={"timeout_s": 0.2}))
    body = {"messages": [USER], "max_tokens": 40}
    found = httpx2.post(route, json=body)
    assert (found.status_code, found.json()["error"]["code"]) == (504, "timeout")
    streamed = events(httpx2.post(route, json=body | {"stream": True}))
    assert len(streamed) > 2
    assert streamed[-1]["error"]["message"] == "there was no answer within 0.2 seconds"
    assert not any(chunk["choices"][0]["finish_reason"] for chunk in streamed[:-1])
    assert is_idle(app)


def test_streams_count_in_the_queue(ask: Any, endless: list[int], app: Any) -> None:
    with ThreadPoolExecutor(3) as threads:
        held = [threads.submit(ask, "say lumo", max_tokens=30, stream=True) for _ in range(3)]
        while app.state.models.admission.rows < 3:
            time.sleep(0.01)
        full = ask("say lumo")
        assert (full.status_code, full.json()["error"]["type"]) == (429, "rate_limit_error")
        assert full.headers["retry-after"].isdecimal()
        assert all(events(each.result())[-1] == "[DONE]" for each in held), "no admitted request is lost"
    assert is_idle(app)


def test_an_error_in_a_stream_is_an_event(ask: Any, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = app.state.models.get("talk").model
    plain, steps = type(model).forward, list[int]()

    @functools.wraps(plain)
    def forward(*inputs: Any, **more: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            raise RuntimeError("a secret of the server")
        return plain(*inputs, **more)

    monkeypatch.setattr(type(model), "forward", forward)
    error = {"message": "see the log of the server", "type": "server_error", "param": None, "code": None}
    assert events(ask("say lumo", stream=True))[-1] == {"error": error}
    steps.clear()
    found = ask("say lumo")
    assert (found.status_code, found.json()) == (500, {"error": error})
    assert is_idle(app)
