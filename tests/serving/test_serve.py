"""The command `llmft serve` in a process of its own: how it starts, reloads, and ends."""

import http.client
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
HEAVY = "torch transformers datasets pandas pyarrow sklearn"

# A model that takes the seconds of the environment, and at the end what was imported and the processor time to start.
WRAPPED = """
import os, sys, time
from llmft.serving import models
from llmft.serving import serve
opened, told = models.open_engine, serve._tell
def slow(*given):
    from dataclasses import replace
    if seconds := os.environ.get("LOADING"):
        print("LOADING", flush=True)
        time.sleep(float(seconds))
    engine = opened(*given)
    def run(features):
        time.sleep(float(os.environ.get("SECONDS", 0)))
        return engine.run(features)
    return replace(engine, run=run)
def tell(*given):
    print("CPU", time.process_time())
    told(*given)
models.open_engine, serve._tell = slow, tell
from llmft.cli import main
code = main(sys.argv[1:])
print("IMPORTED", [name for name in %r.split() if name in sys.modules], flush=True)
sys.exit(code)
""" % HEAVY  # fmt: skip  # noqa: UP031


class Process:
    """A running service; its port is read from what it prints."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRAPPED, "serve", *words, "serve.port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.lines: list[str] = []
        for line in self.process.stdout or ():
            self.lines.append(line)
            if line == "LOADING\n":
                return
            if found := re.search(r"curl http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return

    def ask(self, text: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/predict", json.dumps({"text": text}), {"content-type": "application/json"})
        found = connection.getresponse()
        return found.status, json.loads(found.read())

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, "".join(self.lines) + out, err


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def process(*words: str, **environment: str) -> Process:
        made.append(Process(*words, **environment))
        return made[-1]

    yield process
    for each in made:
        each.process.kill()
        each.process.communicate()


def test_an_export_is_served_without_torch_and_stops_in_good_order(
    start: Callable[..., Process], text_export: Path
) -> None:
    """S7: what is in flight is answered, what comes later is refused, and the exit code is 0."""
    service = start(str(text_export), SECONDS="0.5")
    out = "".join(service.lines)
    assert (
        float(re.findall(r"CPU (\S+)", out)[0]) < 5
    )  # seconds of the processor; a quiet machine takes as long by the clock
    assert "text_classification" in out
    assert "onnx fp32" in out
    (command,) = re.findall(r"curl .*", out)
    assert '{"rows": [{"text": "Some text."}]}' in command
    found: list[tuple[int, dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda n=n: found.append(service.ask(f"lumo {n}"))) for n in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    with pytest.raises(OSError):
        service.ask("late")
    for thread in threads:
        thread.join()
    assert [code for code, _ in found] == [200] * 4
    code, out, err = service.ended()
    assert (code, err) == (0, "")
    assert "IMPORTED []" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_is_loading(number: int, start: Callable[..., Process], text_export: Path) -> None:
    """It does not wait for the model, and does not say that it serves."""
    service = start(str(text_export), LOADING="50")
    began = time.monotonic()
    code, out, err = service.end(number)
    assert time.monotonic() - began < 20
    assert (code, out, err) == (0, "LOADING\n", "ended while a model was loading\n")


class Payload:
    """A pickle that writes a file when it is opened."""

    def __reduce__(self) -> Any:
        return open, ("canary", "w")


def test_sighup_reads_the_newest_run_of_a_folder(
    start: Callable[..., Process], text_run: Path, text_export: Path, here: Path
) -> None:
    """A bad one changes nothing, and Ctrl-C ends it with 0."""
    runs = here / "runs"
    shutil.copytree(text_export, runs / "20300101-000000-aaaa")
    manifest = runs / "20300101-000000-aaaa/manifest.json"
    facts = json.loads(manifest.read_text()) | {"command": "finetune"}
    manifest.write_text(json.dumps(facts))
    service = start(str(runs))
    first = service.ask("lumo")[1]
    assert first["model"] == "texts"
    assert service.process.stderr
    assert str(runs) in service.process.stderr.readline()  # which run the folder means
    newest = shutil.copytree(runs / "20300101-000000-aaaa", runs / "20300102-000000-bbbb")
    card = newest / "model/committed.json"
    card.write_text(card.read_text() + "\n")
    service.process.send_signal(signal.SIGHUP)
    assert "is now version" in service.process.stderr.readline()
    second = service.ask("lumo")[1]
    assert second["answers"] == first["answers"]
    assert second["version"] != first["version"]
    (newest / "model/model.onnx").write_bytes(b"spoiled")
    service.process.send_signal(signal.SIGHUP)
    assert "stays as it is" in service.process.stderr.readline()
    assert service.ask("lumo")[1]["version"] == second["version"]
    assert service.end(signal.SIGINT)[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["absent"], 2, "no such folder"),
        ([], 2, "must come first"),
        (["RUN", "serve.models={a: RUN}"], 2, "must be left out"),
        (["RUN", "serve.host=0.0.0.0"], 2, "LLMFT_API_KEY"),
        (["RUN", "serve.host=nowhere.invalid"], 2, "serve.host"),
        (["RUN", "serve.batchsize=1"], 2, "serve.batch_size"),
        (["RUN", "serve.models={a/b: RUN}"], 2, "must be left out"),
        (["serve.models={a/b: RUN}"], 2, "a name"),
        (["RUN", "model.path=x"], 2, "is fixed by training"),
        (["SPOILED"], 2, "has changed since the run wrote it"),
    ],
)  # fmt: skip
def test_a_mistake_ends_it_with_2(
    words: list[str],
    code: int,
    said: str,
    text_run: Path,
    text_export: Path,
    here: Path,
    llmft: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """X1, X3, and E3 among them: a pickle is not opened, code of others is not imported, a changed export is refused."""
    monkeypatch.delenv("LLMFT_API_KEY", raising=False)
    for word in {"SPOILED", "STALE", "PICKLED", "FOREIGN"} & {*words}:
        model = shutil.copytree(text_export if word == "STALE" else text_run, here / word) / "model"
        weights = model / ("model.onnx" if word == "STALE" else "model.safetensors")
        data = weights.read_bytes()
        if word == "FOREIGN":
            names = {"AutoConfig": "foreign.C", "AutoModelForSequenceClassification": "foreign.M"}
            (model / "config.json").write_text(json.dumps({"model_type": "foreign", "auto_map": names}))
            (model / "foreign.py").write_text("open('canary', 'w')")
        elif word == "PICKLED":
            weights.unlink()
            (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
        else:
            weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = llmft("serve", *[word.replace("RUN", str(text_run)) for word in words], "serve.port=0")
    assert not (here / "canary").exists()
    assert found[0] == code
    assert said in found[2]
    assert "Traceback" not in found[2]


def test_several_models(text_run: Path, text_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmft.config.load import load
    from llmft.serving.app import application
    from tests.serving.conftest import Client

    config = load("serve", [f"serve.models={{ours: {text_run}, fast: {text_export}}}"])
    app = application(config)
    app.state.models.load_all()
    client = Client(app)
    body = {"text": "lumo mirk"}
    assert client.ask("POST", "/predict", json=body).status_code == 422
    answers = [client.ask("POST", f"/predict/{name}", json=body).json() for name in ("ours", "fast")]
    assert client.ask("POST", "/predict", json=body | {"model": "fast"}).json()["answers"] == answers[1]["answers"]
    assert [found["model"] for found in answers] == ["ours", "fast"]
    assert answers[0]["answers"][0]["scores"] == pytest.approx(answers[1]["answers"][0]["scores"], abs=1e-4)
    assert client.ask("POST", "/predict/other", json=body).status_code == 404
    assert [found["name"] for found in client.ask("GET", "/info").json()["models"]] == ["ours", "fast"]
    for name in ("ours", "fast"):
        app.state.models.get(name).batcher.close()


def test_a_missing_extra_is_named(
    text_run: Path, llmft: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmft.serving import serve

    monkeypatch.setattr(serve, "PACKAGES", ("fastapi", "no_such_package"))
    code, _, err = llmft("serve", str(text_run))
    assert code == 2
    assert "pip install 'llmft[serve]'" in err


def test_nested_aliases_in_a_config_are_refused_at_once(text_run: Path, here: Path) -> None:
    """X6: nine aliases of nine aliases ... are 10^8 values."""
    from llmft.schema.problem import UserError
    from llmft.serving.app import create

    run = shutil.copytree(text_run, here / "bomb")
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    (run / "config.yaml").write_text(bomb + (run / "config.yaml").read_text())
    start = time.process_time()
    with pytest.raises(UserError, match="aliases"):
        create(str(run))
    assert time.process_time() - start < 1
