"""Answers of `llmft predict` as images: masks, and boxes and masks drawn on their images, a file each."""

import base64
import io
import re
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from llmft.data.images import image_cell
from llmft.predictions.rows import Row
from llmft.schema.inference import PredictConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.optional import Draws
from llmft.tasks.task import Answer, Task


@dataclass(frozen=True)
class Drawings:
    """Writes the images that `predict.masks` and `predict.draw` ask for."""

    wanted: PredictConfig
    task: Task[Any]
    column: str
    """That of the images."""

    def check(self) -> None:
        """Make the folders.

        Raises:
            UserError: for answers without images, or a folder that has files.
        """
        answered = self.task.config.answered
        if self.wanted.masks is not None and "mask" not in answered:
            raise UserError(Problem("predict.masks", "the answers of this run have no masks", hint="Leave it out."))
        if self.wanted.draw is not None and not isinstance(self.task, Draws):
            what = "the answers of this run are no parts of an image"
            raise UserError(Problem("predict.draw", what, hint="Leave it out."))
        for key, name in (("predict.masks", self.wanted.masks), ("predict.draw", self.wanted.draw)):
            if name is None:
                continue
            folder = Path(name)
            if folder.is_dir() and any(folder.iterdir()):
                raise UserError(Problem(key, f"{folder} has files already; nothing is written over"))
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise UserError(Problem(key, f"{folder}: {error.strerror}")) from error

    def write(self, row: Row, answer: Answer) -> Answer:
        """The answer with the files of its images: `mask`, in the place of its base64, and `drawing`."""
        if "error" in answer:
            return answer
        cell = image_cell(row.values.get(self.column), Path())
        stem = Path(cell["path"]).stem if cell and cell["path"] else re.sub(r"[^\w.-]+", "_", row.id)
        drawn: Answer = {}
        if self.wanted.draw and cell and isinstance(self.task, Draws):
            stream = io.BytesIO()
            self.task.draw(cell, answer).save(stream, "PNG")
            drawn["drawing"] = _save(Path(self.wanted.draw), stem, stream.getvalue())
        if self.wanted.masks and "mask" in answer:
            drawn["mask"] = _save(Path(self.wanted.masks), stem, base64.b64decode(answer["mask"]))
        return answer | drawn


def _save(folder: Path, stem: str, data: bytes) -> str:
    """Write a PNG under the name of the image or the row; a number follows if there is one already."""
    names = chain([stem], (f"{stem}-{number}" for number in range(2, sys.maxsize)))
    file = next(file for name in names if not (file := folder / f"{name}.png").exists())
    partial = file.with_name(f".{file.name}.part")
    partial.write_bytes(data)
    partial.replace(file)
    return str(file)
