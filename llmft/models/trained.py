"""Loads the model of a run or an export, with its task. ONNX Runtime, torch, or OpenVINO runs an exported program."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.utils import ModelOutput

from llmft.models import adapters, register
from llmft.models.weights import unmap_weights
from llmft.runs.exported import FILES, is_export, open_onnx, verified
from llmft.schema.model import AdapterConfig
from llmft.schema.problem import Problem, UserError

Session = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
"""A loaded program: from a batch to its outputs, without those for people who use it without llmft."""
BOXES = "pred_boxes"
READOUTS = ("scores", "answer")
"""Outputs that llmft does not read: it computes them from the logits in float64."""


def load_trained(run: Path, task: Any, device: str, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """The model and task in RUN/model, in float32 on `device`. Weights are read from safetensors only.

    A model behind a prefix comes in peft's wrapper. The folder of `llmft export` gives its program, on the CPU, after
    its files have been verified.

    Raises:
        UserError: if the run did not finish, or a file is broken.
    """
    register()
    folder = run / "model"
    if is_export(run) and (facts := verified(run, trust_remote_code))["format"] != "safetensors":
        return load_exported(run, facts), task.load(folder)
    base = folder / adapters.BASE if (folder / adapters.BASE).is_dir() else folder
    if not (base / "config.json").is_file():
        manifest = run / "manifest.json"
        command = json.loads(manifest.read_text(encoding="utf-8")).get("command") if manifest.is_file() else ""
        kind = {"eval": "an evaluation", "monitor": "a comparison"}.get(str(command))
        what = f"is {kind} and has no model: name its run" if kind else "has no model: the run did not finish"
        raise UserError(Problem(str(run), what, "command line"))
    if base != folder:
        adapters.check_package(AdapterConfig(name="prefix"))
    try:
        model = getattr(transformers, task.head).from_pretrained(
            base, use_safetensors=True, trust_remote_code=trust_remote_code, dtype="float32"
        )
        unmap_weights(model)
        task = task.load(folder)
        if base != folder:
            model = adapters.with_prefix(model, run / "adapter")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        own_code = "trust_remote_code" in str(error)
        what = "comes with its own Python code" if own_code else f"cannot be loaded: {str(error).splitlines()[0]}"
        hint = "If you have read it, write model.trust_remote_code=true." if own_code else ""
        raise UserError(Problem(str(folder), what, "command line", hint)) from error
    return model.to(device), task


@dataclass
class ProgramOutput(ModelOutput):
    """The outputs of a program as a model has them."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    outputs: torch.Tensor | None = None
    """What the task decodes, as `Objective.read` gives it."""


class Exported(torch.nn.Module):
    """A program behind the interface of a model: takes the same batch, gives logits and loss."""

    def __init__(self, facts: dict[str, Any], config: PreTrainedConfig, program: Session) -> None:
        """`facts` is the content of export.json, as `verified` gives it."""
        super().__init__()
        self.config = config
        self.program = program
        self.kinds = {name: getattr(torch, given["dtype"]) for name, given in facts["inputs"].items()}
        self.takes = {*self.kinds, "labels"}
        self.reads = facts.get("reads", "")
        self.count = int(facts["parameters"])
        self.origin = f"exported to {facts['format']}, {facts['precision']}"
        # Batches go to the device of a model's parameters. So it has one, empty and on the CPU, where programs run.
        self.place = torch.nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, labels: Any = None, **inputs: torch.Tensor) -> "ProgramOutput":
        """Logits (B, num_labels), and with `labels` their mean loss by transformers' own function.

        A program of a detector has boxes too, and no loss: that is a part of the model that was trained.
        """
        found = self.program({name: inputs[name].to(kind) for name, kind in self.kinds.items()})
        logits = found.get("logits")  # a program of embeddings has none
        output = ProgramOutput(logits=None if logits is None else logits.float(), pred_boxes=found.get(BOXES))
        if self.reads in found:
            output.outputs = found[self.reads].float() if found[self.reads].is_floating_point() else found[self.reads]
        if labels is not None and logits is not None and output.pred_boxes is None:
            output.loss = ForSequenceClassificationLoss(labels, output.logits, self.config)
        return output

    def num_parameters(self) -> int:
        """The number of parameters of the exported model."""
        return self.count


def load_exported(folder: Path, facts: dict[str, Any]) -> Exported:
    """The program of an export folder, loaded into its runtime.

    Raises:
        UserError: if the runtime refuses it, as an older version may.
    """
    try:
        config = AutoConfig.from_pretrained(folder / "model", trust_remote_code=False)
        return Exported(facts, config, session(facts["format"], folder / "model"))
    except Exception as error:  # each runtime raises its own classes
        what = f"cannot be loaded: {str(error).splitlines()[0]}"
        raise UserError(Problem(str(folder / "model"), what, "command line")) from error


def session(format: str, folder: Path) -> Session:
    """The program in `folder`, loaded on the CPU with as many threads as torch uses."""
    opened = {"onnx": _onnx, "pt2": _pt2, "openvino": _openvino}[format]
    return opened(folder / FILES[format])


def _onnx(file: Path) -> Session:
    opened = open_onnx(file, torch.get_num_threads())
    names = [given.name for given in opened.get_inputs()]  # inputs that the graph does not use are not among them

    read = [given.name for given in opened.get_outputs() if given.name not in READOUTS]

    def run(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = opened.run(read, {name: batch[name].numpy() for name in names})
        return {name: torch.from_numpy(values) for name, values in zip(read, found, strict=True)}

    return run


def _pt2(file: Path) -> Session:
    program = torch.export.load(str(file)).module()

    def run(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(program(**batch))

    return run


def _openvino(file: Path) -> Session:
    import openvino

    # By default OpenVINO computes in bfloat16 if the chip can, which moves outputs by 1e-2.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(file), "CPU", exact)
    names = {name for given in compiled.inputs for name in given.names}

    read = [name for given in compiled.outputs for name in given.names if name not in READOUTS]

    def run(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        answer = compiled({name: value.numpy() for name, value in batch.items() if name in names})
        # Copies: the next call overwrites OpenVINO's own buffer.
        return {name: torch.from_numpy(answer[name].copy()) for name in read}

    return run
