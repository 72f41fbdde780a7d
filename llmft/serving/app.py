"""The application: `POST /predict` typed by the task, health, and what the page and other protocols need.

`create(RUN)` makes it for any ASGI server; `llmft serve` runs it by uvicorn.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from llmft import __version__
from llmft.runs.folder import Run
from llmft.runs.index import find_run
from llmft.schema.config import Config
from llmft.schema.serving import ServeConfig
from llmft.serving.embeddings import Vectors
from llmft.serving.http import Guard, Refused, dumped, is_loopback, key_of
from llmft.serving.metrics import Watch
from llmft.serving.models import Models
from llmft.serving.oip import OpenInference
from llmft.serving.openai import Texts, error_of
from llmft.serving.openapi import add_openapi
from llmft.serving.predict_routes import Predictions

PAGE = Path(__file__).parent / "page"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create(run: str, **keys: Any) -> FastAPI:
    """The application for a run or an export. It loads the model when the server starts it.

    Args:
        run: a folder, or the name of a run.
        keys: keys of the section `serve`, such as `batch_size=16`. The server decides where it listens: `host` says
            so, since a key is required beyond this machine.

    Raises:
        UserError: if there is no such run, or no key.
    """
    config = Run(find_run(run)).config()
    serve = ServeConfig(**keys)
    sources = dict(serve.models) or {config.name: run}
    return application(config.model_copy(update={"serve": serve.model_copy(update={"models": sources})}))


def application(config: Config, overrides: dict[str, Any] | None = None) -> FastAPI:
    """The application for the models of `config.serve`.

    Args:
        overrides: keys of `generation` and `seed` that were typed, for every model.

    Raises:
        UserError: if there is no key, and others than this machine can ask.
    """
    serve = config.serve
    key = key_of(serve)
    watch = Watch(serve)
    models = Models(config, watch, dict(serve.models), overrides or {})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A daemon: importing torch and reading a large model take long, and nobody waits for them when the server ends.
        Thread(target=_load, args=(app, models), name="load", daemon=True).start()
        yield
        app.state.when_ready = app.state.when_failed = lambda: None

    app = FastAPI(
        title="llmft",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the answer to a POST would be an empty 307, to an address that a proxy may not have
    )
    app.state.models, app.state.watch, app.state.key = models, watch, key
    app.state.failed = None
    app.state.when_ready = app.state.when_failed = lambda: None
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    predicts = Predictions(models, key is not None)
    app.add_api_route("/predict", predicts.one, methods=["POST"], include_in_schema=False)
    app.add_api_route("/predict/{name}", predicts.named, methods=["POST"], include_in_schema=False)
    app.add_api_route("/info", predicts.info, methods=["GET"], include_in_schema=False)
    OpenInference(models, predicts).add_to(app)
    Texts(models, watch).add_to(app)
    Vectors(models, predicts).add_to(app)
    _add_page(app)
    add_openapi(app, models, predicts)
    watch.routes(app, models)
    heard, rejected, local = watch.request, watch.rejected, is_loopback(serve.host)
    app.add_middleware(Guard, key=key, local=local, heard=heard, rejected=rejected, response=response)
    return app


def _load(app: FastAPI, models: Models) -> None:
    """Load all models; what fails is for whoever runs the server."""
    try:
        models.load_all()
    except Exception as error:
        app.state.failed = error
        app.state.when_failed()
    else:
        app.state.when_ready()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    request.app.state.watch.rejected(error.reason)
    return response(error, request.url.path)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {404: "there is no such path; /docs lists all", 405: f"{request.method} does not fit this path"}
    detail = what.get(error.status_code, str(error.detail))
    return response(Refused(error.status_code, detail, headers=error.headers), request.url.path)


def response(error: Refused, path: str) -> Response:
    """An error in the form that clients of a path read: OpenAI's, the Open Inference Protocol's, or RFC 9457."""
    if path.startswith("/v1/"):
        return Response(dumped({"error": error_of(error)}), error.status, error.headers, "application/json")
    return error.response(plain=path.startswith("/v2"))


def _add_page(app: FastAPI) -> None:
    """The page at `/` and its files, which are read once."""

    def file(name: str) -> FileResponse:
        return FileResponse(PAGE / name, headers={"content-security-policy": PAGE_POLICY})

    if (PAGE / "index.html").is_file():
        app.add_api_route("/", lambda: file("index.html"), methods=["GET", "HEAD"], include_in_schema=False)
        for found in sorted(PAGE.iterdir()):
            if found.suffix in (".css", ".js"):
                route = f"/page/{found.name}"
                app.add_api_route(route, partial(file, found.name), methods=["GET"], include_in_schema=False)
