"""The files of a model in each format. `transformers.exporters`, which is still experimental, is known here alone."""

import copy
import logging
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from llmft.exports.quantization import quantize, save
from llmft.models.trained import BOXES
from llmft.runs.exported import FILES
from llmft.schema.inference import ExportConfig
from llmft.schema.problem import Failure
from llmft.tasks.task import Task

Batch = dict[str, torch.Tensor]
PLAIN = ("logits", "start_logits", "end_logits", "last_hidden_state", BOXES)
"""Outputs of models of transformers that export.json describes."""


class Named(torch.nn.Module):
    """A model that returns its outputs in a plain dict: a loaded program then needs nothing of transformers.

    With them stands what the task decodes, and scores or numbers as `llmft predict` gives them: no one needs to know a
    temperature or a scale.
    """

    def __init__(self, model: PreTrainedModel, task: Task[Any]) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.task = task

    def forward(self, **inputs: torch.Tensor) -> Batch:
        """`logits`, what the task reads, and `scores` or `answer` of a target, each (B, ...).

        Of a detector also `pred_boxes` (B, Q, 4): x and y of the middle, width, and height as shares of the image.
        """
        output = self.model(**inputs)
        found = {name: output[name] for name in ("logits", BOXES) if name in output}
        if self.task.reads not in found:
            found[self.task.reads] = self.task.objective.read(output, inputs)
        return found | (self.task.target.export_outputs(output.logits.float()) if self.task.target else {})


def write(
    program: Named,
    batches: list[Batch],
    length: int | None,
    export: ExportConfig,
    folder: Path,
    rows: Sequence[Batch] = (),
) -> Any:
    """Write the program into `folder`, in the format and precision of `export`.

    Args:
        batches: real rows without labels. The model is traced with the first, which has two rows and, where lengths
            differ, padding; int8 looks at the values inside the model on all of them.
        length: that of the first batch, where there is one: what has this size after the first axis may vary.
        rows: single rows, from which int8 takes the ranges of values.

    Returns:
        What export.json keeps of it: `inputs` and `outputs` with `dtype` and `shape`, and for ONNX `opset`.

    Raises:
        Failure: if the model cannot be traced or converted.
    """
    half = export.precision == "fp16"
    model, task = program.model, program.task
    sample = batches[0]
    # Of the model as it is: OpenVINO's one of half precision does not compute before it is converted.
    plain = export.format == "safetensors"  # what transformers gives, not what a program computes of it
    with torch.no_grad():
        outputs = model.eval()(**sample) if plain else program.eval()(**sample)
    outputs = {name: value for name, value in outputs.items() if not plain or name in PLAIN}
    model = copy.deepcopy(model).half() if half else model
    if half and export.format != "openvino":  # whose programs compute in float32 whatever the weights are
        sample = {name: value.half() if value.is_floating_point() else value for name, value in sample.items()}
    varies = {
        name: [place for place, size in enumerate(value.shape) if place == 0 or size == length]
        for name, value in sample.items()
    }
    facts = {}
    if plain:
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        dynamic = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in varies.items()}
        try:
            with hushed(), lengths_may_vary(model):
                facts = WRITERS[export.format](Named(model, task).eval(), dict(sample), dynamic, folder)
                if export.precision == "int8":
                    facts |= quantize(folder / FILES["onnx"], batches, rows)
        except Exception as error:  # whatever torch, onnx or openvino make of an operation that they do not know
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Failure(f"{type(model).__name__} cannot be written as {export.format}: {why}") from error
    inputs = {name: described(value, varies[name]) for name, value in sample.items()}
    # Only what the task reads can run over tokens.
    axes = {task.reads: [0] if task.token_axis is None else [0, task.token_axis + 1]}
    said = {name: described(value, axes.get(name, [0])) for name, value in outputs.items()}
    return {"inputs": inputs, "outputs": said, **({} if plain else {"reads": task.reads}), **facts}


def described(value: torch.Tensor, varies: list[int]) -> dict[str, Any]:
    """An input as export.json says it: `{"dtype": "int64", "shape": ["batch", "length"]}`."""
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": named(value.shape, varies)}


def named(shape: Iterable[Any], varies: Container[int]) -> list[Any]:
    """A shape with `batch` and `length` where it varies."""
    return [("batch" if place == 0 else "length") if place in varies else size for place, size in enumerate(shape)]


@contextmanager
def hushed() -> Iterator[None]:
    """Without the lines that torch and onnxruntime print and log on their way, some of them by the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def lengths_may_vary(model: PreTrainedModel) -> Iterator[None]:
    """Inside the context, `len` of a tensor in the code of the model's class is its size, which may vary.

    Python's own gives an integer, so that the traced program takes batches of one size alone: of RT-DETR, RT-DETR v2,
    and D-FINE, which say `len(source_flatten)` and do not even use it. With `strict=True` torch knows the size as
    well, but cannot decompose the graph of RT-DETR for ONNX then (torch 2.14.1).
    """
    module = sys.modules[type(model).__module__]
    if hasattr(module, "len"):  # its own
        yield
        return
    vars(module)["len"] = lambda value: value.shape[0] if isinstance(value, torch.Tensor) else len(value)
    try:
        yield
    finally:
        del vars(module)["len"]


def _onnx(model: Named, sample: Batch, dynamic: dict[str, Any], folder: Path) -> dict[str, Any]:
    import onnx_ir
    from transformers.exporters import OnnxConfig, OnnxExporter

    with eager_attention(model.model):
        program, _ = OnnxExporter().export_program(model, sample, OnnxConfig(dynamic=True, dynamic_shapes=dynamic))
    for given in program.graph.inputs:  # torch calls its axes s72 and s43
        given.shape = onnx_ir.Shape(named(given.shape, dynamic[given.name]))
    save(program, folder / FILES["onnx"])
    return {"opset": program.opset_imports[""]}


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside the context, a model computes attention by plain products.

    That of torch (sdpa) brings a check of rows without any key, which no tokenized text is, and a second scaling: 20
    more operations a layer, and 5% of a MiniLM in int8.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _pt2(model: Named, sample: Batch, dynamic: dict[str, Any], folder: Path) -> dict[str, Any]:
    from transformers.exporters import DynamoConfig, DynamoExporter

    program, _ = DynamoExporter().export_program(model, sample, DynamoConfig(dynamic=True, dynamic_shapes=dynamic))
    torch.export.save(program, str(folder / FILES["pt2"]))
    return {}


def _openvino(model: Named, sample: Batch, dynamic: dict[str, Any], folder: Path) -> dict[str, Any]:
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter

    options = OpenVINOConfig(dynamic=True, dynamic_shapes=dynamic)
    program, _ = OpenVINOExporter().export_program(model, sample, options)
    OpenVINOExporter.save_program(program, folder / FILES["openvino"])
    return {}


WRITERS: dict[str, Callable[..., dict[str, Any]]] = {"onnx": _onnx, "pt2": _pt2, "openvino": _openvino}
