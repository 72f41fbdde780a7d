"""What each part of the speed gains by itself: the run with it, and without it.

    python benchmarks/parts.py [FOLDER] [--rows 1600] [--rounds 3]

FOLDER holds train.csv and test.csv with the columns `text` and `label`; without one, the reviews that come with llmft.
speed.py compares the whole with others, rows.py measures the cache, sweep.py a further job of a sweep.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
from rows import REVIEWS, run
from speed import part

from llmft.training.features import FeatureSet

SWITCHES = {
    "rows grouped by length": "trainer.group_by_length=false",
    "bfloat16 where it is native": "hardware.precision=fp32",
}
COMMANDS = {
    "--help": ["-m", "llmft", "--help"],
    "a config error": ["-m", "llmft", "finetune", "+recipe=bert_textcls", "optimizer.learning_rate=1"],
    "all imports of a run": ["-c", "import llmft.commands.finetune"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=REVIEWS)
    parser.add_argument("--rows", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, words in COMMANDS.items():
        seconds = [timed([sys.executable, *words]) for _ in range(2 * options.rounds)]
        print(f"{name}: {statistics.median(seconds):.2f} s", flush=True)
    reading()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        part(options.folder, options.rows, place)
        (place / "train.csv").rename(place / f"{options.rows}.csv")
        for name, off in SWITCHES.items():
            pairs = [
                [run(place, options.rows, "cache", "trainer.epochs=1", *words)[1]["seconds"] for words in ((), (off,))]
                for _ in range(options.rounds)
            ]
            with_it, without = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{name}: {with_it:.1f} s, without {without:.1f} s, {without / with_it:.2f} times", flush=True)


def timed(command: list[str]) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True)
    return time.perf_counter() - start


def reading(rows: int = 200_000, batch: int = 32) -> None:
    """Features of 24 tokens, read a batch at a time as torch's DataLoader does, and one by one."""
    table = pyarrow.table({"input_ids": [list(range(24))] * rows, "labels": [1] * rows})
    features = FeatureSet(table, list(range(rows)), None, 0)
    start = time.perf_counter()
    for first in range(0, rows, batch):
        features.__getitems__(list(range(first, first + batch)))
    whole = time.perf_counter() - start
    start = time.perf_counter()
    for number in range(rows):
        features[number]
    print(
        f"reading {rows:,} features: {whole:.2f} s by batches, {time.perf_counter() - start:.2f} s one by one",
        flush=True,
    )


if __name__ == "__main__":
    main()
