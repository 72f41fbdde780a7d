"""What a further job of a sweep costs on top of its own training, and where that goes.

    python benchmarks/sweep.py [KEY=VALUE ...]      six jobs of 64 rows, unless said otherwise

A job's own training is what its metrics.json says of it: the seconds of steps, of evaluation and of saving. What else
passes while the jobs run, divided by their number, is the cost of one. On a busy machine, the processor's seconds tell.
Measured with OMP_NUM_THREADS=1: 0.5 s, and 1.4 s for the scores of 128 rows.
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
from llmft.sweeps import jobs

WORDS = ["finetune", "-m", "+recipe=bert_textcls", "dataset.max_rows=64", "trainer.epochs=1", "seed=range(6)"]
PARTS: dict[str, Any] = {
    "work": jobs,
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
    """Print the parts of a job, medians, and its cost."""
    with tempfile.TemporaryDirectory() as folder:
        times, runs = Path(folder) / "times.jsonl", Path(folder) / "sweep"
        for name, holder in PARTS.items():
            setattr(holder, name, timed(name, getattr(holder, name), times))
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
    ((whole, _),) = parts.pop("work").values()
    print(f"\n{'part of a job':<16} {'seconds':>8} {'processor':>10}")
    for name, processes in parts.items():
        walls, processors = zip(*processes.values(), strict=True)
        print(f"{name:<16} {statistics.median(walls):8.2f} {statistics.median(processors):10.2f}")
    cost = (whole - sum(own)) / len(own)
    scoring = statistics.mean(wall for wall, _ in parts["score"].values())
    print(f"\nA further job costs {cost:.2f} s beyond its training; {scoring:.2f} s of them score its rows.")


if __name__ == "__main__":
    measure(sys.argv[1:])
