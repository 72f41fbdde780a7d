"""What a checkpoint carries beyond transformers' own state: sums over all sessions, and the batch that fitted."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from llmft.runs.environment import seconds_since_start
from llmft.training import processes


def _file(checkpoint: Path) -> Path:
    """Where this process keeps its sums: each of several has losses of its own."""
    return checkpoint / f"clock_{processes.number()}.json"


@dataclass
class Clock:
    """Sums over all sessions of a run, in seconds but for `loss`."""

    rows: int
    """Rows of a batch: `trainer.batch_size`, or what fitted into memory. A resumed run takes the same."""
    training: float = 0.0
    """All seconds of earlier sessions; those of this one count from `started`."""
    evaluating: float = 0.0
    saving: float = 0.0
    total: float = 0.0
    """Seconds of earlier sessions from process start to end."""
    loss: float = 0.0
    """Sum of the training loss over all steps. transformers' own mean forgets the steps of earlier sessions."""
    ended: bool = False
    """Whether no step was left to do. transformers would do one more."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds of training steps alone, so far."""
        return self.training + time.perf_counter() - self.started - self.evaluating - self.saving

    def save(self, checkpoint: Path) -> None:
        """Write the sums so far into a checkpoint."""
        facts = {
            "rows": self.rows,
            "training": self.training + time.perf_counter() - self.started,
            "evaluating": self.evaluating,
            "saving": self.saving,
            "total": self.total + seconds_since_start(),
            "loss": self.loss,
            "ended": self.ended,
        }
        _file(checkpoint).write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, checkpoint: Path) -> Self:
        """Go on from what `save` wrote."""
        return cls(**json.loads(_file(checkpoint).read_text(encoding="utf-8")))
