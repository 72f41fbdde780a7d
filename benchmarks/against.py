"""This checkout beside another commit: which of the two is faster, in processor time?

    python benchmarks/against.py COMMIT help [ROUNDS]        llmft --help
    python benchmarks/against.py COMMIT job [ROUNDS]         llmft finetune +recipe=bert_textcls --cfg job
    python benchmarks/against.py COMMIT sweep [ROUNDS]       what a further job of a sweep costs, by benchmarks/sweep.py
    python benchmarks/against.py COMMIT smoke [ROUNDS]       a smoke run of +recipe=bert_textcls, imports included
    python benchmarks/against.py COMMIT tests [ROUNDS]       the default tests, by test

The commit is installed into an environment of its own, which shares the packages of this one. The two take turns, the
other commit first in every second round, so that a machine that gets busier is unfair to neither. After each round the
medians so far are printed, and the ratio of this checkout to the commit: below 1 is faster. Ctrl-C ends it with what it
has. Processor time decides; of `sweep`, seconds on the clock are printed too, which tell on an idle machine alone.

One round of `sweep` takes 90 s of an idle core.
"""

import contextlib
import io
import os
import re
import resource
import site
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = {"help": 15, "job": 11, "sweep": 3, "smoke": 3, "tests": 1}


def install(commit: str, folder: Path) -> tuple[Path, Path]:
    """A commit in an environment of its own: its tree, and its Python."""
    tree, environment = folder / "tree", folder / "environment"
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(tree, filter="data")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # What it needs comes from here. Its own llmft lies before that of a checkout that is installed here for editing.
    (packages / "shared.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", tree], check=True)
    return tree, python


def run(command: list[str | Path], tree: Path, folder: Path) -> tuple[float, str]:
    """Seconds of user and system time of a command and its children, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["LLMFT_CACHE"] = str(folder / "cache")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if found.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{found.stdout[-2000:]}{found.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, found.stdout


Measure = Callable[[Path, Path, Path], dict[str, float]]
"""Takes a tree, its Python and an empty folder; returns seconds by what they are of."""


def command_line(*words: str) -> Measure:
    """The measure of a command of llmft."""
    return lambda tree, python, folder: {"processor": run([python, "-m", "llmft", *words], tree, folder)[0]}


def further_job(tree: Path, python: Path, folder: Path) -> dict[str, float]:
    """What this checkout's `benchmarks/sweep.py` prints of a tree: both are asked by the same script."""
    _, out = run([python, ROOT / "benchmarks" / "sweep.py"], tree, folder)
    ((wall, processor),) = re.findall(r"A further job costs ([\d.]+) s .* ([\d.]+) s of processor time", out)
    return {"processor": float(processor), "clock": float(wall)}


def tests(tree: Path, python: Path, folder: Path) -> dict[str, float]:
    """Processor time of the default tests, by test."""
    pytest = [python, "-m", "pytest", "-n", "2", tree / "tests", "--rootdir", tree, "-c", tree / "pyproject.toml"]
    seconds, out = run(pytest, tree, folder)
    (passed,) = re.findall(r"(\d+) passed", out)
    return {"processor": seconds / int(passed)}


MEASURES: dict[str, Measure] = {
    "help": command_line("--help"),
    "job": command_line("finetune", "+recipe=bert_textcls", "--cfg", "job"),
    "sweep": further_job,
    "smoke": command_line("finetune", "+recipe=bert_textcls", "smoke=true"),
    "tests": tests,
}


def main(commit: str, benchmark: str, rounds: str | None = None) -> None:
    """Measure both, in turns, and print medians and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = {commit: install(commit, folder), "now": (ROOT, Path(sys.executable))}
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for number in range(int(rounds or ROUNDS[benchmark])):
            for side in (list(sides), list(sides)[::-1])[number % 2]:
                with tempfile.TemporaryDirectory() as empty:
                    found[side].append(MEASURES[benchmark](*sides[side], Path(empty)))
            report(found, number + 1)


def report(found: dict[str, list[dict[str, float]]], rounds: int) -> None:
    """Print the medians of both sides, and the ratio of the second to the first."""
    for what in next(iter(found.values()))[0]:
        medians = [statistics.median(one[what] for one in values) for values in found.values()]
        both = ", ".join(f"{side} {median:.4f} s" for side, median in zip(found, medians, strict=True))
        print(f"{what:<9} {both}: ratio {medians[1] / medians[0]:.3f} after {rounds} rounds", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[2] not in MEASURES:
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:4])
