"""Tells trackers what happens in a run, each from a thread of its own: one that is slow or broken holds nobody up."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

from tqdm import tqdm

from llmft.runs.folder import Run, flat
from llmft.schema.config import Config
from llmft.training.trackers import TRACKERS, Tracked, Tracker, without_secrets

FILE = "tracking.json"
PATIENCE = 30.0  # seconds that all trackers have together at the end of a run
IMPATIENCE = 5.0  # the same for a run that failed or was stopped: whoever stopped it may be waiting


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
