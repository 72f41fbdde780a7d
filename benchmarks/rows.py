"""What more rows cost, and what a second run on the same rows spares.

    python benchmarks/rows.py [FOLDER] [--rounds 3] [KEY=VALUE ...]

FOLDER holds train.csv and test.csv with the columns `text` and `label`; without one, the reviews that come with llmft.
KEY=VALUE goes to every run: a small model tells more of what rows cost, since it hides less.
Their rows are repeated to 5,000 and 50,000. Printed:

start    seconds from the command to the end of the first step, with an empty cache and with a filled one
time     preparing and one epoch for ten times the rows, over the same for the rows
memory   peak memory of 20 steps on ten times the rows, over the same on the rows
"""

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REVIEWS = HERE.parent / "llmft/samples/reviews"
FEW, MANY = 5_000, 50_000


def run(place: Path, rows: int, cache: str, *words: str) -> tuple[float, dict[str, Any]]:
    """Start a training; the seconds until its first step was done, and what it records of training."""
    folder = place / f"run-{time.time_ns()}"
    command = [
        *(sys.executable, "-m", "llmft", "finetune", "+recipe=bert_textcls", "dataset=csv", "dataset.max_overlap=1"),
        *(f"dataset.train={place}/{rows}.csv", f"dataset.test={place}/test.csv", "dataset.split.validation=0"),
        *("trainer.batch_size=32", f"run.dir={folder}", *words),
    ]
    start = time.time()
    surroundings = os.environ | {"LLMFT_CACHE": str(place / cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    if done.returncode:
        sys.exit(done.stderr)
    first = json.loads((folder / "events.jsonl").read_text().splitlines()[0])
    return first["time"] - start, json.loads((folder / "metrics.json").read_text())["train"]


def preparation(place: Path, rows: int, extra: list[str]) -> float:
    """Seconds of reading, checking and encoding, without the cache."""
    from llmft.commands.prepare import prepare
    from llmft.config.load import load

    words = [f"dataset.train={place}/{rows}.csv", f"dataset.test={place}/test.csv", "dataset.split.validation=0"]
    words += extra
    config = load(
        "finetune", ["+recipe=bert_textcls", "dataset=csv", "dataset.max_overlap=1", "dataset.cache=false", *words]
    )
    start = time.perf_counter()
    prepare(config)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=REVIEWS)
    parser.add_argument("--rounds", type=int, default=3)
    options, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for split, sizes in (("train", (FEW, MANY)), ("test", (300,))):
            with (options.folder / f"{split}.csv").open(newline="", encoding="utf-8") as stream:
                table = list(csv.DictReader(stream))
            for size in sizes:
                with (place / f"{size if split == 'train' else 'test'}.csv").open(
                    "w", newline="", encoding="utf-8"
                ) as out:
                    writer = csv.DictWriter(out, list(table[0]))
                    writer.writeheader()
                    writer.writerows(itertools.islice(itertools.cycle(table), size))
        few, many = preparation(place, FEW, words), preparation(place, MANY, words)
        print(f"preparing: {few:.2f} s for {FEW:,} rows, {many:.2f} s for {MANY:,}", flush=True)
        for rows in (FEW, MANY):
            pairs = []
            for number in range(options.rounds):
                cache = f"cache-{rows}-{number}"
                pairs.append(
                    [run(place, rows, cache, "trainer.max_steps=2", "trainer.log_every=1", *words)[0] for _ in range(2)]
                )
            empty, filled = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"first step, {rows:,} rows: {empty:.1f} s with an empty cache, {filled:.1f} s with a filled one",
                flush=True,
            )
        peaks = [
            run(place, rows, f"memory-{rows}", "trainer.max_steps=20", *words)[1]["peak_memory_bytes"]
            for rows in (FEW, MANY)
        ]
        print(
            f"memory: {peaks[0] / 1e6:,.0f} MB and {peaks[1] / 1e6:,.0f} MB, {peaks[1] / peaks[0]:.3f} times",
            flush=True,
        )
        epochs = [run(place, rows, f"time-{rows}", "trainer.epochs=1", *words)[1]["seconds"] for rows in (FEW, MANY)]
        ratio = (epochs[1] + many) / (epochs[0] + few)
        print(f"time: {epochs[0] + few:.1f} s and {epochs[1] + many:.1f} s, {ratio:.2f} times")


if __name__ == "__main__":
    main()
