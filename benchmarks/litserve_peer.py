"""LitServe's class for serving_peers.py, in a module of its own: LitServe's workers are processes that import it."""

from pathlib import Path
from typing import Any

from litserve import LitAPI
from serving_peers import Program


class Peer(LitAPI):
    def __init__(self, folder: Path, **more: Any) -> None:
        super().__init__(**more)
        self.folder = folder

    def setup(self, device: str) -> None:
        self.program = Program(self.folder)

    def decode_request(self, request: dict[str, Any]) -> str:
        return str(request["text"])

    def predict(self, texts: list[str]) -> list[str]:
        return self.program.answer(list(texts))

    def encode_response(self, answer: str) -> dict[str, str]:
        return {"answer": answer}
