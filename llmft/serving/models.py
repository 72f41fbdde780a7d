"""The models of a service by name: loaded, verified, warmed, and replaced by newer versions while they answer."""

import hashlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from llmft.data.cell_values import joined_name
from llmft.data.committed import MANIFEST
from llmft.data.files import digest
from llmft.data.source import Rows, Table
from llmft.exports.runtime import split
from llmft.predictions.inputs import Inputs, Part, Row
from llmft.runs.exported import is_export
from llmft.runs.folder import Run
from llmft.runs.index import find_run
from llmft.schema.config import Config
from llmft.schema.problem import Failure, Problem, UserError
from llmft.serving.batcher import Admission, Batcher, Work
from llmft.serving.engines import Engine, open_engine
from llmft.serving.http import Refused
from llmft.serving.metrics import Watch
from llmft.tasks.explaining import explained
from llmft.tasks.optional import Draws, Explains, HasExample
from llmft.tasks.task import Answer, Task

if TYPE_CHECKING:
    from llmft.predictions.continuation import Writer

WEIGHTS = ".safetensors"


class Encoded(NamedTuple):
    """Rows that have passed all checks, and their features."""

    rows: Table
    features: list[dict[str, Any]]
    owners: list[int]
    """The row of each feature."""
    cut: list[int]
    """The rows that lost some of their tokens."""


@dataclass(eq=False)
class Served:
    """One version of a model."""

    name: str
    source: Path
    """The run or the export. It may be gone."""
    folder: Path
    """The files of the model when they were read."""
    config: Config
    engine: Engine
    sha256: str
    batcher: Batcher
    users: int = 0
    """Requests that it answers now; see `Models.hold`."""
    retired: bool = False
    lock: Lock = field(default_factory=Lock)
    """Held while the two above change: versions are replaced in another thread than that of the requests."""
    example: Answer = field(default_factory=dict)
    """Its answer to a made-up row."""

    @property
    def task(self) -> Task[Any]:
        """The task with its state, for rows of predict."""
        return self.engine.task

    @property
    def model(self) -> Any:
        """The torch model; None for a program."""
        return self.engine.model

    @cached_property
    def writer(self) -> "Writer | None":
        """What continues texts with it; None if it is not a causal language model."""
        if self.model is None or self.task.head != "AutoModelForCausalLM":
            return None
        from llmft.predictions.continuation import Writer  # imports torch, as the model has done

        return Writer.of(self.model, self.task, self.config.model.path is None)

    @property
    def version(self) -> str:
        """Twelve digits that differ where files of the model differ."""
        return self.sha256[:12]

    @property
    def example_row(self) -> dict[str, Any]:
        """A made-up row as a client sends it; an image is `BASE64`."""
        (row,) = example_rows(self.task)
        kinds = {role: self.task.columns[role].kind for role in row if role != "id"}
        of_table = next((row[role] for role, kind in kinds.items() if kind == "features"), None)
        dataset = self.config.dataset
        return of_table or {joined_name(dataset, role): _as_sent(row[role], kind) for role, kind in kinds.items()}

    @property
    def example_body(self) -> str:
        """A body of a request with a made-up row, as JSON."""
        return json.dumps({"rows": [self.example_row]}, ensure_ascii=False)

    @cached_property
    def inputs(self) -> Inputs:
        """How rows become rows by role; rows of JSON hold lists and objects."""
        return Inputs(self.task, self.config.dataset.model_copy(update={"format": "json"}))

    def read(self, rows: Sequence[Row]) -> tuple[list[Part[Encoded]], dict[int, str]]:
        """The good rows, encoded, and why the others are bad."""
        return self.inputs.split(rows, self.encode)

    def encode(self, rows: Rows) -> Encoded:
        """The features of rows by role.

        Raises:
            UserError: for rows that cannot be encoded, such as an image that cannot be decoded.
        """
        columns = {name: list(rows[name]) for name in rows.column_names}
        for role, spec in self.inputs.columns.items():
            for place, cell in zip(columns["id"], columns.get(role, ()) if spec.kind == "image" else (), strict=False):
                if not cell or not cell["bytes"]:  # never a path: a client could read files of this machine
                    raise UserError(Problem(place, "must have an image in base64"))
        try:
            features = self.task.encode(columns)
        except UnicodeEncodeError as error:  # tokenizers take whole characters
            what = "holds half of a surrogate pair, which is not a character"
            raise UserError(Problem(columns["id"][0], what)) from error
        owners = features["row"]
        lost = features.get("cut", [])
        cut = sorted({row for row, one in zip(owners, lost, strict=True) if one}) if lost else []
        table = (
            rows if isinstance(rows, Table) else Table({n: c for n, c in columns.items() if n != "id"}, columns["id"])
        )
        return Encoded(table, split(features), owners, cut)

    def submit(
        self,
        encoded: Encoded,
        heard: Callable[[list[Answer]], None] | None = None,
        later: bool = False,
        decode: Callable[[list[Any], Encoded], list[Answer]] | None = None,
    ) -> Work:
        """Let rows wait for the model. `done` of the work gives their answers.

        Args:
            heard: called with the answers in a thread of the model.
            later: whether all other rows come first.
            decode: makes answers of the outputs of the features. None: the task does.
        """

        def finish(outputs: list[Any]) -> list[Answer]:
            answers = decode(outputs, encoded) if decode else self.task.decode(outputs, encoded.owners)
            if heard:
                heard(answers)
            return answers

        return self.batcher.submit(encoded.features, finish, later)

    def ask(self, rows: Rows, until: float | None = None, gone: Future[None] | None = None) -> list[Answer]:
        """The answers to rows by role, such as those of an explanation. Waits for them.

        Args:
            until: when nobody needs them any more, on the clock of time.monotonic.
            gone: done once nobody needs them any more, for another reason.

        Raises:
            TimeoutError: if that time is over.
            CancelledError: if `gone` is done.
        """
        work = self.submit(self.encode(rows), later=True)
        if gone:
            gone.add_done_callback(lambda _: work.drop())
        try:
            answers: list[Answer] = work.done.result(None if until is None else max(until - time.monotonic(), 0))
        except TimeoutError:
            work.drop()
            raise
        return answers

    def enter(self) -> bool:
        """Count a request in. False for a version whose threads have ended, or will: there is a newer one."""
        with self.lock:
            self.users += not self.retired
            return not self.retired

    def release(self) -> None:
        """Count a request out. The last one of a version that was replaced ends its threads."""
        with self.lock:
            self.users -= 1
            idle = self.retired and not self.users
        if idle:
            self.batcher.close()

    def retire(self) -> None:
        """Take no further request, and end the threads after the last one that was counted in."""
        with self.lock:
            self.retired = True
            idle = not self.users
        if idle:
            self.batcher.close()


class Models:
    """The models of a process by name."""

    def __init__(self, config: Config, watch: Watch, sources: dict[str, str], overrides: dict[str, Any]) -> None:
        """Load nothing yet.

        Args:
            config: of the command, with its sections `serve` and `hardware`.
            sources: for each name a run, an export, or a folder of runs.
            overrides: keys of `generation` and `seed` that differ from those of the runs.
        """
        self.config, self.watch, self.sources, self.overrides = config, watch, sources, overrides
        self.admission = Admission(config.serve.queue)
        self.changed: Callable[[], None] = lambda: None
        """Called after a model was loaded."""
        self._served: dict[str, Served] = {}
        self._loading = Lock()

    def names(self) -> list[str]:
        """All names, also of those that are not loaded yet."""
        return list(self.sources)

    def get(self, name: str) -> Served | None:
        """The version that answers now; None before it is loaded.

        Raises:
            KeyError: for no such name.
        """
        if name not in self.sources:
            raise KeyError(name)
        return self._served.get(name)

    def loaded(self) -> list[Served]:
        """The versions that answer now."""
        return [served for name in self.names() if (served := self._served.get(name))]

    def hold(self, name: str) -> Served | None:
        """The version that answers now, with this request counted in: `Served.release` counts it out.

        Between `get` and that, a newer version could have ended its threads, and its rows would wait for ever.
        """
        while (served := self.get(name)) is not None:
            if served.enter():
                return served
        return None

    @contextmanager
    def held(self, name: str, version: str | None = None) -> Iterator[Served]:
        """The version that answers a request, which stays until the request is answered.

        Raises:
            Refused: for a name or a version that there is not, or a model that is not loaded yet.
        """
        if name not in self.sources:
            raise Refused(404, "there is no model of this name", reason="name")
        if (served := self.hold(name)) is None:
            raise Refused(503, f"{name} is still loading", headers={"retry-after": "1"}, reason="not_ready")
        try:
            if version is not None and version != served.version:
                raise Refused(404, "there is no such version of this model", reason="name")
            yield served
        finally:
            served.release()

    @property
    def ready(self) -> bool:
        """Whether all models are loaded."""
        return len(self._served) == len(self.sources)

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        return self._loading.locked()

    def depth(self) -> int:
        """Rows that are admitted and not answered."""
        return self.admission.rows

    def load_all(self) -> None:
        """Load every model for the first time.

        Raises:
            UserError, Failure: for the first that cannot be loaded.
        """
        for name in self.sources:
            self.load(name)

    def load(self, name: str) -> Served:
        """Read a source again: verify, load, and warm up what it means now, and let it answer from then on.

        If that fails, the version that answers now goes on. Nothing is written to the source.

        Raises:
            UserError, Failure: with the reason.
        """
        with self._loading:
            try:
                found = self._open(name)
            except Exception as error:
                self.watch.load_failed(name)
                if isinstance(error, UserError | Failure):
                    raise
                raise Failure(f"{self.sources[name]} cannot be loaded: {_first_line(error)}") from error
            before, self._served[name] = self._served.get(name), found
        if before:
            before.retire()
        self.watch.loaded(found)
        self.changed()
        return found

    def reload(self) -> None:
        """Read all sources again."""
        for name in self.sources:
            self.replace(name)

    def replace(self, name: str) -> bool:
        """Read a source again, and say on stderr what came of it. Whether it could be loaded."""
        try:
            found = self.load(name)
        except (UserError, Failure) as error:
            why = [str(error)]
            if isinstance(error, UserError):  # nothing stands on a command line, or in a config, any more
                why = [f"{problem.key} {problem._replace(where='')}" for problem in error.problems]
            print(f"note: {name} stays as it is: {'; '.join(why)}", file=sys.stderr, flush=True)
            return False
        print(f"{name} is now version {found.version} of {found.source}", file=sys.stderr, flush=True)
        return True

    def _open(self, name: str) -> Served:
        source = find_run(self.sources[name])
        try:
            own = Run(source).config()
        except (ValidationError, OSError) as error:
            raise UserError(
                Problem(str(source), f"has a config.yaml that cannot be read: {_first_line(error)}")
            ) from error
        allowed = own.model.model_copy(update={"trust_remote_code": self.config.model.trust_remote_code})
        changes: dict[str, Any] = {"serve": self.config.serve, "hardware": self.config.hardware, "model": allowed}
        changes["generation"] = own.generation.model_copy(update=self.overrides.get("generation", {}))
        config = own.model_copy(update=changes | {k: v for k, v in self.overrides.items() if k != "generation"})
        serve = config.serve
        sha256 = checked_digest(source)
        engine = open_engine(source, config, serve.workers or cores())
        heard = partial(self.watch.batch, name)
        wait, size = serve.max_wait_ms / 1000, max(serve.batch_size, engine.group)
        batcher = Batcher(engine.run, engine.workers, size, engine.group, wait, engine.alike, heard)
        served = Served(name, source, source / "model", config, engine, sha256, batcher)
        try:
            (served.example,) = served.ask(example_rows(served.task))
        except Exception:
            batcher.close()
            raise
        return served


def cores(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores that this process may use.

    Args:
        limit: microseconds of processor time, and in how many; Linux has it for the container. With more threads than
            that, all of them would wait for most of each period.
    """
    import os

    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, limit.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # it is "max 100000" where there is no limit
        return found
    return max(1, min(found, quota // period))


def checked_digest(source: Path) -> str:
    """The sha256 of a model's files.

    Raises:
        UserError: for weights that are not those that the run has written.
    """
    folder = source / "model"
    if is_export(source) and (folder / MANIFEST).is_file():  # the sha256 of all files, which loading compares with them
        return digest(folder / MANIFEST)
    found = {file.relative_to(folder).as_posix(): digest(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    manifest = source / "manifest.json"
    facts = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    for name, sha256 in (facts.get("weights") or {}).items():
        if found.get(name) != sha256:
            what = "has changed since the run wrote it" if name in found else "is missing"
            raise UserError(Problem(str(folder / name), what, hint="Train the run again, or take it from a copy."))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def example_rows(task: Task[Any]) -> Table:
    """A made-up row by role."""
    inputs = {role: spec for role, spec in task.columns.items() if spec.is_input}
    of_table = next((role for role, spec in inputs.items() if spec.kind == "features"), None)
    if isinstance(task, HasExample):
        row = task.example_row()
        return Table({of_table: [row]} if of_table else {role: [cell] for role, cell in row.items()}, ["example"])
    made = task.synthetic_rows(1, seed=0)
    return Table({role: cells[:1] for role, cells in made.items() if role in inputs}, ["example"])


def _as_sent(cell: Any, kind: str) -> Any:
    """A cell by role as a client would send it."""
    if kind == "image":
        return "BASE64"
    return json.loads(cell) if kind == "json" and isinstance(cell, str) else cell


def new_id() -> str:
    """An id for a request: random, so that nobody can guess another's."""
    return secrets.token_hex(8)


def with_explanations(
    served: Served, encoded: Encoded, answers: list[Answer], until: float, gone: Future[None]
) -> list[Answer]:
    """The answers with what speaks for them. Waits for the model; see `Served.ask`."""
    assert isinstance(served.task, Explains)
    ask = served.engine.asking(partial(served.ask, until=until, gone=gone))
    found = explained(served.task, encoded.rows, answers, ask)
    return [answer | {"explanation": one} for answer, one in zip(answers, found, strict=True)]


def drawn(served: Served, encoded: Encoded, answers: list[Answer]) -> list[Answer]:
    """The answers with a drawing, a PNG in base64 each."""
    import base64
    import io

    assert isinstance(served.task, Draws)
    found = []
    for cell, answer in zip(encoded.rows[served.task.default_input_role], answers, strict=True):
        stream = io.BytesIO()
        served.task.draw(cell, answer).save(stream, "PNG")
        found.append(answer | {"drawing": base64.b64encode(stream.getvalue()).decode()})
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
