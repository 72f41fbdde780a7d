"""What one job of a sweep or search does, in a process of its own.

Where the system can fork, `ChildJob` is called in a copy of the sweep's process, with the data already in memory.
Where it cannot, `python -m llmft.sweeps.child` reads the job as one line of JSON from standard input, and the data
from the cache.
torch is imported inside functions: a sweep checks its folder before it spends seconds on that.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.runs.ending import ending
from llmft.schema.config import Config
from llmft.schema.execution import SearchConfig
from llmft.schema.problem import Pruned

if TYPE_CHECKING:
    from llmft.commands.prepare import Prepared

GIVEN_UP = 76  # the exit code of a trial that was pruned
GRACE = 60.0  # seconds to save a checkpoint in, once the sweep's process is gone


@dataclass(frozen=True)
class Reports:
    """Where a trial reports its validation scores to."""

    journal: Path
    number: int
    """Of the trial, from 0."""
    search: SearchConfig


@dataclass(frozen=True)
class ChildJob:
    """One run on its share of the machine. Calling it does the run and returns the exit code."""

    config: Config
    prepared: "Prepared | None" = None
    """The data, where the sweep's process hands them on; otherwise the job reads them from the cache."""
    first: bool = True
    """Whether it is the first job with these rows; that one fits the baseline."""
    known_batch_size: int | None = None
    """The batch size that an earlier job found to fit into memory; see `Experiment`."""
    gpu: int | None = None
    """The only GPU that it sees. None: all of them."""
    share: int = 1
    """How many jobs share the processor's cores."""
    reports: Reports | None = None
    """Set for the trial of a search, which may be pruned."""

    def __call__(self) -> int:
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(self.gpu)  # before torch starts CUDA
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the threads of tokenizers do not survive a fork
        try:
            return ending(self._run)
        except Pruned as pruned:
            print(pruned)
            return GIVEN_UP

    def _run(self) -> None:
        import torch

        from llmft.commands import finetune
        from llmft.commands.prepare import prepare
        from llmft.reporting.lines import quiet

        if self.share > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.share))
        prepared = self.prepared
        if prepared is None:
            quiet()
            prepared = replace(prepare(self.config), first=self.first, known_batch_size=self.known_batch_size)
        finetune.run(self.config, prepared, self._callbacks())

    def _callbacks(self) -> list[Any]:
        if self.reports is None:
            return []
        from llmft.sweeps.study import Pruning, join

        report = join(self.reports.journal, self.reports.number, self.reports.search)
        return [Pruning(self.config.metric_for_best, report)]

    def to_json(self) -> str:
        """All but the data, on one line."""
        facts: dict[str, Any] = {"config": self.config.model_dump(mode="json")}
        facts |= {"first": self.first, "known_batch_size": self.known_batch_size}
        facts |= {"gpu": self.gpu, "share": self.share, "reports": None}
        if to := self.reports:
            facts["reports"] = [str(to.journal), to.number, to.search.model_dump(mode="json")]
        return json.dumps(facts)

    @classmethod
    def from_json(cls, text: str) -> "ChildJob":
        """The job that `to_json` wrote."""
        facts = json.loads(text)
        reports = None
        if facts["reports"]:
            journal, number, search = facts["reports"]
            reports = Reports(Path(journal), number, SearchConfig.model_validate(search))
        config = Config.model_validate(facts["config"])
        known = facts["known_batch_size"]
        return cls(config, None, facts["first"], known, facts["gpu"], facts["share"], reports)


def main() -> int:
    """Do the job on standard input. The end of standard input says that the sweep's process is gone."""
    job = ChildJob.from_json(sys.stdin.readline())
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    return job()


def _stop_at_end_of_input() -> None:
    while os.read(0, 1):  # not sys.stdin: Python would wait for its lock at the end of the process
        pass
    signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once on Windows
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
