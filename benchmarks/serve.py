"""`llmft serve` beside what one would write instead: whole processes, in turn, medians.

    python benchmarks/serve.py [--rounds 5] [--requests 1500]     the comparison; `make bench-serve` installs the peers
    python benchmarks/serve.py --soak SECONDS                     llmft alone under load: does its memory stay flat?

The peers are those of serving_peers.py, and PYTHONPATH must lead to Flask and LitServe. All serve the model of
`+recipe=bert_textcls` and answer the reviews that come with llmft: Flask the run, the others its int8 export. Clients
in a closed loop ask again once they have an answer; all of them are one process, which takes 0.1 ms a request. Servers
and clients share all cores. Processor time is that of the server and its children, between the first and the last
request, after a warm-up. Memory is counted once where processes share it. The run and its export stay in
outputs/bench-serve.
"""

import argparse
import asyncio
import contextlib
import csv
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

HERE = Path(__file__).parent
REVIEWS = HERE.parent / "llmft/samples/reviews/test.csv"
OUTPUTS = Path("outputs/bench-serve")
CLIENTS = 32
PEERS = {
    "llmft": {},
    "Flask": {},
    "Flask, 1 thread": {"OMP_NUM_THREADS": "1"},
    "LitServe": {},
    "FastAPI, no batches": {},
}
FLASKS = ("Flask", "Flask, 1 thread")


class Load(NamedTuple):
    """What some clients saw, and what the server took for it."""

    cpu: float
    """Milliseconds of processor time a request."""
    rate: float
    """Requests a second."""
    p50: float
    p99: float
    """Milliseconds that a client waited."""
    memory: float
    """MB of the server at the end."""
    answers: dict[str, str]
    """A label for each text."""


def prepare() -> tuple[Path, Path]:
    """The run and its int8 export; made once."""
    run, export = OUTPUTS / "run", OUTPUTS / "int8"
    llmft = [sys.executable, "-m", "llmft"]
    if not (run / "model").is_dir():
        subprocess.run([*llmft, "finetune", "+recipe=bert_textcls", f"run.dir={run}"], check=True)
    if not (export / "model").is_dir():
        subprocess.run([*llmft, "export", run, "export.precision=int8", f"run.dir={export}"], check=True)
    return run, export


@contextlib.contextmanager
def started(name: str, run: Path, export: Path) -> Iterator[tuple[psutil.Process, int]]:
    """A server that is ready, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    peer = name.partition(",")[0].lower()
    command = [
        sys.executable,
        str(HERE / "serving_peers.py"),
        peer,
        str((run if peer == "flask" else export) / "model"),
    ]
    command = [*command, str(port)]
    if peer == "llmft":
        command = [sys.executable, "-m", "llmft", "serve", str(export), f"serve.port={port}"]
    surroundings = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | PEERS[name]
    surroundings |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    log = (OUTPUTS / f"{peer}.log").open("w")
    with log, subprocess.Popen(command, env=surroundings, stdout=log, stderr=log) as server:
        try:
            waited = time.monotonic()
            while not asyncio.run(answers(port, peer)):
                if server.poll() is not None or time.monotonic() - waited > 300:
                    sys.exit(f"{name} does not start: see {log.name}")
                time.sleep(0.2)
            yield psutil.Process(server.pid), port
        finally:
            children = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            server.kill()


async def answers(port: int, peer: str) -> bool:
    """Whether a server answers a text."""
    try:
        status, _ = await asyncio.wait_for(Client(port, peer).ask("Is it there?"), 60)
    except (OSError, EOFError, TimeoutError):
        return False
    return status == 200


class Client:
    """A connection that is kept, unless the server closes it."""

    def __init__(self, port: int, peer: str) -> None:
        self.port, self.peer = port, peer
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, text: str) -> tuple[int, bytes]:
        """The status and the body for a text."""
        body = json.dumps({"rows": [{"text": text}]} if self.peer == "llmft" else {"text": text}).encode()
        head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = int(said.partition("content-length:")[2].split("\r\n", 1)[0])
        answer = await reader.readexactly(size)
        if said.startswith("http/1.0") or "connection: close" in said:
            self.close()
        return int(said.split(" ", 2)[1]), answer

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()
            self.streams = None


async def closed_loop(port: int, peer: str, clients: int, texts: Iterator[str]) -> tuple[list[float], dict[str, bytes]]:
    """The seconds of each request, and the last body for each text, until there are no more texts."""
    seconds: list[float] = []
    bodies: dict[str, bytes] = {}

    async def client() -> None:
        connection = Client(port, peer)
        for count, text in enumerate(texts, 1):
            start = time.perf_counter()
            status, bodies[text] = await connection.ask(text)
            seconds.append(time.perf_counter() - start)
            if status != 200:
                raise SystemExit(f"{peer} answers {status}: {bodies[text][:300]!r}")
            if count % 500 == 0:
                connection.close()
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, bodies


def tree(server: psutil.Process) -> list[psutil.Process]:
    return [server, *server.children(recursive=True)]


def cpu_seconds(server: psutil.Process) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in tree(server)))


def megabytes(server: psutil.Process) -> float:
    full = [process.memory_full_info() for process in tree(server)]
    return sum(getattr(each, "pss", each.uss) for each in full) / 1e6


def measure(server: psutil.Process, port: int, peer: str, clients: int, texts: list[str]) -> Load:
    asyncio.run(closed_loop(port, peer, clients, iter(texts[: 4 * clients])))
    before, start = cpu_seconds(server), time.perf_counter()
    seconds, bodies = asyncio.run(closed_loop(port, peer, clients, iter(texts)))
    wall, spent = time.perf_counter() - start, cpu_seconds(server) - before
    parsed = {text: json.loads(body) for text, body in bodies.items()}
    labels = {
        text: said["answers"][0]["answer"] if "answers" in said else said["answer"] for text, said in parsed.items()
    }
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return Load(
        1000 * spent / len(texts), len(texts) / wall, 1000 * cuts[49], 1000 * cuts[98], megabytes(server), labels
    )


def median(loads: list[Load]) -> Load:
    numbers = (statistics.median(column) for column in list(zip(*loads, strict=True))[:5])
    return Load(*numbers, answers=loads[-1].answers)


def compare(rounds: int, requests: int) -> None:
    run, export = prepare()
    texts = [row["text"] for row in csv.DictReader(REVIEWS.open(encoding="utf-8", newline=""))]
    many: dict[str, list[Load]] = {name: [] for name in PEERS}
    alone: dict[str, list[Load]] = {name: [] for name in PEERS}
    for number in range(rounds):
        asked = random.Random(number).choices(texts, k=requests)
        for name in list(PEERS)[:: 1 if number % 2 == 0 else -1]:
            with started(name, run, export) as (server, port):
                peer = name.partition(",")[0].lower()
                many[name].append(measure(server, port, peer, CLIENTS, asked))
                alone[name].append(measure(server, port, peer, 1, asked[: max(requests // 5, 50)]))
        print(f"\nafter round {number + 1} of {rounds}:\n")
        report({name: median(loads) for name, loads in many.items()}, {n: median(x) for n, x in alone.items()})


def report(many: dict[str, Load], alone: dict[str, Load]) -> None:
    print(f"| | CPU ms a request, {CLIENTS} clients | requests a second | p50 ms | p99 ms | MB ", end="")
    print("| CPU ms, 1 client | p50 ms, 1 client | same answer as llmft |\n|---|---|---|---|---|---|---|---|---|")
    ours, single = many["llmft"], alone["llmft"]
    for name, load in many.items():
        same = statistics.mean(load.answers[text] == ours.answers[text] for text in load.answers.keys() & ours.answers)
        one = alone[name]
        print(f"| {name} | {load.cpu:.2f} | {load.rate:.0f} | {load.p50:.0f} | {load.p99:.0f} ", end="")
        print(f"| {load.memory:.0f} | {one.cpu:.2f} | {one.p50:.1f} | {same:.3f} |")
    flasks = [many[name] for name in FLASKS]
    cpu, rate = min(load.cpu for load in flasks), max(load.rate for load in flasks)
    p99 = min(load.p99 for load in flasks)
    least = "at least"
    rows = [
        ("processor time a request, better Flask : llmft", cpu / ours.cpu, least, 4.4, 5.5),
        ("requests a second, llmft : better Flask", ours.rate / rate, least, 4.0, None),
        ("p99, llmft : better Flask", ours.p99 / p99, "at most", 0.5, 0.25),
        ("processor time, LitServe : llmft", many["LitServe"].cpu / ours.cpu, least, 1.25, None),
        ("processor time, FastAPI : llmft", many["FastAPI, no batches"].cpu / ours.cpu, least, 1.25, None),
        ("MB of llmft", ours.memory, "at most", 250, None),
        ("p50 of one client, llmft : FastAPI", single.p50 / alone["FastAPI, no batches"].p50, "at most", 1.05, None),
    ]
    print("\n| | measured | bar | holds | aim | holds |\n|---|---|---|---|---|---|")
    for what, value, way, bar, aim in rows:
        limits = [limit for limit in (bar, aim) if limit is not None]
        held = ["yes" if (value >= limit if way == least else value <= limit) else "no" for limit in limits] + [""]
        goal = "" if aim is None else f"{way} {aim:g}"
        print(f"| {what} | {value:.2f} | {way} {bar:g} | {held[0]} | {goal} | {held[1]} |", flush=True)


def soak(seconds: float) -> None:
    """Ask for a time, and print how much memory the server has; exit with 1 if it grows by more than 5% and 10 MB."""
    run, export = prepare()
    texts = [row["text"] for row in csv.DictReader(REVIEWS.open(encoding="utf-8", newline=""))]
    with started("llmft", run, export) as (server, port):
        asyncio.run(closed_loop(port, "llmft", CLIENTS, iter(texts * 5)))
        marks = [megabytes(server)]
        print(f"after {5 * len(texts)} requests: {marks[0]:.1f} MB", flush=True)
        count = 0
        for part in range(1, 11):
            end = time.monotonic() + seconds / 10

            def endless(end: float = end, part: int = part) -> Iterator[str]:
                draw = random.Random(part)
                while time.monotonic() < end:
                    yield f"{draw.choice(texts)} {draw.random()}"

            asked, _ = asyncio.run(closed_loop(port, "llmft", CLIENTS, endless()))
            count += len(asked)
            marks.append(megabytes(server))
            print(f"{part * seconds / 10:6.0f} s  {count:8} requests  {marks[-1]:.1f} MB", flush=True)
    growth = marks[-1] - marks[1]
    print(f"memory grew by {growth:.1f} MB from the first tenth to the last; every answer was 200")
    sys.exit(growth > max(10, 0.05 * marks[1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    words = parser.parse_args()
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    if words.soak:
        soak(words.soak)
    else:
        compare(words.rounds, words.requests)
