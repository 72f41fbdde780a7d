"""The description of the routes: OpenAPI at `/openapi.json`, typed by the tasks of the models, and a page at `/docs`.

FastAPI's own page loads scripts from another site; this one is plain HTML.
"""

import json
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response

from llmft import __version__
from llmft.serving.http import TITLES
from llmft.serving.models import Models
from llmft.serving.predict_routes import Predictions

PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong, in a sentence"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["path", "detail"],
            },
        },
    },
    "required": ["title", "status", "detail"],
}
ANSWERS = {
    "type": "object",
    "properties": {
        "answers": {
            "type": "array",
            "items": {"type": "object", "description": "`answer` and for most tasks `scores`, or the `error` of a row"},
        },
        "ids": {"type": "array", "items": {"type": "string"}, "description": "one a row, for POST /feedback"},
        "model": {"type": "string"},
        "version": {"type": "string"},
        "truncated": {"type": "array", "items": {"type": "integer"}, "description": "rows that were too long"},
    },
    "required": ["answers", "ids", "model", "version", "truncated"],
}
OF_PREDICT = (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)
GETS = {
    "/info": "What the models read and answer",
    "/v2": "Open Inference Protocol: the server",
    "/v2/health/live": "The process answers",
    "/v2/health/ready": "All models are loaded",
    "/v2/models/{name}": "Open Inference Protocol: what a model takes and gives",
}
STYLE = "body{font:1rem/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{overflow:auto}"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def add_openapi(app: FastAPI, models: Models, predictions: Predictions) -> None:
    """Add `/openapi.json` and `/docs`, which follow the models as they are loaded."""

    others = app.openapi  # of the routes that FastAPI can describe by itself

    def openapi() -> dict[str, Any]:
        own = document(models, predictions)
        return own | {"paths": own["paths"] | others()["paths"]}

    def docs() -> Response:
        return HTMLResponse(page(openapi()), headers={"content-security-policy": POLICY})

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_api_route("/docs", docs, methods=["GET"], include_in_schema=False)


def document(models: Models, predictions: Predictions) -> dict[str, Any]:
    """The OpenAPI document: a path for each model, and `/predict` for the only one."""
    paths: dict[str, Any] = {
        path: {"get": _operation(what, {"type": "object"}, OF_PREDICT)} for path, what in GETS.items()
    }
    paths["/v2/models/{name}"]["get"]["parameters"] = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": models.names()}}
    ]
    names = models.names()
    for name in names:
        if (served := models.get(name)) is None:
            continue
        post = _operation(f"Answer rows: {served.config.task.name}", ANSWERS, OF_PREDICT)
        post["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": predictions.reader(served).schema(),
                    "example": {"rows": [served.example_row]},
                }
            },
        }
        for path in [f"/predict/{name}", *(["/predict"] if len(names) == 1 else [])]:
            paths[path] = {"post": post}
    found: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": "llmft", "version": __version__}, "paths": paths}
    if predictions.key:
        found["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"key": []}]
    return found


def _operation(what: str, schema: dict[str, Any], codes: tuple[int, ...]) -> dict[str, Any]:
    good = {"description": "the answer", "content": {"application/json": {"schema": schema}}}
    problem = {"application/problem+json": {"schema": PROBLEM}, "application/json": {"schema": {"type": "object"}}}
    responses: dict[str, Any] = {"200": good}
    responses |= {str(code): {"description": TITLES[code], "content": problem} for code in codes}
    return {"summary": what, "responses": responses}


def page(document: dict[str, Any]) -> str:
    """The routes as a plain page."""
    parts = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            shown = "".join(
                f"<p>{title}</p><pre>{escape(json.dumps(content[key], ensure_ascii=False, indent=2))}</pre>"
                for key, title in (("example", "Such as"), ("schema", "Schema"))
                if key in content
            )
            what = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"
            parts.append(what + shown)
    title = "llmft: routes"
    link = '<p><a href="openapi.json">openapi.json</a>'
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><h1>{title}</h1>{link}{''.join(parts)}</html>"
