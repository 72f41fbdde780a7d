"""What runs an exported model: ONNX Runtime, torch.export or OpenVINO, each a function from a batch to logits."""

from collections.abc import Callable
from pathlib import Path

import torch

from llmft.schema.export import EXTRAS
from llmft.schema.extra import lacking
from llmft.schema.problem import UserError

Session = Callable[[dict[str, torch.Tensor]], torch.Tensor]

FILES = {"onnx": "model.onnx", "pt2": "model.pt2", "openvino": "model.xml"}
"""The file that a runtime opens; OpenVINO keeps its weights in `model.bin` beside it."""


def require(format: str, running: bool = False) -> None:
    """Raise UserError where the packages of a format are not installed; `running`: all but its runtime can lack."""
    extra, packages = EXTRAS.get(format, ("", ()))
    packages = packages[-1:] if running else packages
    if problems := [problem for package in packages for problem in lacking("export.format", format, package, extra)]:
        raise UserError(problems)


def session(format: str, folder: Path) -> Session:
    """The program in `folder`, ready to answer on the CPU with as many threads as torch has."""
    opened = {"onnx": _onnx, "pt2": _pt2, "openvino": _openvino}[format]
    return opened(folder / FILES[format])


def _onnx(file: Path) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in opened.get_inputs()]  # without those that the graph does not use

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        (logits,) = opened.run(["logits"], {name: batch[name].numpy() for name in names})
        return torch.from_numpy(logits)

    return run


def _pt2(file: Path) -> Session:
    program = torch.export.load(str(file)).module()

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = program(**batch)["logits"]
        return logits

    return run


def _openvino(file: Path) -> Session:
    import openvino

    # By default OpenVINO rounds to bfloat16 where the chip has it, which moves outputs by 1e-2.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(file), "CPU", exact)
    names = {name for given in compiled.inputs for name in given.names}

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        answer = compiled({name: value.numpy() for name, value in batch.items() if name in names})
        return torch.from_numpy(answer["logits"].copy())  # the next call writes over it

    return run
