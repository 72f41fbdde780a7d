"""The Open Inference Protocol v2, which clients of KServe and Triton speak: health, metadata, infer, and reload.

https://github.com/kserve/open-inference-protocol, with Triton's extensions for binary inputs and the model repository.
Each column of a row is a tensor with a value a row. Outputs are sent as JSON, which such clients accept.
"""

import asyncio
import json
import math
from typing import Any

import numpy
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from llmft import __version__
from llmft.serving.bodies import Reader, invalid
from llmft.serving.http import Refused, check_type, json_response, parsed, read_body
from llmft.serving.models import Models, Served
from llmft.serving.predict_routes import Predictions, predict

HEADER = "inference-header-content-length"
NUMBERS: dict[str, Any] = {
    "BOOL": numpy.bool_,
    "UINT8": numpy.uint8,
    "UINT16": numpy.uint16,
    "UINT32": numpy.uint32,
    "UINT64": numpy.uint64,
    "INT8": numpy.int8,
    "INT16": numpy.int16,
    "INT32": numpy.int32,
    "INT64": numpy.int64,
    "FP16": numpy.float16,
    "FP32": numpy.float32,
    "FP64": numpy.float64,
}
"""Types of numbers; little-endian where they are binary."""


class OpenInference:
    """The routes of the protocol."""

    def __init__(self, models: Models, predictions: Predictions) -> None:
        self.models, self.predictions = models, predictions

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        get, post = (["GET"], ["POST"])
        model = "/v2/models/{name}"
        routes: list[tuple[str, Any, list[str]]] = [
            ("/v2", self.server, get),
            ("/v2/health/live", self.live, get),
            ("/v2/health/ready", self.ready, get),
            (f"{model}/ready", self.model_ready, get),
            (f"{model}/versions/{{version}}/ready", self.model_ready, get),
            (model, self.metadata, get),
            (f"{model}/versions/{{version}}", self.metadata, get),
            (f"{model}/infer", self.infer, post),
            (f"{model}/versions/{{version}}/infer", self.infer, post),
            ("/v2/repository/index", self.index, post),
            ("/v2/repository/models/{name}/load", self.load, post),
        ]
        for path, endpoint, methods in routes:
            app.add_api_route(path, endpoint, methods=methods, include_in_schema=False)

    async def server(self) -> Response:
        """Which server this is."""
        extensions = ["binary_tensor_data", "model_repository"]
        return json_response({"name": "llmft", "version": __version__, "extensions": extensions})

    async def live(self) -> Response:
        """The process answers."""
        return json_response({"live": True})

    async def ready(self) -> Response:
        """All models are loaded. Exactly 200 means so: a client takes 204 for no."""
        if not self.models.ready:
            raise Refused(503, "models are still loading", headers={"retry-after": "1"}, reason="not_ready")
        return json_response({"ready": True})

    async def model_ready(self, name: str, version: str | None = None) -> Response:
        """A model is loaded."""
        with self.models.held(name, version):
            return json_response({"name": name, "ready": True})

    async def index(self) -> Response:
        """All models."""
        found = []
        for name in self.models.names():
            served = self.models.get(name)
            state = "READY" if served else "UNAVAILABLE"
            found.append({"name": name, "version": served.version if served else "", "state": state, "reason": ""})
        return json_response(found)

    async def load(self, name: str) -> Response:
        """Read the source of a model again. If it cannot be loaded, the version that answers now goes on."""
        if name not in self.models.names():
            raise Refused(404, "there is no model of this name", reason="name")
        if not await asyncio.get_running_loop().run_in_executor(None, self.models.replace, name):
            # The reason has paths of this machine, which are for the log.
            raise Refused(409, "the model cannot be loaded, and stays as it is; see the log", reason="load")
        return json_response({})

    async def metadata(self, name: str, version: str | None = None) -> Response:
        """What a model takes and gives."""
        with self.models.held(name, version) as served:
            return json_response(self._described(served))

    def _described(self, served: Served) -> dict[str, Any]:
        inputs = [
            {"name": column.name, "datatype": "FP64" if column.kind == "number" else "BYTES", "shape": [-1]}
            for column in self.predictions.reader(served).columns
        ]
        outputs = [
            {"name": found["name"], "datatype": found["datatype"], "shape": [-1, *found["shape"][1:]]}
            for found in tensors([served.example])
        ]
        platform = "pytorch" if served.model is not None else "onnxruntime"
        return {
            "name": served.name,
            "versions": [served.version],
            "platform": platform,
            "inputs": inputs,
            "outputs": outputs,
        }

    async def infer(self, request: Request, name: str, version: str | None = None) -> Response:
        """Answer the rows of some tensors."""
        with self.models.held(name, version) as served:
            reader = self.predictions.reader(served)
            check_type(request, bare=True)
            data = await read_body(request, reader.max_body, self.models.config.serve.read_timeout_s)
            body, rest = _parts(data, request.headers.get(HEADER))
            rows = [reader.read(row, f"row {place}") for place, row in enumerate(_rows(body, rest, reader))]
            wanted = [_text(each, "name") for each in _objects(body, "outputs")]
            answers, _ = await predict(request, self.models, served, rows, reader.columns)
        if bad := [f"row {place}: {answer['error']}" for place, answer in enumerate(answers) if "error" in answer]:
            raise Refused(422, "; ".join(bad))
        outputs = [found for found in tensors(answers) if not wanted or found["name"] in wanted]
        if lacking := [each for each in wanted if each not in [found["name"] for found in outputs]]:
            raise invalid([("outputs", f"{len(lacking)} of them are not among those of the model")])
        found: dict[str, Any] = {"model_name": name, "model_version": served.version, "outputs": outputs}
        return json_response(found | ({"id": body["id"][:200]} if isinstance(body.get("id"), str) else {}))


def _parts(data: bytes, header: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON of a body, and the bytes of the tensors after it."""
    if header is not None and not (header.isdecimal() and len(header) < 10 and int(header) <= len(data)):
        raise Refused(400, "Inference-Header-Content-Length must be the bytes of the JSON in the body")
    size = len(data) if header is None else int(header)
    body = parsed(data[:size])
    if not isinstance(body, dict):
        raise invalid([("body", "must be an object with inputs")])
    return body, data[size:]


def _objects(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise invalid([(name, "must be a list of objects")])
    return found


def _text(body: dict[str, Any], name: str) -> str:
    if not isinstance(found := body.get(name), str):
        raise invalid([(name, "must be a text")])
    return found


def _rows(body: dict[str, Any], rest: bytes, reader: Reader) -> list[dict[str, Any]]:
    """The rows of all tensors, a value a column.

    Raises:
        Refused: with a path for the first mistake.
    """
    kinds = {column.name: column.kind for column in reader.columns}
    columns: dict[str, list[Any]] = {}
    tensors = _objects(body, "inputs")
    if not tensors:
        raise invalid([("inputs", f"must hold a tensor for each of {', '.join(kinds)}"[:500])])
    for place, tensor in enumerate(tensors):
        at = f"inputs.{place}"
        name, kind = _text(tensor, "name"), _text(tensor, "datatype")
        if name not in kinds:
            raise invalid([(f"{at}.name", f"must be one of {', '.join(kinds)}"[:500])])
        if name in columns:
            raise invalid([(f"{at}.name", "must be given once")])
        count = _count(tensor, at, reader.limits.max_rows)
        if columns and count != len(next(iter(columns.values()))):
            raise invalid([(f"{at}.shape", "must say as many rows as the tensors before")])
        parameters = tensor.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            values = _flat(tensor.get("data"), kind, count, at)
        elif isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= len(rest):
            values, rest = _unpacked(rest[:size], kind, count, at), rest[size:]
        else:
            raise invalid([(f"{at}.parameters.binary_data_size", "must be the bytes of this tensor in the body")])
        columns[name] = [_cell(value, kinds[name], f"{at}.data.{row}") for row, value in enumerate(values)]
    if rest:
        raise invalid([("inputs", f"leave {len(rest)} bytes of the body unread")])
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _count(tensor: dict[str, Any], at: str, most: int) -> int:
    """How many rows a tensor has, by its shape: [rows], or [rows, 1]."""
    shape = tensor.get("shape")
    whole = isinstance(shape, list) and shape and all(type(side) is int and side > 0 for side in shape)
    if not whole or any(side != 1 for side in shape[1:]):  # type: ignore[index]
        raise invalid([(f"{at}.shape", "must be [rows], or [rows, 1]")])
    if shape[0] > most:  # type: ignore[index]
        raise Refused(422, f"a request must have at most {most} rows", reason="rows")
    return int(shape[0])  # type: ignore[index]


def _flat(data: Any, kind: str, count: int, at: str) -> list[Any]:
    """The values of `data`, which may be nested as the shape is."""
    if not isinstance(data, list):
        raise invalid([(f"{at}.data", "must be a list")])
    values = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in data]
    if len(values) != count:
        raise invalid([(f"{at}.data", f"must have {count} values, as shape says")])
    right: Any = str if kind == "BYTES" else bool if kind == "BOOL" else int | float
    if kind != "BYTES" and kind not in NUMBERS:
        raise invalid([(f"{at}.datatype", f"must be BYTES or one of {', '.join(NUMBERS)}")])
    for row, value in enumerate(values):
        if value is not None and (not isinstance(value, right) or (kind != "BOOL" and isinstance(value, bool))):
            raise invalid([(f"{at}.data.{row}", f"must be of the type {kind}")])
    return values


def _unpacked(data: bytes, kind: str, count: int, at: str) -> list[Any]:
    """The values of a binary tensor. BYTES: each has its length before it, 4 bytes, little-endian."""
    if kind in NUMBERS:
        dtype = numpy.dtype(NUMBERS[kind]).newbyteorder("<")
        if len(data) != count * dtype.itemsize:
            raise invalid([(at, f"must have {count * dtype.itemsize} bytes, got {len(data)}")])
        found: list[Any] = numpy.frombuffer(data, dtype).tolist()
        return found
    if kind != "BYTES":
        raise invalid([(f"{at}.datatype", f"must be BYTES or one of {', '.join(NUMBERS)}")])
    values: list[Any] = []
    start = 0
    while start + 4 <= len(data) and len(values) < count:
        size = int.from_bytes(data[start : start + 4], "little")
        values.append(data[start + 4 : start + 4 + size])
        start += 4 + size
    if start != len(data) or len(values) != count:
        raise invalid([(at, f"must hold {count} values, each after its length in 4 bytes")])
    return values


def _cell(value: Any, kind: str, at: str) -> Any:
    """A value of a tensor as a cell of a row: text, an image's bytes, or JSON for lists and objects."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        if kind == "image":
            return value
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise invalid([(at, "must be UTF-8")]) from None
    if kind in ("texts", "words", "json") and isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return parsed(value.encode())
        except Refused:
            return value
    return value


def tensors(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to rows as tensors, one a key.

    Texts are BYTES, and numbers FP64. Scores by label are FP64 (rows, labels), with the labels as JSON in `parameters`.
    Everything else, such as a list of labels, is BYTES with JSON.
    """
    found = []
    for name in dict.fromkeys(key for answer in answers for key in answer):
        values = [answer.get(name) for answer in answers]
        tensor: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(values)]}
        if all(isinstance(value, str) for value in values):
            tensor["data"] = values
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            tensor |= {"datatype": "FP64", "data": [float(value) for value in values]}  # type: ignore[arg-type]
        elif labels := _labels(values):
            flat = [float(value[label]) for value in values for label in labels]  # type: ignore[index]
            parameters = {"labels": json.dumps(labels, ensure_ascii=False)}
            tensor |= {"datatype": "FP64", "shape": [len(values), len(labels)], "data": flat, "parameters": parameters}
        else:
            tensor["data"] = [json.dumps(value, ensure_ascii=False) for value in values]
        found.append(tensor)
    return found


def _labels(values: list[Any]) -> list[str]:
    """The keys of objects that all have the same, with numbers; else none."""
    first = values[0]
    alike = isinstance(first, dict) and all(isinstance(v, dict) and v.keys() == first.keys() for v in values)
    return list(first) if alike and all(isinstance(n, int | float) for v in values for n in v.values()) else []
