"""An ONNX export as a service runs it: by onnxruntime, numpy, and the codec of its task, without torch."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from llmft import tasks
from llmft.runs.exported import FILES, is_export, open_onnx, verified
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Answer, Features, Task

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BESIDE = ("row", "length", "cut", "aside")
"""Keys of `encode` that the model does not read."""


@dataclass(frozen=True)
class Program:
    """A loaded export. It keeps nothing between calls and takes no lock, so threads can share one."""

    config: Config
    """That of the run: its sections `task` and `dataset` say how rows are read."""
    facts: dict[str, Any]
    """The content of export.json."""
    task: Task[Any]
    """With its state."""
    session: "InferenceSession"

    @cached_property
    def inputs(self) -> dict[str, str]:
        """The types of the program's inputs by name, such as `{"input_ids": "int64"}`."""
        return {given.name: self.facts["inputs"][given.name]["dtype"] for given in self.session.get_inputs()}

    @property
    def alone(self) -> bool:
        """Whether each row must be computed by itself, since the others of a batch would change its output.

        Dynamic int8 has one scale of activations for the whole batch, padding included. `run` respects it.
        """
        return bool(self.facts["quantization"] == "dynamic")

    def run(self, features: list[dict[str, Any]]) -> list[Any]:
        """The outputs for some features in one batch, as `task.decode` takes them, with their asides if they have any.

        Args:
            features: of any rows, see `split`. Of similar length there is less padding: sort them before.
        """
        outputs: list[Any] = []
        for batch in [[feature] for feature in features] if self.alone else [features]:
            arrays = self.task.collate([{k: v for k, v in feature.items() if k not in BESIDE} for feature in batch])
            given = {name: arrays[name].astype(kind, copy=False) for name, kind in self.inputs.items()}
            (found,) = self.session.run([self.task.reads], given)
            if found.dtype == numpy.float16:
                found = found.astype(numpy.float32)
            lengths = [len(feature["input_ids"]) for feature in batch] if "input_ids" in batch[0] else None
            outputs += self.task.unpad(found, lengths)
        if "aside" in features[0]:
            return [(output, feature["aside"]) for output, feature in zip(outputs, features, strict=True)]
        return outputs

    def answer(self, rows: dict[str, list[Any]]) -> list[Answer]:
        """The answers to columns of rows by role, all in one batch.

        Raises:
            UserError: for rows that cannot be encoded, such as an image that cannot be decoded.
        """
        features = self.task.encode(rows)
        return self.task.decode(self.run(split(features)), features["row"])


def split(features: Features) -> list[dict[str, Any]]:
    """The columns of `encode` as a dict for each feature."""
    return [dict(zip(features, values, strict=True)) for values in zip(*features.values(), strict=True)]


def load(folder: Path, threads: int = 1) -> Program:
    """Verify the files of an export in ONNX and load it.

    Args:
        threads: how many compute one call. A service has several calls at once instead.

    Raises:
        UserError: if it is no export in ONNX, a file has changed, or onnxruntime refuses it.
    """
    if not is_export(folder):
        raise UserError(Problem(str(folder), "must be the folder of an export", hint=f"Write llmft export {folder}."))
    facts = verified(folder)
    if facts["format"] != "onnx":
        what = f"must be an export in onnx, got {facts['format']}"
        raise UserError(Problem(str(folder), what, hint="Write export.format=onnx."))
    config = Run(folder).config()
    task = tasks.build(config.task).load(folder / "model").for_inference()
    try:
        session = open_onnx(folder / "model" / FILES["onnx"], threads, spin=False)
    except Exception as error:  # onnxruntime has classes of its own
        what = f"cannot be loaded: {str(error).splitlines()[0]}"
        raise UserError(Problem(str(folder / "model"), what)) from error
    if task.reads not in {given.name for given in session.get_outputs()}:
        what = f"was written by an earlier version and has no output `{task.reads}`"
        raise UserError(Problem(str(folder), what, hint="Export its run again."))
    return Program(config, facts, task, session)
