"""Errors of the hub and of model folders, said so that one knows what to do."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from llmft.schema.problem import Problem, UserError


@contextmanager
def explained(path: str, key: str) -> Iterator[None]:
    """Turn what transformers raises for missing or broken files at `path` into a UserError with the way out.

    `key` is the configuration key that names the path.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, struct.error) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = ""
        if "trust_remote_code" in str(error):
            what = f"{path} comes with Python code of its own"
            hint = "If you have read it, set model.trust_remote_code=true."
        elif Path(path).is_file():
            what = f"{path} cannot be read: {first}"
        elif Path(path).is_dir():
            what = f"{path} is no whole {key.rpartition('.')[2].replace('path', 'model')}: {first}"
        else:
            what = f"{path} is no folder here, and the hub did not give it: {first}"
            hint = f"Where there is a network, `hf download {path} --local-dir DIR`; then write {key}=DIR."
        raise UserError(Problem(key, what, hint=hint)) from error
