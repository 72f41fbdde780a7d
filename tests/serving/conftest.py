"""Runs of tiny models, and a client that asks an application in this process, without sockets."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llmft.cli import main


class Client:
    """Asks an ASGI application. `ask` returns the response; requests of `together` are sent at once."""

    def __init__(self, app: Any, **headers: str) -> None:
        self.app, self.headers = app, headers

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        return self.together((method, path, more))[0]

    def predict(self, **body: Any) -> dict[str, Any]:
        """The body of a good answer."""
        found = self.ask("POST", "/predict", json=body)
        assert found.status_code == 200, found.text
        return dict(found.json())

    def together(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx2.Response]:
        async def send() -> list[httpx2.Response]:
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://localhost", headers=self.headers
            ) as web:
                return await asyncio.gather(*(web.request(way, path, **more) for way, path, more in requests))

        return asyncio.run(send())


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run of text classification, which tests only read."""
    folder = tmp_path_factory.mktemp("serving") / "texts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMFT_CACHE", str(folder.parent / "cache"))
        assert main(["finetune", "+recipe=bert_textcls", "smoke=true", f"run.dir={folder}", "name=texts"]) == 0
    return folder


@pytest.fixture
def serving(text_run: Path) -> Iterator[Callable[..., Client]]:
    """The client of an application that has loaded its model; keys of `serve` may be given."""
    made: list[Any] = []

    def client(run: Path | None = None, **keys: Any) -> Client:
        from llmft.serving.app import create

        app = create(str(run or text_run), **keys)
        app.state.models.load_all()
        made.append(app)
        return Client(app)

    yield client
    for app in made:
        for name in app.state.models.names():
            if served := app.state.models.get(name):
                served.batcher.close()


def rows_of(text: str) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="session")
def text_export(text_run: Path) -> Path:
    """The export of `text_run` in ONNX, which tests only read."""
    folder = text_run.parent / "texts-onnx"
    assert main(["export", str(text_run), f"run.dir={folder}"]) == 0
    return folder
