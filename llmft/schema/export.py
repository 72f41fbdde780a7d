"""The section `export`: the form in which a trained model leaves, and how near it must stay to the original."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Section

PRECISIONS = {
    "safetensors": ("fp32", "fp16"),
    "onnx": ("fp32", "fp16", "int8"),
    "pt2": ("fp32", "fp16"),
    "openvino": ("fp32", "fp16"),
}
"""The precisions that each format can be written in."""

DIFFERENCE = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.4}
"""The largest difference between the outputs of the original and of the export, as a share of the largest output."""

EXTRAS = {"onnx": ("export", ("onnx", "onnxscript", "onnxruntime")), "openvino": ("openvino", ("openvino",))}
"""The extra of llmft that a format needs, and the packages that it brings, the runtime last."""


class ExportConfig(Section):
    """What `llmft export` writes."""

    format: Literal["safetensors", "onnx", "pt2", "openvino", "gguf"] = "onnx"
    """For transformers, ONNX Runtime, `torch.export` or OpenVINO. `gguf` says how llama.cpp makes one."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Numbers of the weights. `int8` (onnx) also computes in whole numbers; other formats have `fp32` and `fp16`."""

    max_loss: float = Field(default=0.01, ge=0, le=1)
    """The most that the task's metric may lose: 0.01 is one point of accuracy, or 1% of an error such as `loss`."""
