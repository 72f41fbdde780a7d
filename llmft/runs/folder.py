"""RUN/: made once and never written over; every later command reads it."""

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from llmft.data.files import digest
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError

ROOT = Path("outputs")


def as_recipe(config: Config) -> str:
    """The checked configuration as a recipe: `llmft finetune RUN/config.yaml` does the run again."""
    tree = config.model_dump(mode="json")
    tree["run"]["dir"] = None  # the folder that this file lies in
    return "# @package _global_\n" + yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)


@dataclass
class Run:
    """The folder of one run of a command."""

    folder: Path
    manifest: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def check(config: Config) -> None:
        """Raise UserError if `run.dir` holds anything, or `name` leads out of `outputs` by a link."""
        if config.run.dir is None:
            parent = ROOT / config.name
            if not parent.resolve().is_relative_to(ROOT.resolve()):
                raise UserError(Problem("name", f"{parent} leads out of {ROOT} by a link"))
            return
        folder = Path(config.run.dir)
        try:
            used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        except OSError as error:
            raise UserError(Problem("run.dir", f"{folder}: {error.strerror}")) from error
        if used:
            raise UserError(Problem("run.dir", f"{folder} is not empty; a run is never written over"))

    @classmethod
    def create(cls, config: Config) -> "Run":
        """Make the folder: `run.dir`, or `outputs/NAME/STAMP-xxxx`.

        Raises:
            UserError: as `check` does, or where no folder can be made.
        """
        cls.check(config)
        # Two runs may start in the same second.
        stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        run = cls(Path(config.run.dir) if config.run.dir is not None else ROOT / config.name / stamp)
        try:
            run.folder.mkdir(parents=True, exist_ok=config.run.dir is not None)
            run.write_text("config.yaml", as_recipe(config))
        except OSError as error:
            raise UserError(Problem("run.dir", f"{run.folder}: {error.strerror}")) from error
        return run

    def weights_digest(self) -> dict[str, str]:
        """sha256 of the trained weights, by file."""
        return {file.name: digest(file) for file in sorted(self.model.glob("*.safetensors"))}

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.folder / "model"

    def write_text(self, name: str, text: str) -> Path:
        """Write a file below the folder, whole or not at all."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` as JSON, text in any script as it is."""
        return self.write_text(name, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")

    def event(self, facts: dict[str, Any]) -> None:
        """Append a line to events.jsonl."""
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**facts, "time": round(time.time(), 3)}, ensure_ascii=False) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """Every logged step."""
        file = self.folder / "events.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []

    def write_predictions(self, split: str, rows: Iterator[dict[str, Any]]) -> Path:
        """Write predictions/SPLIT.jsonl, a line a row."""
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        return self.write_text(f"predictions/{split}.jsonl", "\n".join(lines) + "\n")

    @contextmanager
    def recorded(self, facts: dict[str, Any]) -> Iterator[None]:
        """Keep manifest.json while a command runs: its status is `running`, then `done`, `failed` or `interrupted`."""
        self.manifest = {"format": 1, "status": "running", **facts}
        self.write_json("manifest.json", self.manifest)
        status = "failed"
        try:
            yield
            status = "done"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            self.note(status=status)

    def note(self, **facts: Any) -> None:
        """Add facts to manifest.json."""
        self.manifest |= facts
        self.write_json("manifest.json", self.manifest)
