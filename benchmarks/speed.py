"""llmft beside what one would write instead: whole processes, in turn, medians.

    python benchmarks/speed.py [FOLDER] [--rows 1600] [--rounds 3]         one and three epochs, and the slope between
    python benchmarks/speed.py [FOLDER] --frozen [--rows N]                ten epochs of a head on a frozen encoder
    python benchmarks/speed.py [FOLDER] --accuracy [--rows N]              three epochs, three seeds: what comes of it

FOLDER holds train.csv and test.csv with the columns `text` and `label`; without one, the reviews that come with llmft.
The peers are those of peers.py: same weights, batch of 32, learning rate, schedule, one checkpoint an epoch, and a
score on test at the end. The cache of llmft is empty in every run. The slope is the time of two epochs more, so that
starting up does not count.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from llmft.runs.environment import environment
from llmft.schema.execution import HardwareConfig
from llmft.training.hardware import detect

HERE = Path(__file__).parent
REVIEWS = HERE.parent / "llmft/samples/reviews"
PEERS = ("llmft", "trainer", "tuned", "bare")
SEEDS = (0, 1, 2)


def run(who: str, folder: Path, epochs: int, seed: int, frozen: bool) -> tuple[float, float]:
    """Wall-clock seconds of a process that trains and scores, and the accuracy that it reports."""
    with tempfile.TemporaryDirectory() as place:
        words = [str(HERE / "peers.py"), who, str(folder), str(epochs), str(seed), *["--frozen"] * frozen]
        if who == "llmft":
            words = [
                *("-m", "llmft", "finetune", "+recipe=bert_textcls", "dataset=csv", "dataset.max_overlap=1"),
                *(f"dataset.train={folder / 'train.csv'}", f"dataset.test={folder / 'test.csv'}"),
                *("dataset.split.validation=0", "trainer.batch_size=32", "optimizer.lr=1e-4", "trainer.log_every=500"),
                *(f"trainer.epochs={epochs}", f"seed={seed}", f"run.dir={place}/run"),
                *["model.freeze=encoder"] * frozen,
            ]
        surroundings = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "LLMFT_CACHE": f"{place}/a",
            "HF_DATASETS_CACHE": f"{place}/b",
        }
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=surroundings)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{who}: {done.stderr}")
        if who == "llmft":
            return seconds, json.loads(Path(place, "run/metrics.json").read_text())["test"]["accuracy"]
        return seconds, json.loads(done.stdout.splitlines()[-1])["accuracy"]


def part(source: Path, rows: int | None, folder: Path) -> None:
    """The first rows of train.csv, and all of test.csv, below `folder`."""
    for name, count in (("train.csv", rows), ("test.csv", None)):
        with (source / name).open(newline="", encoding="utf-8") as stream:
            table = list(csv.DictReader(stream))[:count]
        with (folder / name).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["text", "label"])
            writer.writeheader()
            writer.writerows({"text": row["text"], "label": row["label"]} for row in table)


def slopes(folder: Path, rounds: int) -> None:
    """One and three epochs of every peer."""
    seconds: dict[tuple[str, int], list[float]] = {(who, epochs): [] for who in PEERS for epochs in (1, 3)}
    for number in range(rounds):
        for who in PEERS if number % 2 else reversed(PEERS):  # nobody always finds the machine warmer
            for epochs in (1, 3):
                seconds[who, epochs].append(run(who, folder, epochs, 0, frozen=False)[0])
    print(f"| {'':<8} | 1 epoch | 3 epochs | an epoch more | llmft is faster by |")
    print("|---|---|---|---|---|")
    mine = [(long - short) / 2 for short, long in zip(seconds["llmft", 1], seconds["llmft", 3], strict=True)]
    for who in PEERS:
        slope = [(long - short) / 2 for short, long in zip(seconds[who, 1], seconds[who, 3], strict=True)]
        one, three = (statistics.median(seconds[who, epochs]) for epochs in (1, 3))
        ratio = statistics.median(other / own for other, own in zip(slope, mine, strict=True))
        print(f"| {who:<8} | {one:.1f} s | {three:.1f} s | {statistics.median(slope):.2f} s | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=REVIEWS)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--accuracy", action="store_true")
    options = parser.parse_args()
    machine = environment()["machine"]
    print(f"{machine['processor']}, {machine['cores']} cores, torch {torch.__version__}, {detect(HardwareConfig())}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        part(options.folder, options.rows, folder)
        if options.accuracy:
            for who in ("llmft", "trainer"):
                found = [run(who, folder, 3, seed, frozen=False)[1] for seed in SEEDS]
                print(
                    f"{who}: accuracy {', '.join(f'{a:.4f}' for a in found)}, mean {statistics.mean(found):.4f}",
                    flush=True,
                )
        elif options.frozen:
            rounds = [
                [run(who, folder, 10, 0, frozen=True)[0] for who in ("llmft", "trainer")] for _ in range(options.rounds)
            ]
            own, other = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio = statistics.median(other / own for own, other in rounds)
            print(f"10 epochs, frozen encoder: llmft {own:.1f} s, trainer {other:.1f} s, faster by {ratio:.1f}")
        else:
            slopes(folder, options.rounds)


if __name__ == "__main__":
    main()
