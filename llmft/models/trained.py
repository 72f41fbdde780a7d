"""A model that a run left, with the state of its task."""

from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from transformers import PreTrainedModel

from llmft.models import register
from llmft.schema.problem import Problem, UserError


def load_trained(run: Path, task: Any, device: str, trust_remote_code: bool = False) -> tuple[PreTrainedModel, Any]:
    """The model and the state in RUN/model, in float32 on `device`. Only safetensors are read.

    Raises:
        UserError: if the run did not finish, or a file is broken.
    """
    register()
    folder = run / "model"
    if not (folder / "config.json").is_file():
        raise UserError(Problem(str(run), "has no model: the run did not finish", "command line"))
    try:
        model = getattr(transformers, task.head).from_pretrained(
            folder, use_safetensors=True, trust_remote_code=trust_remote_code, dtype="float32"
        )
        state = task.state.load(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            Problem(str(folder), f"cannot be loaded: {str(error).splitlines()[0]}", "command line")
        ) from error
    return model.to(device), state
