"""Trackers by name: each keeps numbers by step, and gets nothing but what stands here.

transformers has callbacks for them too. They send all TrainingArguments, read switches from the environment, know
nothing of final scores, and let an error of a tracker end the training.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmft.schema.extra import lacking
from llmft.schema.problem import UserError
from llmft.schema.tracking import TrackingConfig


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
    if problems := [problem for name in config.to for problem in lacking("tracking.to", name, name, name)]:
        raise UserError(problems)


def without_secrets(text: str) -> str:
    """The text of an error, with what stands in the environment under a name of secrets by its name alone."""
    secret = re.compile(r"(?i)key|token|secret|passw|credential|ur[il]$")
    found = {value: name for name, value in os.environ.items() if secret.search(name) and len(value) >= 6}
    for value in sorted(found, key=len, reverse=True):
        text = text.replace(value, f"${found[value]}")
    return text
