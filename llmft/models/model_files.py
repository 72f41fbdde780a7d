"""Locates the files of a model or tokenizer: a folder, a hub repository, or a GGUF file in one of them."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import cached_file

from llmft.data.files import resolve
from llmft.schema.model import Hub, ModelConfig
from llmft.schema.problem import Problem, UserError, missing_package

GGUF = ".gguf"
LOCAL = (".", "~", "/", "package:")  # prefixes of a path that is never a hub id
MAGIC = b"GGUF"  # the first bytes of a GGUF file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
# Files that may hold code which runs when they are read. llmft reads none of them, so none is downloaded.
PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.ot"]


def from_modelscope(
    path: str, key: str, revision: str | None, kind: Literal["model", "dataset"] = "model", files: str | None = None
) -> Path:
    """The local folder of a repository at modelscope.cn, downloaded if it is not there yet, without pickles.

    Args:
        path: `OWNER/NAME`, the value of the config key `key`.
        files: a pattern of the files to download; None for all.

    Raises:
        UserError: if the package modelscope is not installed, or the download failed.
    """
    if problems := missing_package(f"{kind}.hub", "modelscope", "modelscope", "modelscope"):
        raise UserError(problems)
    import modelscope

    load = modelscope.snapshot_download if kind == "model" else modelscope.dataset_snapshot_download
    try:
        return Path(load(path, revision=revision, allow_patterns=files, ignore_patterns=PICKLES))
    except Exception as error:  # modelscope raises dozens of classes, those of requests among them
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = f"{path} is not a folder here, and modelscope.cn did not give it: {first}"
        command = f"modelscope download --{kind} {path} --local_dir DIR"
        hint = f"Where there is a network, run {command}; then write {key}=DIR."
        raise UserError(Problem(key, what, hint=hint)) from error


@contextmanager
def user_errors(path: str, key: str) -> Iterator[None]:
    """Turn the errors of transformers for missing or broken files into a UserError that says what to do.

    Args:
        path: where the files are read from.
        key: the config key with that path.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, StrictDataclassError, struct.error) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        first = lines[-1].strip() if isinstance(error, StrictDataclassError) else lines[0]
        hint = ""
        if first.startswith("Couldn't instantiate the backend tokenizer"):  # a colon and a list of ways follow
            first = "it has no tokenizer"
        if "trust_remote_code" in str(error):
            what = f"{path} comes with its own Python code"
            hint = "If you have read it, set model.trust_remote_code=true."
        elif Path(path).is_file():
            what = f"{path} cannot be read: {first}"
        elif Path(path).is_dir():
            what = f"{path} is not a complete {key.rpartition('.')[2].replace('path', 'model')}: {first}"
        else:
            what = f"{path} is not a folder here, and the hub did not give it: {first}"
            hint = (
                f"Where there is a network, run hf download {path} --local-dir DIR; then write {key}=DIR. Where "
                "huggingface.co cannot be reached: HF_ENDPOINT=URL of a mirror, or model.hub=modelscope."
            )
        raise UserError(Problem(key, what, hint=hint)) from error


@dataclass(frozen=True)
class Location:
    """Where `from_pretrained` of transformers finds the files."""

    name: str
    """A folder or a hub id."""
    gguf: str | None = None
    """A GGUF file, which holds config, tokenizer, and weights: its path, or its name in the repository."""

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `from_pretrained` besides `name`."""
        return {"gguf_file": self.gguf} if self.gguf else {}

    def __str__(self) -> str:
        return self.gguf if self.gguf and self.is_folder else self.name

    @property
    def is_folder(self) -> bool:
        """Whether it is a local folder."""
        return Path(self.name).is_dir()

    def file(self, name: str, key: str, revision: str | None) -> Path:
        """The path of the file `name`, or of the GGUF file whatever its name; downloaded from the hub if needed."""
        if self.is_folder:
            return Path(self.gguf or Path(self.name, name))
        with user_errors(self.name, key):
            return Path(str(cached_file(self.name, self.gguf or name, revision=revision)))


def locate(path: str, key: str, hub: Hub = "huggingface", revision: str | None = None) -> Location:
    """The place of `path`, the value of the config key `key`.

    Args:
        path: `FOLDER`, `OWNER/NAME`, `package:NAME/FOLDER`, or a GGUF file in one of them. The folder of a run stands
            for its model. A repository of ModelScope is downloaded.

    Raises:
        UserError: if a GGUF file does not exist or is not one, or the package that reads it is not installed.
    """
    found = resolve(path, key)
    if (found / "model" / "config.json").is_file() and not (found / "config.json").is_file():
        found /= "model"  # `found` is a run folder
    at_hub = hub == "modelscope" and not found.exists() and not path.startswith(LOCAL)
    if found.suffix.lower() != GGUF or found.is_dir():
        if at_hub:
            return Location(str(from_modelscope(path, key, revision)))
        return Location(str(found) if found.is_dir() else path)
    if problems := missing_package(key, "a .gguf file", "gguf", "gguf"):
        raise UserError(problems)
    owner, _, rest = path.partition("/")
    name, _, inside = rest.partition("/")
    if found.is_file():
        with found.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise UserError(Problem(key, f"{path} is not a GGUF file"))
        return Location(str(found.absolute().parent), str(found.absolute()))
    if not inside or path.startswith(LOCAL):
        raise UserError(
            Problem(
                key,
                f"must be a file, got {found}, which does not exist",
                hint=f"At the hub: {key}=OWNER/NAME/FILE.gguf.",
            )
        )
    if at_hub:
        folder = from_modelscope(f"{owner}/{name}", key, revision, files=inside)
        return Location(str(folder), str(folder / inside))
    return Location(f"{owner}/{name}", inside)


def processor_files(model: ModelConfig) -> list[Path]:
    """The files beside pretrained weights that say how images are prepared for them: those that there are."""
    if model.first_weights != "pretrained" or model.path is None:
        return []
    place = locate(model.path, "model.path", model.hub, model.revision)
    found = []
    for name in ("config.json", "preprocessor_config.json"):
        with suppress(UserError):  # transformers reports what is missing, when it loads the weights
            found.append(place.file(name, "model.path", model.revision))
    return [file for file in found if file.is_file()]
