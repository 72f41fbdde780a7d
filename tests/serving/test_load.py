"""The closed loop and the bars of benchmarks/serve.py, which takes minutes to run."""

import asyncio
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks/serve.py"


@pytest.fixture(scope="module")
def serve() -> Any:
    spec = importlib.util.spec_from_file_location("bench_serve", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_bar_and_each_aim_is_told_apart(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def load(cpu: float, rate: float, p99: float, memory: float = 100, p50: float = 10) -> Any:
        return serve.Load(cpu, rate, p50, p99, memory, {"a": "good", "b": "bad"})

    many = {
        "llmft": load(4, 400, 300, memory=251),
        "Flask": load(30, 90, 1000),
        "Flask, 1 thread": load(20, 110, 700),
        "LitServe": load(5, 200, 400),
        "FastAPI, no batches": load(4.9, 200, 400),
    }
    alone = {name: load(5, 100, 20, p50=10.5 if name == "llmft" else 10) for name in many}
    serve.report(many, alone)
    rows = {
        cells[1].strip(): [c.strip() for c in cells[2:-1]]
        for line in capsys.readouterr().out.splitlines()
        if len(cells := line.split("|")) == 8
    }
    assert rows == {
        "": ["measured", "bar", "holds", "aim", "holds"],
        "---": ["---"] * 5,
        "processor time a request, better Flask : llmft": ["5.00", "at least 4.4", "yes", "at least 5.5", "no"],
        "requests a second, llmft : better Flask": ["3.64", "at least 4", "no", "", ""],
        "p99, llmft : better Flask": ["0.43", "at most 0.5", "yes", "at most 0.25", "no"],
        "processor time, LitServe : llmft": ["1.25", "at least 1.25", "yes", "", ""],
        "processor time, FastAPI : llmft": ["1.23", "at least 1.25", "no", "", ""],
        "MB of llmft": ["251.00", "at most 250", "no", "", ""],
        "p50 of one client, llmft : FastAPI": ["1.05", "at most 1.05", "yes", "", ""],
    }


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_closed_loop_asks_each_text_once(serve: Any, version: str) -> None:
    """A server of HTTP/1.0, such as Flask's own, closes each connection."""
    heard: list[str] = []
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            size = int(re.search(r"Content-Length: (\d+)", head)[1])  # type: ignore[index]
            heard.append((await reader.readexactly(size)).decode())
            writer.write(f"HTTP/{version} 200 OK\r\nContent-Length: 2\r\n\r\nok".encode())
            if version == "1.0":
                break
        writer.close()

    async def run() -> tuple[list[float], dict[str, bytes]]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            found: tuple[list[float], dict[str, bytes]] = await serve.closed_loop(port, "fastapi", 3, iter("abcdefgh"))
            return found

    seconds, bodies = asyncio.run(run())
    assert sorted(heard) == [f'{{"text": "{letter}"}}' for letter in "abcdefgh"]
    assert len(seconds) == 8 and bodies == dict.fromkeys("abcdefgh", b"ok")
    assert connections == (8 if version == "1.0" else 3)
