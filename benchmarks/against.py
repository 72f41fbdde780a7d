"""This checkout beside another commit: which of the two is faster, in processor time?

    python benchmarks/against.py COMMIT help [ROUNDS]        llmft --help
    python benchmarks/against.py COMMIT job [ROUNDS]         llmft finetune +recipe=bert_textcls --cfg job
    python benchmarks/against.py COMMIT sweep [ROUNDS]       what a further job of a sweep costs, by benchmarks/sweep.py
    python benchmarks/against.py COMMIT tests [ROUNDS]       the default tests, by test

The commit is installed into an environment of its own, which shares the packages of this one. The two take turns, the
other commit first in every second round, so that a machine that gets busier is unfair to neither. Medians are printed,
and the ratio of this checkout to the commit: below 1 is faster.
"""

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
ROUNDS = {"help": 15, "job": 11, "sweep": 3, "tests": 1}


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


def processor_time(command: list[str | Path], tree: Path, folder: Path) -> tuple[float, str]:
    """Seconds of user and system time of a command and its children, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["LLMFT_CACHE"] = str(folder / "cache")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if found.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{found.stdout[-2000:]}{found.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, found.stdout


def command_line(*words: str) -> Callable[[Path, Path, Path], float]:
    """The measure of a command of llmft."""
    return lambda tree, python, folder: processor_time([python, "-m", "llmft", *words], tree, folder)[0]


def further_job(tree: Path, python: Path, folder: Path) -> float:
    """The seconds that `benchmarks/sweep.py` of a tree prints."""
    _, out = processor_time([python, tree / "benchmarks" / "sweep.py"], tree, folder)
    (seconds,) = re.findall(r"A further job costs ([\d.]+) s", out)
    return float(seconds)


def tests(tree: Path, python: Path, folder: Path) -> float:
    """Processor time of the default tests, by test."""
    pytest = [python, "-m", "pytest", "-n", "2", tree / "tests", "--rootdir", tree, "-c", tree / "pyproject.toml"]
    seconds, out = processor_time(pytest, tree, folder)
    (passed,) = re.findall(r"(\d+) passed", out)
    return seconds / int(passed)


MEASURES: dict[str, Callable[[Path, Path, Path], float]] = {
    "help": command_line("--help"),
    "job": command_line("finetune", "+recipe=bert_textcls", "--cfg", "job"),
    "sweep": further_job,
    "tests": tests,
}


def main(commit: str, benchmark: str, rounds: str | None = None) -> None:
    """Measure both, in turns, and print medians and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = {commit: install(commit, folder), "now": (ROOT, Path(sys.executable))}
        found: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(int(rounds or ROUNDS[benchmark])):
            for side in (list(sides), list(sides)[::-1])[number % 2]:
                with tempfile.TemporaryDirectory() as empty:
                    found[side].append(MEASURES[benchmark](*sides[side], Path(empty)))
    medians = {side: statistics.median(values) for side, values in found.items()}
    for side, values in found.items():
        print(
            f"{side:<10} median {medians[side]:.4f} s, {min(values):.4f} to {max(values):.4f} s in {len(values)} rounds"
        )
    print(f"ratio      {medians['now'] / medians[commit]:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
