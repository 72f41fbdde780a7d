"""The sections of commands that use a finished run: generation, predict, chat, export, and ensemble."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Cell, Section, Text


class GenerationConfig(Section):
    """Generation: how a model writes texts, token by token. Without `sample`, it takes the most probable token, and
    answers repeat exactly."""

    max_new_tokens: int = Field(default=64, ge=1)
    """Largest number of tokens in a generated text. It ends earlier if the model writes its end token."""

    beams: int = Field(default=1, ge=1)
    """Beam search with this many beams; the most probable whole text wins. 1: greedy, the most probable next token.
    More take more time."""

    length_penalty: float = 1.0
    """beams: above 0, longer texts are preferred; below 0, shorter ones."""

    sample: bool = False
    """Draw each token by its probability, with `seed`, instead of taking the most probable one."""

    temperature: float = Field(default=1.0, gt=0)
    """sample: divides the logits. Below 1, probable tokens become more probable; above 1, texts vary more."""

    top_k: int | None = Field(default=None, ge=1)
    """sample: draw among this many of the most probable tokens. Unset: among all."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """sample: draw among the most probable tokens that together reach this probability. Unset: among all."""

    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1, tokens that were already generated become less probable. Tokens of the prompt do not count."""

    no_repeat: int | None = Field(default=None, ge=1)
    """No sequence of this many tokens is generated twice. Sequences of the prompt do not count."""


class PredictConfig(Section):
    """What `llmft predict RUN` reads and writes."""

    input: str | None = None
    """A file of rows, or `-` for standard input; for tasks on images also an image, a folder of them, or a pattern such
    as `'photos/*.jpg'`. Unset: standard input, if something is piped in."""

    input_format: (
        Literal["csv", "tsv", "json", "parquet", "excel", "sqlite", "arrow", "txt", "conll", "squad"] | None
    ) = None
    """Format of the input. `json`: an object per line, or a list; `txt`: a text per line, or the path or the base64 of
    an image; `squad`: SQuAD's JSON. Unset: by the file's first bytes and ending; by the first line for standard input
    and for other endings."""

    text: Text | None = None
    """One text to answer, instead of a file."""

    image: Text | None = None
    """One image to answer, for tasks on images: its file, or its bytes in base64."""

    text_pair: Text | None = None
    """The second text of a pair, for a run that was trained on pairs."""

    row: dict[str, Cell] | None = None
    """One row to answer, instead of a file: `{COLUMN: VALUE, ...}`, or a JSON object."""

    output: str | None = None
    """The file for the answers; it must not exist. Unset: standard output."""

    format: Literal["jsonl", "csv", "parquet", "npy"] | None = None
    """Format of the answers. `npy`: vectors alone, as a numpy array (rows, numbers) of float32. Unset: by the ending of
    `output`; `jsonl` on standard output."""

    encoding: str = "utf-8"
    """Encoding of `output`: `utf-8-sig` for a csv that Excel opens, `gb18030`, ... The encoding of the input is
    `dataset.encoding`."""

    masks: str | None = None
    """For answers with a mask: a folder for the masks, as PNG files with a palette under the names of the images. It
    must be new or empty. Unset: each answer has its mask in base64."""

    draw: str | None = None
    """A folder for the images with the answers drawn on them, such as boxes with labels, as PNG files. It must be new
    or empty. Unset: nothing is drawn."""

    explain: bool = False
    """Say which parts of an input speak for its answer: `explanation` then has a weight for each region of an image,
    word of a text, or column of a table, by how much the answer loses without it. Each row takes 50 to 100 times as
    long. For tasks that give a label, a number, spans, boxes, or masks."""

    keep: list[str] = Field(default_factory=list)
    """Columns of the input to copy next to each answer. A column `id` is always copied, in place of the row number."""


class ChatConfig(Section):
    """A conversation with a finished run, `llmft chat RUN`."""

    system: str | None = None
    """The system prompt. Unset: that of the training rows, if all had the same. Empty: none."""


PRECISIONS = {
    "safetensors": ("fp32", "fp16"),
    "onnx": ("fp32", "fp16", "int8"),
    "pt2": ("fp32", "fp16"),
    "openvino": ("fp32", "fp16"),
}
"""The precisions that each format can be written in."""

DIFFERENCE = {"fp32": 1e-4, "fp16": 0.02, "int8": 1.0}
"""The largest allowed difference between outputs of the original and of the export, as a share of the largest
output. For int8 the metric decides, and this only finds what is broken: the worst of 300 rows of the review classifier
is at 0.22 to 0.36, depending on the rows that it was calibrated with, and one box of another class is at 1."""

EXTRAS = {"onnx": ("export", ("onnx", "onnxscript", "onnxruntime")), "openvino": ("openvino", ("openvino",))}
"""The extra of llmft that a format needs, and the packages in it, the runtime last."""


class ExportConfig(Section):
    """What `llmft export` writes."""

    format: Literal["safetensors", "onnx", "pt2", "openvino", "gguf"] = "onnx"
    """The target: transformers (`safetensors`), ONNX Runtime (`onnx`), `torch.export` (`pt2`), or OpenVINO. `gguf` only
    prints how llama.cpp converts the model."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Number format of the weights. `int8` (onnx only) also computes in integers, whose ranges are calibrated with 60
    validation rows, or rows of train; the other formats offer `fp32` and `fp16`."""

    max_loss: float = Field(default=0.01, ge=0, le=1)
    """The most that the task's metric may get worse: 0.01 is one point of accuracy, or 1% of an error such as `loss`.
    Beyond it the export fails."""


class EnsembleConfig(Section):
    """Several runs that answer together: `llmft eval RUN RUN ensemble=mean`. The folder of a sweep stands for all its
    runs."""

    name: Literal["mean", "vote"] = "mean"
    """`mean`: the mean of the probabilities or of the predicted numbers. `vote`: the most frequent answer; the mean
    decides ties."""

    weights: list[float] | None = None
    """The weight of each run, in the order of the runs, at least 0. Unset: all equal."""

    runs: list[str] = Field(default_factory=list)
    """The folders of the runs: the paths after `llmft eval`."""
