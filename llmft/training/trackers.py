"""Experiment trackers, each in a thread of its own, so that a slow or broken one never stops the training.

transformers has callbacks for them too. Those send all TrainingArguments, read switches from the environment, do not
know the final metrics, and let an error of a tracker end the training.
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
CLOSE_TIMEOUT = 30.0  # seconds that all trackers have together to finish at the end of a run
CLOSE_TIMEOUT_FAILED = 5.0  # the same after a failure or a signal: a scheduler may kill the process soon


@dataclass(frozen=True)
class Tracked:
    """What trackers receive about a run."""

    id: str
    """Unique among all runs, and the same after a resume."""
    name: str
    project: str
    folder: Path
    config: dict[str, Any]
    """Values by dotted key. A checked config holds no secrets."""
    resumed: bool
    """Whether an earlier session may have created it at the tracker."""
    after: int
    """The step from which this session continues; 0 for a new run."""


class Tracker(Protocol):
    """A service that receives metrics. Each method may raise any error and take any time; see `Sender`."""

    def __init__(self, run: Tracked) -> None:
        """Create the run, or find the one with this id."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Send the metrics of a step."""

    def close(self, done: bool) -> None:
        """End the run: `done`, or else failed or stopped."""


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps after the last checkpoint are trained again, so the points of the earlier session are dropped.
        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.after + 1)
        if not run.resumed:
            self.writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in run.config.items()))

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Write and flush, so that a run that is killed loses nothing."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, done: bool) -> None:
        """Close the file."""
        self.writer.close()


class Wandb:
    """Weights & Biases. Without a key in the environment it works offline and keeps everything in RUN/wandb."""

    def __init__(self, run: Tracked) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            # By default it uploads the command line, the git remote, source code, and the installed packages.
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_save_requirements=False,
            # Seconds. Without a network it would keep the process alive for as long as these, at most.
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
        """Send them. wandb itself drops steps that an earlier session has sent."""
        self.run.log(numbers, step=step)

    def close(self, done: bool) -> None:
        """Wait until all is sent."""
        self.run.finish(exit_code=0 if done else 1)


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI."""

    def __init__(self, run: Tracked) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        # The client, since mlflow.start_run stores the command line and the git commit as tags.
        self.client = mlflow.MlflowClient()
        experiment = mlflow.set_experiment(run.project).experiment_id
        found = self.client.search_runs([experiment], f"tags.llmft_run = '{run.id}'", max_results=1)
        if found:
            self.run = found[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        self.run = self.client.create_run(experiment, tags={"llmft_run": run.id}, run_name=run.name).info.run_id
        params = [mlflow.entities.Param(_mlflow_name(key), str(value)) for key, value in run.config.items()]
        for start in range(0, len(params), 100):  # MLflow's limit for one log_batch
            self.client.log_batch(self.run, params=params[start : start + 100])

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Send them in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run, [Metric(_mlflow_name(name), value, now, step) for name, value in numbers.items()]
        )

    def close(self, done: bool) -> None:
        """Set how the run ended. KILLED rather than FAILED: a stopped run can be resumed."""
        self.client.set_terminated(self.run, "FINISHED" if done else "KILLED")


def _mlflow_name(name: str) -> str:
    """A name with `_` for each character that MLflow refuses."""
    return re.sub(r"[^\w./ -]", "_", name)


class Trackio:
    """trackio: its local database, or the Space of TRACKIO_SPACE_ID."""

    def __init__(self, run: Tracked) -> None:
        import trackio

        # trackio identifies a run by its name alone, so the name needs the id to be unique.
        name = f"{run.name}-{run.id}"
        self.run = trackio.init(
            project=run.project, name=name, config=run.config, resume="allow", embed=False, auto_log_cpu=False
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Add them to trackio's queue."""
        self.run.log(numbers, step=step)

    def close(self, done: bool) -> None:
        """Wait until the queue is empty."""
        self.run.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def check_trackers(config: TrackingConfig) -> None:
    """Raise UserError for trackers whose packages are not installed."""
    if problems := [problem for name in config.to for problem in missing_package("tracking.to", name, name, name)]:
        raise UserError(problems)


def redact_secrets(text: str) -> str:
    """The text of an error, with `$NAME` in place of the value of every environment variable that may be secret.

    An error of a tracker's client may quote a URL with a key in it, and the text is printed and kept in the run folder.
    """
    secret = re.compile(r"(?i)key|token|secret|passw|credential|ur[il]$")
    # From 6 characters on: replacing a value such as "1" or "true" would destroy the message.
    found = {value: name for name, value in os.environ.items() if secret.search(name) and len(value) >= 6}
    for value in sorted(found, key=len, reverse=True):
        text = text.replace(value, f"${found[value]}")
    return text


class Sender(Thread):
    """The thread of one tracker, and the queue of what it has to send."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.given_up = False
        self.queue: SimpleQueue[tuple[Tracked, dict[str, float], int] | bool] = (
            SimpleQueue()
        )  # True or False: the run has ended

    def run(self) -> None:
        """Send until the end of the run is in the queue. The first error is printed and ends the thread."""
        tracker: Tracker | None = None
        try:
            while not isinstance(item := self.queue.get(), bool):
                run, numbers, step = item
                tracker = tracker or TRACKERS[self.name](run)
                tracker.log(numbers, step)
            if tracker:
                tracker.close(done=item)
        except (Exception, SystemExit) as error:
            why = redact_secrets(str(error)).strip().partition("\n")[0]
            why = f"{type(error).__name__}: {why}" if why else type(error).__name__
            self.give_up(f"{why}. It receives nothing more; the run continues")

    def give_up(self, text: str) -> None:
        """Print a note above the progress bar, once."""
        if self.given_up:
            return
        self.given_up = True
        tqdm.write(f"  note      tracking by {self.name}: {text}")


@dataclass
class Trackers:
    """The trackers of a run, and its Follower: they hear every event of it."""

    tracked: Tracked
    senders: list[Sender]
    step: int = 0
    """The step of the last event."""

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
        """Continue from `step`: later events of an earlier session will come again."""
        self.step = step
        self.tracked = replace(self.tracked, after=step)

    def scores(self, metrics: dict[str, dict[str, Any]]) -> None:
        """Send the final metrics, with names such as `final/test/accuracy`."""
        self._send({f"final/{split}/{name}": v for split, found in metrics.items() for name, v in found.items()})

    def _send(self, values: dict[str, Any]) -> None:
        numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
        for sender in self.senders:
            if sender.is_alive():
                sender.queue.put((self.tracked, numbers, self.step))

    def close(self, done: bool) -> None:
        """End the run at all trackers. One that takes too long is left behind; its thread ends with the process."""
        for sender in self.senders:
            sender.queue.put(done)
        until = time.monotonic() + (CLOSE_TIMEOUT if done else CLOSE_TIMEOUT_FAILED)
        for sender in self.senders:
            sender.join(max(0.0, until - time.monotonic()))
            if sender.is_alive():
                sender.give_up("does not answer. What it has not received is in events.jsonl and metrics.json")


@contextmanager
def tracked(config: Config, run: Run) -> Iterator[Trackers]:
    """Inside the context, the trackers of `tracking.to` receive every event of `run`."""
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
    """What trackers receive about the run. If there are any, the run's id is written to its folder."""
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
