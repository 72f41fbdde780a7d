"""What a further job of a sweep costs on top of its own training, and where that goes.

    python benchmarks/sweep.py [KEY=VALUE ...]      six jobs of 64 rows, unless said otherwise

A job's own training is what its metrics.json says of it: the seconds of steps, of evaluation and of saving. What else
passes while the jobs run, divided by their number, is the cost of one. On a busy machine only the processor time
tells. There own training is the time from the start of `Trainer.train` to the end of `train`, and the first job, which
does some work for all, is left out: a further job costs the median of the others, and its share of the parent's time.

It runs on older commits too (benchmarks/against.py): a function that one of them lacks is not in the table then.
"""

import contextlib
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from llmft.cli import main
from llmft.runs.folder import Run

WORDS = ["finetune", "-m", "+recipe=bert_textcls", "dataset.max_rows=64", "trainer.epochs=1", "seed=range(6)"]
WORK = ("llmft.sweeps.jobs.work", "llmft.commands.sweep.work")  # what does all jobs, and what it was called at f9d1400
PARTS = (
    "llmft.models.build.build",
    "llmft.runs.environment.environment",
    "llmft.training.train.train",
    "llmft.models.adapters.save_model",
    "llmft.training.evaluation.score",
    "llmft.training.comparisons.baseline",
    "llmft.reporting.reports.write_reports",
    "llmft.commands.finetune.run",
)


class Stopwatch:
    """Appends to a file that all processes share: who, what, and the seconds and processor seconds that it took."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.began = 0.0
        """The processor time of this process when its training began."""

    def note(self, name: str, wall: float, processor: float) -> None:
        """Keep what a call of `name` took."""
        with self.file.open("a") as stream:
            stream.write(json.dumps([os.getpid(), name, wall, processor]) + "\n")

    def timed(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """`plain`, which notes what it takes; children that it waits for count too."""

        def call(*args: Any, **options: Any) -> Any:
            wall, processor = time.perf_counter(), processor_time()
            try:
                return plain(*args, **options)
            finally:
                self.note(name, time.perf_counter() - wall, processor_time() - processor)
                if name == "train":
                    self.note("steps", 0.0, processor_time() - self.began)

        return call

    def begins(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """`plain`, which is where a job's own training begins."""

        def call(*args: Any, **options: Any) -> Any:
            self.began = processor_time()
            return plain(*args, **options)

        return call


def processor_time() -> float:
    """User and system seconds of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def replace(path: str, wrapped: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> bool:
    """Put a wrapper in the place of a function, wherever it has been imported to; False where there is none."""
    module, _, name = path.rpartition(".")
    try:
        plain = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    instead = wrapped(name, plain)
    for loaded in [found for key, found in sys.modules.items() if key.startswith("llmft")]:
        for key, value in list(vars(loaded).items()):
            if value is plain:
                setattr(loaded, key, instead)
    return True


def measure(words: list[str]) -> None:
    """Print the parts of a job, medians, and its cost."""
    importlib.import_module("llmft.commands.finetune")
    with tempfile.TemporaryDirectory() as folder:
        times, runs = Path(folder) / "times.jsonl", Path(folder) / "sweep"
        watch = Stopwatch(times)
        assert any(replace(path, watch.timed) for path in WORK)
        for path in PARTS:
            replace(path, watch.timed)
        transformers.Trainer.train = watch.begins(transformers.Trainer.train)  # type: ignore[method-assign]
        Run.weights_digest = watch.timed("weights_digest", Run.weights_digest)  # type: ignore[method-assign]
        main([*WORDS, *words, f"run.dir={runs}"])
        parts: dict[str, dict[int, list[float]]] = {}
        for line in times.read_text().splitlines():
            process, name, wall, processor = json.loads(line)
            sums = parts.setdefault(name, {}).setdefault(process, [0.0, 0.0])
            sums[:] = [sums[0] + wall, sums[1] + processor]
        own = []
        for file in runs.glob("*/metrics.json"):
            train = json.loads(file.read_text())["train"]
            own.append(train["seconds"] + train["evaluation_seconds"] + train["saving_seconds"])
    ((whole, processor),) = parts.pop("work").values()
    print(f"\n{'part of a job':<16} {'seconds':>8} {'processor':>10}")
    for name, processes in parts.items():
        walls, processors = zip(*processes.values(), strict=True)
        print(f"{name:<16} {statistics.median(walls):8.2f} {statistics.median(processors):10.2f}")
    wall = (whole - sum(own)) / len(own)
    beyond = {process: used - parts["steps"][process][1] for process, (_, used) in parts["run"].items()}
    parent = processor - sum(used for _, used in parts["run"].values())
    processor = statistics.median(list(beyond.values())[1:]) + parent / len(own)
    print(f"\nA further job costs {wall:.2f} s beyond its training, and {processor:.2f} s of processor time.")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        measure(sys.argv[1:])
