"""A model that a run or an export left, with its task."""

import json
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from llmft.models import adapters, register
from llmft.models.exported import is_export, load_exported, verified
from llmft.models.weights import unmap
from llmft.schema.adapter import AdapterConfig
from llmft.schema.problem import Problem, UserError


def load_trained(run: Path, task: Any, device: str, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """The model and the task in RUN/model, in float32 on `device`. Only safetensors are read.

    A model behind a prefix comes in peft's wrapper. Of a folder that `llmft export` wrote, the program in its own
    format, on the CPU, after its files are verified.

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
        scored = manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")).get("command") == "eval"
        what = "is an evaluation: name the run that it is of" if scored else "has no model: the run did not finish"
        raise UserError(Problem(str(run), what, "command line"))
    if base != folder:
        adapters.check_package(AdapterConfig(name="prefix"))
    try:
        model = getattr(transformers, task.head).from_pretrained(
            base, use_safetensors=True, trust_remote_code=trust_remote_code, dtype="float32"
        )
        unmap(model)
        task = task.load(folder)
        if base != folder:
            model = adapters.with_prefix(model, run / "adapter")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        own_code = "trust_remote_code" in str(error)
        what = "comes with Python code of its own" if own_code else f"cannot be loaded: {str(error).splitlines()[0]}"
        hint = "If you have read it, write model.trust_remote_code=true." if own_code else ""
        raise UserError(Problem(str(folder), what, "command line", hint)) from error
    return model.to(device), task
