"""Trackers by name, each told from a thread of its own: one that is slow or broken holds nobody up.

transformers has callbacks for them too. They send all TrainingArguments, read switches from the environment, know
nothing of final scores, and let an error of a tracker end the training.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from tqdm import tqdm

from llmft.runs.folder import Run, flat
from llmft.schema.config import Config
from llmft.schema.execution import TrackingConfig
from llmft.schema.problem import UserError, missing_package

FILE = "tracking.json"
PATIENCE = 30.0  # seconds that all trackers have together at the end of a run
IMPATIENCE = 5.0  # the same for a run that failed or was stopped: whoever stopped it may be waiting


@dataclass(frozen=True)
class Tracked:
    """A run as trackers know it."""

    id: str
    """Its name among all runs, the same after a resume."""
    name: str
    project: str
    folder: Path
    config: dict[str, Any]
    """Value by dotted key. A checked configuration holds no secrets."""
    resumed: bool
    """Whether an earlier session may have begun it."""
    after: int
    """The step that this session goes on from."""


class Tracker(Protocol):
    """Where numbers go. Each method may raise anything, and take any time."""

    def __init__(self, run: Tracked) -> None:
        """Begin the run, or find it again."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Keep some numbers of a step."""

    def close(self, done: bool) -> None:
        """End the run; not `done`: it failed, or was stopped."""


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an earlier session wrote after its last checkpoint comes again, and is not shown twice.
        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.after + 1)
        if not run.resumed:
            self.writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in run.config.items()))

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Written at once, so that a run that is killed loses nothing."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, done: bool) -> None:
        """Close the file."""
        self.writer.close()


class Wandb:
    """Weights & Biases. Without a key in the environment it is told to stay offline, and keeps all in RUN/wandb."""

    def __init__(self, run: Tracked) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            # Otherwise it keeps the command line, the address of the git remote, code and the packages installed.
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_save_requirements=False,
            # Without a network, it would also hold up the end of the process for as long as these.
            init_timeout=10,
            finish_timeout=10,
        )
        known = os.environ.keys() & {"WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"}
        self.run = wandb.init(
            id=run.id,
            name=run.name,
            project=run.project,
            config=run.config,
            dir=str(run.folder),
            mode=None if known else "offline",
            resume="allow",
            settings=settings,
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Steps that an earlier session has sent are left out by wandb itself."""
        self.run.log(numbers, step=step)

    def close(self, done: bool) -> None:
        """Wait until all is sent."""
        self.run.finish(exit_code=0 if done else 1)


class MLflow:
    """The store that MLFLOW_TRACKING_URI names."""

    def __init__(self, run: Tracked) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        # The client, since mlflow.start_run would note the command line and the git commit as tags.
        self.client = mlflow.MlflowClient()
        experiment = mlflow.set_experiment(run.project).experiment_id
        found = self.client.search_runs([experiment], f"tags.llmft_run = '{run.id}'", max_results=1)
        if found:
            self.run = found[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        self.run = self.client.create_run(experiment, tags={"llmft_run": run.id}, run_name=run.name).info.run_id
        params = [mlflow.entities.Param(_plain(key), str(value)) for key, value in run.config.items()]
        for start in range(0, len(params), 100):  # as many as it takes at a time
            self.client.log_batch(self.run, params=params[start : start + 100])

    def log(self, numbers: dict[str, float], step: int) -> None:
        """One request for all."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run, [Metric(_plain(name), value, now, step) for name, value in numbers.items()])

    def close(self, done: bool) -> None:
        """Note how the run ended."""
        self.client.set_terminated(self.run, "FINISHED" if done else "KILLED")


def _plain(name: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name)


class Trackio:
    """The local store of trackio, or the Space that TRACKIO_SPACE_ID names."""

    def __init__(self, run: Tracked) -> None:
        import trackio

        # It finds a run by its name, which must therefore be no other's.
        name = f"{run.name}-{run.id}"
        self.run = trackio.init(
            project=run.project, name=name, config=run.config, resume="allow", embed=False, auto_log_cpu=False
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Put them into its queue."""
        self.run.log(numbers, step=step)

    def close(self, done: bool) -> None:
        """Wait until its queue is empty."""
        self.run.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def check_trackers(config: TrackingConfig) -> None:
    """Raise UserError for trackers whose package is not installed."""
    if problems := [problem for name in config.to for problem in missing_package("tracking.to", name, name, name)]:
        raise UserError(problems)


def without_secrets(text: str) -> str:
    """The text of an error, with what stands in the environment under a name of secrets by its name alone."""
    secret = re.compile(r"(?i)key|token|secret|passw|credential|ur[il]$")
    found = {value: name for name, value in os.environ.items() if secret.search(name) and len(value) >= 6}
    for value in sorted(found, key=len, reverse=True):
        text = text.replace(value, f"${found[value]}")
    return text


class Sender(Thread):
    """One tracker, and what is on its way to it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.given_up = False
        self.waiting: SimpleQueue[tuple[Tracked, dict[str, float], int] | bool] = SimpleQueue()

    def run(self) -> None:
        """Send until the end of the run is in the queue; the first failure is said, and ends it."""
        tracker: Tracker | None = None
        try:
            while not isinstance(item := self.waiting.get(), bool):
                run, numbers, step = item
                tracker = tracker or TRACKERS[self.name](run)
                tracker.log(numbers, step)
            if tracker:
                tracker.close(done=item)
        except (Exception, SystemExit) as error:
            why = without_secrets(str(error)).strip().partition("\n")[0]
            why = f"{type(error).__name__}: {why}" if why else type(error).__name__
            self.give_up(f"{why}. It is told nothing more; the run goes on")

    def give_up(self, text: str) -> None:
        """Print a note between what else is printed, unless there was one already."""
        if self.given_up:
            return
        self.given_up = True
        tqdm.write(f"  note      tracking by {self.name}: {text}")


@dataclass
class Trackers:
    """The trackers of a run; a Follower of it."""

    tracked: Tracked
    senders: list[Sender]
    step: int = 0
    """The last step that was heard of."""

    def event(self, facts: dict[str, Any]) -> None:
        """Send a line of events.jsonl."""
        self.step = facts["step"]
        self._send(
            {
                f"{facts.get('split', 'run')}/{name}": value
                for name, value in facts.items()
                if name not in ("step", "split")
            }
        )

    def forget_events_after(self, step: int) -> None:
        """What comes after `step` will be sent again."""
        self.step = step
        self.tracked = replace(self.tracked, after=step)

    def scores(self, metrics: dict[str, dict[str, Any]]) -> None:
        """Send what metrics.json says, such as `final/test/accuracy`."""
        self._send({f"final/{split}/{name}": v for split, found in metrics.items() for name, v in found.items()})

    def _send(self, values: dict[str, Any]) -> None:
        numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
        for sender in self.senders:
            if sender.is_alive():
                sender.waiting.put((self.tracked, numbers, self.step))

    def close(self, done: bool) -> None:
        """Let the trackers end the run, and leave those behind that take too long."""
        for sender in self.senders:
            sender.waiting.put(done)
        until = time.monotonic() + (PATIENCE if done else IMPATIENCE)
        for sender in self.senders:
            sender.join(max(0.0, until - time.monotonic()))
            if sender.is_alive():
                sender.give_up("does not answer; what it was not told is in events.jsonl and metrics.json")


@contextmanager
def tracked(config: Config, run: Run) -> Iterator[Trackers]:
    """The trackers that `config` names, told of every event of `run` while this is entered."""
    names = dict.fromkeys(config.tracking.to) if run.writes else {}
    trackers = run.follower = Trackers(_tracked(config, run, bool(names)), list(map(Sender, names)))
    for sender in trackers.senders:
        sender.start()
    try:
        yield trackers
    except BaseException:
        trackers.close(done=False)
        raise
    trackers.close(done=True)


def _tracked(config: Config, run: Run, tell: bool) -> Tracked:
    """The run as trackers know it; where they are to be told, its id is kept in its folder."""
    file = run.folder / FILE
    resumed = file.is_file()
    number = json.loads(file.read_text(encoding="utf-8"))["id"] if resumed else secrets.token_hex(4)
    if tell and not resumed:
        run.write_json(FILE, {"id": number})
    values = flat(config.model_dump(mode="json", exclude={"run", "resume", "smoke", "sweep"}))
    return Tracked(
        id=number,
        name=f"{config.name}-{run.folder.name}",
        project=config.tracking.project,
        folder=run.folder,
        config={key: value for key, value in values.items() if value not in (None, {}, [])},
        resumed=resumed,
        after=0,
    )
