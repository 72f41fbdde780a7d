"""What one would write in place of `llmft serve`. Started by serve.py, in an environment that has the packages.

    python benchmarks/serving_peers.py flask FOLDER PORT       a threaded Flask with one `pipeline` call a request
    python benchmarks/serving_peers.py fastapi FOLDER PORT     FastAPI, a request a thread, no batches
    python benchmarks/serving_peers.py litserve FOLDER PORT    LitServe: batches of at most 16, which wait 4 ms

FOLDER is `RUN/model` for Flask, which computes with torch, and `EXPORT/model` for the others, which run model.onnx.
They answer `{"text": ...}` at /predict with `{"answer": LABEL}`, on 127.0.0.1, and use as many cores as there are.
"""

import json
import os
import sys
from pathlib import Path


class Program:
    """An export for onnxruntime: texts to labels, padded to the longest of a batch."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # as many requests at once as there are cores
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(128)
        self.tokenizer.enable_padding()
        self.labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        self.names = [given.name for given in self.session.get_inputs()]

    def answer(self, texts: list[str]) -> list[str]:
        import numpy

        encoded = self.tokenizer.encode_batch(texts)
        columns = {
            "input_ids": [each.ids for each in encoded],
            "attention_mask": [each.attention_mask for each in encoded],
            "token_type_ids": [each.type_ids for each in encoded],
        }
        given = {name: numpy.array(columns[name], dtype=numpy.int64) for name in self.names}
        (logits,) = self.session.run(["logits"], given)
        return [self.labels[str(place)] for place in logits.argmax(-1)]


def flask(folder: Path, port: int) -> None:
    from flask import Flask, request
    from transformers import pipeline

    app, classify = Flask("peer"), pipeline("text-classification", model=str(folder))

    @app.post("/predict")
    def predict() -> dict[str, str]:
        return {"answer": classify(request.get_json()["text"])[0]["label"]}

    app.run("127.0.0.1", port, threaded=True)


def fastapi(folder: Path, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Row(BaseModel):
        text: str

    app, program = FastAPI(), Program(folder)

    def predict(row: Row) -> dict[str, str]:
        return {"answer": program.answer([row.text])[0]}

    predict.__annotations__["row"] = Row  # it is local, and a name would not be found
    app.post("/predict")(predict)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", loop="uvloop", http="httptools")


def litserve(folder: Path, port: int) -> None:
    from litserve import LitServer
    from litserve_peer import Peer

    peer = Peer(folder, max_batch_size=16, batch_timeout=0.004)
    server = LitServer(peer, accelerator="cpu", workers_per_device=os.cpu_count() or 1)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    peers = {"flask": flask, "fastapi": fastapi, "litserve": litserve}
    peers[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
