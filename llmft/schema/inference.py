"""The sections of commands that use a finished run: generation, predict, chat, export, and ensemble."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Cell, Section, Text


class GenerationConfig(Section):
    """How texts are written, token by token. Without `sample` the likeliest is taken, and answers repeat exactly."""

    max_new_tokens: int = Field(default=64, ge=1)
    """Tokens that a text has at most; it ends before where the model says so."""

    beams: int = Field(default=1, ge=1)
    """Beginnings that are followed side by side; the best whole one wins. 1: the likeliest next token is taken."""

    length_penalty: float = 1.0
    """beams: above 0 longer texts are preferred, below 0 shorter ones."""

    sample: bool = False
    """Draw each token by its probability, by `seed`, instead of taking the likeliest."""

    temperature: float = Field(default=1.0, gt=0)
    """sample: below 1 likely tokens become likelier, above 1 all become more alike."""

    top_k: int | None = Field(default=None, ge=1)
    """sample: draw among this many of the likeliest tokens."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """sample: draw among the likeliest tokens that make up this share together."""

    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1, tokens that have been written become less likely; those of a prompt don't count."""

    no_repeat: int | None = Field(default=None, ge=1)
    """No run of so many tokens is written twice; what stands in a prompt may be."""


class PredictConfig(Section):
    """Answers of a finished run for new rows, by `llmft predict RUN`."""

    input: str | None = None
    """A file of rows, or `-` for standard input. Unset: what is piped in."""

    input_format: (
        Literal["csv", "tsv", "json", "parquet", "excel", "sqlite", "arrow", "txt", "conll", "squad"] | None
    ) = None
    """How to read the input; `json` takes one object a line or a list, `txt` one text a line, `squad`
    SQuAD's JSON. Unset: by the file's first bytes and ending; standard input, and a file of another ending, by the
    first line."""

    text: Text | None = None
    """A text to answer, instead of a file."""

    text_pair: Text | None = None
    """The second text, for a run that was trained on pairs."""

    row: dict[str, Cell] | None = None
    """A row to answer, instead of a file: `{COLUMN: VALUE, ...}`, or a JSON object."""

    output: str | None = None
    """The file of the answers; it must not be there yet. Unset: standard output."""

    format: Literal["jsonl", "csv"] | None = None
    """How to write the answers. Unset: by the ending of `output`; `jsonl` on standard output."""

    encoding: str = "utf-8"
    """How to write the answers to `output`: `utf-8-sig` for a csv that Excel opens, `gb18030`, ... What the input is in
    says `dataset.encoding`."""

    keep: list[str] = Field(default_factory=list)
    """Columns of the input that stand beside each answer. A column `id` always does, in place of the row's number."""


class ChatConfig(Section):
    """A conversation with a finished run, by `llmft chat RUN`."""

    system: str | None = None
    """The system prompt. Unset: that of the training rows, where all had the same; empty for none."""


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


class EnsembleConfig(Section):
    """Several runs that answer together: `llmft eval RUN RUN ensemble=mean`. A sweep's folder names all its runs."""

    name: Literal["mean", "vote"] = "mean"
    """`mean` of the probabilities, or of the numbers; `vote`: what most runs answer, and among equals the mean."""

    weights: list[float] | None = None
    """How much each run counts, in the order of the runs, from 0 on. Unset: all alike."""

    runs: list[str] = Field(default_factory=list)
    """The folders of the runs: the words after `llmft eval`."""
