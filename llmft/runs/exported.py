"""The folder of `llmft export`: export.json, its files verified, and its ONNX program, opened without torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.data.committed import fault
from llmft.schema.inference import EXTRAS
from llmft.schema.problem import Problem, UserError, missing_package

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FACTS = "export.json"
FILES = {"onnx": "model.onnx", "pt2": "model.pt2", "openvino": "model.xml"}
"""The file of a program by format. OpenVINO has its weights beside it, in model.bin."""


def is_export(folder: Path) -> bool:
    """Whether `llmft export` wrote the folder."""
    return (folder / FACTS).is_file()


def verified(folder: Path, trust_remote_code: bool = False) -> dict[str, Any]:
    """The content of export.json, after the sha256 of every file of the model has been compared.

    Exports of earlier versions lack some of it: `reads` is then "logits", and `quantization` of int8 is "dynamic".

    Raises:
        UserError: for a changed or missing file, a missing runtime, or a pt2 file without `trust_remote_code`.
    """
    if why := fault(folder / "model"):
        raise UserError(Problem(str(folder / "model"), why, "command line", "Export the run again."))
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        require(facts["format"], running=True)
        facts.setdefault("quantization", "dynamic" if facts["precision"] == "int8" else None)
    except (ValueError, KeyError) as error:
        raise UserError(Problem(str(folder / FACTS), f"cannot be read: {error}", "command line")) from error
    if facts["format"] == "pt2" and not trust_remote_code:
        what = "is a pt2 file, and torch.export.load runs code that such a file can contain"
        hint = "If you made it, or trust who did, write model.trust_remote_code=true."
        raise UserError(Problem(str(folder), what, "command line", hint))
    return facts


def require(format: str, running: bool = False) -> None:
    """Raise UserError if packages of an export format are not installed.

    Args:
        running: only the runtime is needed, which is the last of its packages, and not those that write it.
    """
    extra, packages = EXTRAS.get(format, ("", ()))
    packages = packages[-1:] if running else packages
    if problems := [
        problem for package in packages for problem in missing_package("export.format", format, package, extra)
    ]:
        raise UserError(problems)


def open_onnx(file: Path, threads: int, spin: bool = True) -> "InferenceSession":
    """The program in an ONNX file, on the CPU.

    Args:
        threads: how many compute one call.
        spin: whether idle threads wait in a loop. That saves up to 0.1 ms a call, and takes three times the processor
            time of a service with pauses between its requests.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    # The fused kernel takes 8.1 ms for what Add and LayerNormalization do in 1.2, which is a fifth of a BERT in int8.
    slow = ["SkipLayerNormFusion"]
    return onnxruntime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=slow
    )
