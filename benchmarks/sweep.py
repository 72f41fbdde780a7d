"""What a further job of a sweep costs on top of its own training, and where that goes.

    python benchmarks/sweep.py [KEY=VALUE ...]      six jobs of 64 rows, unless said otherwise

A job's own training is what its metrics.json says of it: the seconds of steps, of evaluation and of saving. The rest of
the time from its start to its end is the cost. On a busy machine look at the processor's seconds.
"""

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
from llmft.commands import finetune
from llmft.runs.folder import Run

WORDS = ["finetune", "-m", "+recipe=bert_textcls", "dataset.max_rows=64", "trainer.epochs=1", "seed=range(6)"]
PARTS: dict[str, Any] = {
    "run": finetune,
    "first_weights": finetune,
    "environment": finetune,
    "train": finetune,
    "save_pretrained": transformers.PreTrainedModel,
    "score": finetune,
    "weights_digest": Run,
    "write_reports": finetune,
}


def timed(name: str, plain: Callable[..., Any], file: Path) -> Callable[..., Any]:
    """`plain`, with its seconds and the processor's appended to a file that all children share."""

    def call(*args: Any, **kwargs: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        try:
            return plain(*args, **kwargs)
        finally:
            used = [time.perf_counter() - wall, time.process_time() - processor]
            with file.open("a") as stream:
                stream.write(json.dumps([os.getpid(), name, *used]) + "\n")

    return call


def measure(words: list[str]) -> None:
    """Print the parts of a job and the cost of a further one: medians over all jobs but the first."""
    with tempfile.TemporaryDirectory() as folder:
        times, sweep = Path(folder) / "times.jsonl", Path(folder) / "sweep"
        for name, holder in PARTS.items():
            setattr(holder, name, timed(name, getattr(holder, name), times))
        main([*WORDS, *words, f"run.dir={sweep}"])
        jobs: dict[int, dict[str, list[float]]] = {}
        for line in times.read_text().splitlines():
            process, name, wall, processor = json.loads(line)
            sums = jobs.setdefault(process, {}).setdefault(name, [0.0, 0.0])
            sums[:] = [sums[0] + wall, sums[1] + processor]
        facts = json.loads((sweep / "summary.json").read_text())["jobs"]
        costs = []
        for job in facts[1:]:
            train = json.loads((sweep / job["folder"] / "metrics.json").read_text())["train"]
            own = train["seconds"] + train["evaluation_seconds"] + train["saving_seconds"]
            costs.append((job["seconds"] or own) - own)
    print(f"\n{'part':<20} seconds  of the processor")
    for name in PARTS:
        walls, processors = zip(*(job[name] for job in list(jobs.values())[1:]), strict=True)
        print(f"{name:<20} {statistics.median(walls):7.2f}  {statistics.median(processors):7.2f}")
    print(
        f"{'cost of a further job':<20} {statistics.median(costs):.2f}: all but training, its evaluation and its saving"
    )


if __name__ == "__main__":
    measure(sys.argv[1:])
