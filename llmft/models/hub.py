"""Files of a hub, and the errors of hubs and of model folders, said so that one knows what to do."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from llmft.schema.extra import lacking
from llmft.schema.problem import Problem, UserError

# What may hold code that runs when it is read; llmft reads none of it.
PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.ot"]


def from_modelscope(
    path: str, key: str, revision: str | None, kind: Literal["model", "dataset"] = "model", files: str | None = None
) -> Path:
    """The folder of a repository of modelscope.cn, downloaded if it is not there yet; its pickles stay away.

    Args:
        path: `OWNER/NAME`, the value of `key`.
        files: a pattern of those that are wanted. Unset: all.

    Raises:
        UserError: if the package is not installed, or the hub did not give it.
    """
    if problems := lacking(f"{kind}.hub", "modelscope", "modelscope", "modelscope"):
        raise UserError(problems)
    import modelscope

    load = modelscope.snapshot_download if kind == "model" else modelscope.dataset_snapshot_download
    try:
        return Path(load(path, revision=revision, allow_patterns=files, ignore_patterns=PICKLES))
    except Exception as error:  # it has dozens of kinds, those of requests among them
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = f"{path} is no folder here, and modelscope.cn did not give it: {first}"
        command = f"`modelscope download --{kind} {path} --local_dir DIR`"
        hint = f"Where there is a network, {command}; then write {key}=DIR."
        raise UserError(Problem(key, what, hint=hint)) from error


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
            hint = (
                f"Where there is a network, `hf download {path} --local-dir DIR`; then write {key}=DIR. Where "
                "huggingface.co can't be reached: HF_ENDPOINT=URL of a mirror, or model.hub=modelscope."
            )
        raise UserError(Problem(key, what, hint=hint)) from error
