"""RUN/: made once and never overwritten; every later command reads it."""

import json
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import ValidationError

from llmft.data.files import digest
from llmft.runs.ending import Interrupting
from llmft.runs.index import LOADER, ROOT, entries
from llmft.runs.lock import held
from llmft.schema.config import Config
from llmft.schema.migrate import escape, migrate, migrate_path
from llmft.schema.problem import Problem, Pruned, Stopped, UserError

MAX_BYTES, MAX_ALIASES = 256_000, 50  # of config.yaml; safe_dump writes an alias where a list stands twice

# What a run may go on with otherwise than it began: nothing that changes its weights, its log or its scores.
MAY_DIFFER = {
    "trainer.step_timeout",
    "trainer.keep",
    "trainer.keep_finished",
    "trainer.eval_batch_size",
    "dataset.cache",
}
MAY_DIFFER |= {"task.baseline", "task.importance"}  # what is looked at once the model is trained
MAY_DIFFER |= {"tracking.to", "tracking.project"}  # who is told of it


def as_recipe(config: Config) -> str:
    """The checked configuration as a recipe: `llmft COMMAND RUN/config.yaml` does the run again."""
    text = yaml.safe_dump(_recipe(config), allow_unicode=True, sort_keys=False)
    return f"# @package _global_\n{text}"


def _recipe(config: Config) -> dict[str, Any]:
    tree = config.model_dump(mode="json")
    tree["run"]["dir"] = None  # the folder that this file lies in
    tree["resume"] = tree["smoke"] = False  # it has been made small already
    del tree["sweep"]  # of how many jobs it was one
    if config.command != "export":
        del tree["export"]
    del tree["predict"], tree["chat"], tree["serve"]  # what a later command is asked
    return escape(tree)


def _saved(folder: Path) -> dict[str, Any]:
    """The configuration in a run's folder.

    Raises:
        UserError: for a file that llmft has not written: one that is too large, or whose aliases hold each other.
    """
    file = folder / "config.yaml"
    if (size := file.stat().st_size) > MAX_BYTES:
        raise UserError(Problem(str(file), f"must be at most {MAX_BYTES // 1000} kB, got {size // 1000} kB"))
    text = file.read_text(encoding="utf-8")
    try:
        # As events first: a few lines of aliases of aliases are 10^8 values once they are looked at.
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, LOADER))
        if aliases > MAX_ALIASES:
            raise UserError(Problem(str(file), f"must have at most {MAX_ALIASES} YAML aliases, got {aliases}"))
        return migrate(yaml.load(text, LOADER))
    except yaml.YAMLError as error:
        raise UserError(Problem(str(file), f"is not YAML: {str(error).splitlines()[0]}")) from error


def place(config: Config) -> Path:
    """Where a new run goes: `run.dir`, or `outputs/NAME/STAMP-xxxx`."""
    if config.run.dir is not None:
        return Path(config.run.dir)
    # Two runs may start in the same second.
    return ROOT / config.name / f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a tree by dotted key."""
    if not isinstance(tree, dict) or not tree:
        return {prefix.rstrip("."): tree}
    return {key: value for name, below in tree.items() for key, value in flat(below, f"{prefix}{name}.").items()}


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """What fails in writing names its file: by itself, `No space left on device` names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def _ended_by(error: BaseException) -> str:
    """The status of a command that did not end well."""
    if isinstance(error, Stopped | Pruned):
        return "stopped" if isinstance(error, Stopped) else "pruned"
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


class Follower(Protocol):
    """Who hears of a run's events as they happen."""

    def event(self, facts: dict[str, Any]) -> None:
        """There is a further event."""

    def forget_events_after(self, step: int) -> None:
        """Those after `step` will come again."""


@dataclass
class Run:
    """The folder of one run of a command."""

    folder: Path
    manifest: dict[str, Any] = field(default_factory=dict)
    writes: bool = True
    """Whether this process writes: where several work on one run, the first of them does."""
    lock: int | None = None
    """The descriptor that `alone` holds the folder by. A process that inherits it holds the folder too."""
    follower: Follower | None = None
    """Who is told of events besides events.jsonl."""

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
            hint = f"Write another folder{', or resume=true to continue the run in it' * config.trains}."
            raise UserError(Problem("run.dir", f"{folder} is not empty, and a run overwrites nothing", hint=hint))

    @classmethod
    def to_resume(cls, config: Config) -> "Run | None":
        """The run that `resume=true` means: that in `run.dir`, or the newest of `outputs/NAME`; None for none yet.

        Raises:
            UserError: if it is not a run of this configuration, with every key that differs.
        """
        folders = [Path(config.run.dir)] if config.run.dir else [e.folder for e in entries(ROOT / config.name)]
        for folder in folders:
            if (folder / "config.yaml").is_file():
                saved = _saved(folder)
                if saved.get("command") == config.command:  # evaluations lie beside the runs
                    break
        else:
            return None
        run = cls(folder)
        if (folder / "manifest.json").is_file():
            run.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        with suppress(ValidationError):  # keys that are younger than the run have their defaults
            saved = migrate(_recipe(Config.model_validate(saved)))
        before, now = flat(saved), flat(migrate(_recipe(config)))
        changed = [
            Problem(key, f"was {before.get(key)!r} in {run.folder} and is {now.get(key)!r} now")
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and key.partition(".")[0] != "expect" and key not in MAY_DIFFER
        ]
        if changed:
            raise UserError(
                [
                    *changed,
                    Problem(
                        "resume",
                        "goes on with the same configuration only",
                        hint=f"To train on from its weights: model.path={run.folder}",
                    ),
                ]
            )
        return run

    def check_data(self, digests: dict[str, str]) -> None:
        """Raise UserError if files are not those that the run was started with."""
        before = {migrate_path(file): found for file, found in self.manifest.get("data", digests).items()}
        if before != digests:
            files = sorted({file for file, _ in set(before.items()) ^ set(digests.items())})
            raise UserError([Problem(file, "is not what the run was started with") for file in files], "the data")

    @property
    def again(self) -> str:
        """The command that goes on with a run that was stopped."""
        config, file = self.config(), self.folder / "config.yaml"
        words = ["llmft", config.command, str(file), f"run.dir={self.folder}", "resume=true"]
        if config.model.trust_remote_code:  # which only a person may say
            words.append("model.trust_remote_code=true")
        return shlex.join(words)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder against a second process; the lock goes with the process, however it ends.

        Raises:
            UserError: if another process holds it, or it cannot be locked.
        """
        with held(self.folder, "another process") as self.lock:
            yield

    @classmethod
    def create(cls, config: Config) -> "Run":
        """Make the folder: `run.dir`, or `outputs/NAME/STAMP-xxxx`.

        Raises:
            UserError: as `check` does, or where no folder can be made.
        """
        cls.check(config)
        run = cls(place(config))
        try:
            run.folder.mkdir(parents=True, exist_ok=config.run.dir is not None)
            run.write_text("config.yaml", as_recipe(config))
        except OSError as error:
            raise UserError(Problem("run.dir", f"{run.folder}: {error.strerror}")) from error
        return run

    @classmethod
    def open(cls, folder: Path, writes: bool = True) -> "Run":
        """A run that has begun.

        Raises:
            UserError: if there is none.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except OSError as error:
            hint = "Begin it with llmft finetune."
            raise UserError(Problem(str(folder), "is not a run: it has no manifest.json", hint=hint)) from error
        return cls(folder, manifest, writes)

    def config(self) -> Config:
        """The checked configuration that the run was begun with."""
        return Config.model_validate(_saved(self.folder))

    def metrics(self) -> dict[str, Any]:
        """The scores of a run that is done."""
        found: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        return found

    def weights_digest(self) -> dict[str, str]:
        """sha256 of the trained weights, by file."""
        files = sorted(self.model.rglob("*.safetensors"))
        return {file.relative_to(self.model).as_posix(): digest(file) for file in files}

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.folder / "model"

    def write_text(self, name: str, text: str) -> Path:
        """Write a file below the folder, whole or not at all."""
        path = self.folder / name
        if not self.writes:
            return path
        partial = path.with_name(f".{path.name}.part")
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("w", encoding="utf-8") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` as JSON, text in any script as it is."""
        return self.write_text(name, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")

    def event(self, facts: dict[str, Any]) -> None:
        """Append a line to events.jsonl."""
        if not self.writes:
            return
        file = self.folder / "events.jsonl"
        with _naming(file), file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**facts, "time": round(time.time(), 3)}, ensure_ascii=False) + "\n")
        if self.follower:
            self.follower.event(facts)

    def forget_events_after(self, step: int) -> None:
        """Drop the events that come after the checkpoint that the run goes on from."""
        if (self.folder / "events.jsonl").is_file():
            kept = [json.dumps(event, ensure_ascii=False) for event in self.events() if event["step"] <= step]
            self.write_text("events.jsonl", "".join(f"{line}\n" for line in kept))
        if self.follower:
            self.follower.forget_events_after(step)

    def events(self) -> list[dict[str, Any]]:
        """Every logged step."""
        file = self.folder / "events.jsonl"
        if not file.is_file():
            return []
        # What follows the last line end was cut off as it was written.
        return [json.loads(line) for line in file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]]

    def write_predictions(self, split: str, rows: Iterator[dict[str, Any]]) -> Path:
        """Write predictions/SPLIT.jsonl, a line a row."""
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        return self.write_text(f"predictions/{split}.jsonl", "\n".join(lines) + "\n")

    @contextmanager
    def recorded(self, facts: dict[str, Any]) -> Iterator[None]:
        """Keep manifest.json while a command runs: its status is `running`, then `done`, `failed` or `interrupted`."""
        self.manifest = {"format": 1, "status": "running", **facts}
        self.write_json("manifest.json", self.manifest)
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # on a full disk, what ended the command is what a person must hear of
                self.note(status=_ended_by(error))
            raise
        self.note(status="done")

    def note(self, **facts: Any) -> None:
        """Add facts to manifest.json, to which processes of this run may have added theirs."""
        file = self.folder / "manifest.json"
        self.manifest = json.loads(file.read_text(encoding="utf-8")) | facts
        self.write_json("manifest.json", self.manifest)


@contextmanager
def whole(config: Config) -> Iterator[Run]:
    """Fill a hidden folder beside the run's own; at the end it gets its name. After an error nothing is left.

    Raises:
        UserError: as `Run.create` does.
    """
    Run.check(config)
    folder = place(config)
    run = Run(folder.with_name(f".{folder.name}-{secrets.token_hex(4)}"))
    try:
        with Interrupting():
            try:
                run.folder.mkdir(parents=True)
            except OSError as error:
                raise UserError(Problem("run.dir", f"{folder}: {error.strerror}")) from error
            run.write_text("config.yaml", as_recipe(config))
            yield run
            try:
                run.folder.rename(folder)
            except OSError as error:  # somebody has put something there meanwhile
                raise UserError(Problem("run.dir", f"{folder}: {error.strerror}")) from error
    except BaseException:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise
    run.folder = folder
