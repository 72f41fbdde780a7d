"""Errors of the hub and of model folders, said so that one knows what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from llmft.data.files import resolve
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError


@contextmanager
def explained(model: ModelConfig) -> Iterator[None]:
    """Turn what transformers raises for missing or broken files into a UserError with the way out."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        path = model.path or model.tokenizer or ""
        if "trust_remote_code" in str(error):
            problem = Problem(
                "model.path",
                f"{path} comes with Python code of its own",
                hint="If you have read it, set model.trust_remote_code=true.",
            )
        elif Path(resolve(path, "model.path")).is_dir():
            problem = Problem("model.path", f"{path} is no whole model: {first}")
        else:
            problem = Problem(
                "model.path",
                f"{path} is no folder here, and the hub did not give it: {first}",
                hint=f"Where there is a network, `hf download {path} --local-dir DIR`; then write model.path=DIR.",
            )
        raise UserError(problem) from error
