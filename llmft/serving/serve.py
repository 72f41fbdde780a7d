"""`llmft serve RUN`: answers over HTTP until a signal ends it."""

import asyncio
import os
import shlex
import signal
import socket
import sys
from threading import Thread
from typing import Any

from llmft.runs.folder import Run
from llmft.runs.index import find_run
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError, missing_package

KEY = "LLMFT_API_KEY"
PACKAGES = ("fastapi", "uvicorn", "orjson", "prometheus_client")


def run(config: Config) -> dict[str, Any]:
    """Serve the models of `config.serve` until SIGTERM or Ctrl-C, which let requests in progress finish.

    Returns:
        What was served.

    Raises:
        UserError: if a package or a key is missing, the address is taken, or a model cannot be loaded.
    """
    problems = [problem for name in PACKAGES for problem in missing_package("serve", "llmft serve", name, "serve")]
    if problems:
        raise UserError(problems)
    # The texts of a request are few: threads of the tokenizer would take the cores from those of the model.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import uvicorn

    from llmft.serving.app import application

    app = application(config, overrides(config))
    listening = bound(config)
    host, port = config.serve.host, listening.getsockname()[1]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    fast: dict[str, Any] = {}
    if sys.platform != "win32":
        from llmft.serving.connections import Connection

        kind = type("Limited", (Connection,), {"seconds": config.serve.read_timeout_s})
        fast = {"loop": "uvloop", "http": kind}
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=round(config.serve.timeout_s) + 1,
            **fast,
        )
    )
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_serve(server, app, listening, address))
    if error := app.state.failed:
        raise error
    if app.state.models.loading:
        # Its thread is inside of torch, and would abort the process if Python took it apart around it.
        print("ended while a model was loading", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(0)
    return {"served": config.serve.models}


def overrides(config: Config) -> dict[str, Any]:
    """The keys of generation and the seed that differ from those of the first run: what was typed holds for all."""
    own = Run(find_run(next(iter(config.serve.models.values())))).config()
    now, before = config.generation.model_dump(), own.generation.model_dump()
    changed = {key: value for key, value in now.items() if before[key] != value}
    return {"generation": changed} | ({"seed": config.seed} if config.seed != own.seed else {})


def bound(config: Config) -> socket.socket:
    """A socket on the address of `serve`.

    Raises:
        UserError: if it is taken, or there is no such address.
    """
    host, port = config.serve.host, config.serve.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two servers share a port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        hint = "Write serve.port=0 for a free one." if port else "Write serve.host=127.0.0.1."
        raise UserError(Problem("serve.port", f"{host}:{port}: {error.strerror or error}", hint=hint)) from error
    return found


async def _serve(server: Any, app: Any, listening: socket.socket, address: str) -> None:
    """Run the server; signals end it in good order."""
    loop = asyncio.get_running_loop()
    models = app.state.models

    def stop() -> None:
        server.should_exit = True

    app.state.when_failed = lambda: loop.call_soon_threadsafe(stop)
    key = _where(models.config.serve.key_file) if app.state.key else None
    app.state.when_ready = lambda: _tell(models, address, key)
    # uvicorn's own handling of signals raises them again at the end, so that the exit code would be -15.
    server.capture_signals = _Uncaught
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: Thread(target=models.reload, daemon=True).start())
    await server.serve(sockets=[listening])


class _Uncaught:
    """In place of uvicorn's context that catches signals."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _where(key_file: Any) -> str:
    """The key as a shell finds it."""
    return f"$(cat {shlex.quote(str(key_file))})" if key_file is not None else f"${KEY}"


def _tell(models: Any, address: str, key: str | None) -> None:
    """Say what is served, and how to ask with `key`, once all models are loaded."""
    names = models.names()
    for name in names:
        served = models.get(name)
        print(f"{name}: {served.config.task.name}, {served.source} ({served.engine.what}, version {served.version})")
    path = "/predict" if len(names) == 1 else f"/predict/{names[0]}"
    words = [
        "curl",
        f"{address}{path}",
        "-H",
        "Content-Type: application/json",
        "-d",
        models.get(names[0]).example_body,
    ]
    header = f' -H "Authorization: Bearer {key}"' if key else ""
    print(f"\nserving at {address}   (Ctrl-C ends it)\n  {shlex.join(words)}{header}", flush=True)
    chats = [served.name for served in models.loaded() if served.writer and served.writer.chat]
    if chats:
        named = f" model={chats[0]}" if len(chats) > 1 else ""
        given = f'{KEY}="{key}" ' if key and key != f"${KEY}" else ""
        print(f"  {given}llmft chat {address}{named}", flush=True)
