"""Where a model or a tokenizer lies: a folder, an id on the hub, or a GGUF file in one of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from llmft.data.files import resolve
from llmft.models.hub import explained, from_modelscope
from llmft.schema.extra import lacking
from llmft.schema.model import Hub
from llmft.schema.problem import Problem, UserError

GGUF = ".gguf"
LOCAL = (".", "~", "/", "package:")  # how a path begins that is none of a hub
MAGIC = b"GGUF"  # how such a file begins: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md


@dataclass(frozen=True)
class Place:
    """What `from_pretrained` of transformers gets."""

    name: str
    """A folder or a hub id."""
    gguf: str | None = None
    """A GGUF file, which holds configuration, tokenizer and weights: its path, or its name at the hub."""

    @property
    def options(self) -> dict[str, Any]:
        """What is said beside `name`."""
        return {"gguf_file": self.gguf} if self.gguf else {}

    def __str__(self) -> str:
        return self.gguf if self.gguf and self.is_folder else self.name

    @property
    def is_folder(self) -> bool:
        """Whether it lies here."""
        return Path(self.name).is_dir()

    def file(self, name: str, key: str, revision: str | None) -> Path:
        """The file `name` of this place, or its GGUF file, whatever it is called; from the hub, if it lies there."""
        if self.is_folder:
            return Path(self.gguf or Path(self.name, name))
        with explained(self.name, key):
            return Path(str(cached_file(self.name, self.gguf or name, revision=revision)))


def located(path: str, key: str, hub: Hub = "huggingface", revision: str | None = None) -> Place:
    """Where `path`, the value of `key`, lies: `FOLDER`, `OWNER/NAME`, `package:NAME/FOLDER`, or a file in one of them.

    Of the folder of a run it is the model that it left. What lies on ModelScope is downloaded.

    Raises:
        UserError: for a GGUF file that is not there or none, and where the package that reads it is not installed.
    """
    found = resolve(path, key)
    if (found / "model" / "config.json").is_file() and not (found / "config.json").is_file():
        found /= "model"  # of a run, what it left
    at_hub = hub == "modelscope" and not found.exists() and not path.startswith(LOCAL)
    if found.suffix.lower() != GGUF or found.is_dir():
        if at_hub:
            return Place(str(from_modelscope(path, key, revision)))
        return Place(str(found) if found.is_dir() else path)
    if problems := lacking(key, "a .gguf file", "gguf", "gguf"):
        raise UserError(problems)
    owner, _, rest = path.partition("/")
    name, _, inside = rest.partition("/")
    if found.is_file():
        with found.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise UserError(Problem(key, f"{path} is no GGUF file"))
        return Place(str(found.absolute().parent), str(found.absolute()))
    if not inside or path.startswith(LOCAL):
        raise UserError(Problem(key, f"no such file: {found}", hint=f"At the hub: {key}=OWNER/NAME/FILE.gguf."))
    if at_hub:
        folder = from_modelscope(f"{owner}/{name}", key, revision, files=inside)
        return Place(str(folder), str(folder / inside))
    return Place(f"{owner}/{name}", inside)
