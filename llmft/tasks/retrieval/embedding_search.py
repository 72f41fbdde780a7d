"""Passages found for questions by the vectors of an embedding run, `task.retriever=RUN`; see tasks/text/search.py."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import load_file, save_file

from llmft import tasks
from llmft.data import passages as corpus
from llmft.data.files import digest
from llmft.data.passages import Passages
from llmft.data.source import Table
from llmft.models.trained import load_trained
from llmft.runs.folder import Run
from llmft.runs.index import find_run
from llmft.schema.execution import HardwareConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.optional import EmbedsCorpus
from llmft.tasks.retrieval.vectors import nearest
from llmft.tasks.task import Task
from llmft.training.evaluation import predict
from llmft.training.features import encode
from llmft.training.hardware import detect

KEY = "task.retriever"
FILE, VECTORS = "retriever.json", "retriever.safetensors"
"""In RUN/model: which run makes vectors of questions, and those of the passages."""
ROWS = 32  # in one forward pass


@dataclass
class EmbeddingSearch:
    """The passages whose vectors have the largest cosine with that of a question.

    The embedding run is not copied: it must stay where it is, and its weights must stay the same.
    """

    passages: Passages
    run: Path
    sha256: str = ""
    """Of its weights when the vectors were made; empty if they are made now."""
    vectors: numpy.ndarray = field(init=False)
    """(passages, D)."""

    @classmethod
    def of_run(cls, name: str, passages: Passages) -> "EmbeddingSearch":
        """The search by a run, by its name or folder; computes the vectors of all passages.

        Raises:
            UserError: if there is no such run, or it is of another task.
        """
        found = cls(passages, find_run(name).resolve())
        found.vectors = found._embed("text_pair", passages.full_texts())
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Task[Any]]:
        """The model, and its task without a corpus of its own.

        Raises:
            UserError: if the run is gone, has other weights than before, or is of another task.
        """
        if self.sha256 and (now := self._digest()) != self.sha256:
            what = "has other weights than when the vectors of the passages were made" if now else "is gone"
            hint = "Put it back, or write task.retriever=bm25."
            raise UserError(Problem(str(self.run), f"{what}; passages are found by it", hint=hint))
        config = Run(self.run).config()
        task = tasks.build(config.task)
        if not isinstance(task, EmbedsCorpus):
            hint = "Write task.retriever=bm25, or train one: llmft finetune +recipe=embedding."
            raise UserError(Problem(KEY, f"must be a run that makes vectors, got one of {config.task.name}", hint=hint))
        model, task = load_trained(self.run, task, detect(HardwareConfig()).device)
        task.state.passages = task.state.vectors = None
        return model, task.for_inference()

    def _embed(self, role: str, texts: list[str]) -> numpy.ndarray:
        """The vectors (texts, D) of questions (`text`) or passages (`text_pair`)."""
        model, task = self._loaded
        rows = Table({role: texts}, [str(number) for number in range(len(texts))])
        answers = predict(task, model, encode(task, rows), ROWS).answers
        return numpy.array([answer["answer"] for answer in answers], dtype=numpy.float32)

    def search(self, questions: list[str], count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """See `Search`; scores are cosines."""
        if not questions:
            return numpy.zeros((0, count), numpy.int64), numpy.zeros((0, count), numpy.float32)
        return nearest(self._embed("text", questions), self.vectors, min(count, len(self.passages)))

    def save(self, folder: Path) -> None:
        """See `Search`."""
        self.passages.save(folder / corpus.FILE)
        save_file({"vectors": self.vectors}, folder / VECTORS)
        facts = {"run": str(self.run), "sha256": self.sha256 or self._digest()}
        (folder / FILE).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "EmbeddingSearch":
        """Read what `save` wrote. The embedding run is loaded when the first question comes."""
        facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
        found = cls(Passages.load(folder / corpus.FILE), Path(facts["run"]), facts["sha256"])
        found.vectors = load_file(folder / VECTORS)["vectors"]
        return found

    def _digest(self) -> str:
        weights = self.run / "model/model.safetensors"
        return digest(weights) if weights.is_file() else ""
