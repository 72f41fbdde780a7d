"""What an ensemble prints: which runs answer, and their scores beside those of all together."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.data.load import Data
from llmft.reporting.lines import aligned
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.ensemble import EnsembleConfig
from llmft.training.hardware import Hardware


def announce(
    config: Config, ensemble: EnsembleConfig, weights: Sequence[float], data: Data, hardware: Hardware
) -> None:
    """Print what will answer, and what."""
    print(f"llmft {config.command}: {config.name}, ensemble={ensemble.name} of {len(ensemble.runs)} runs")
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in data.splits.items())
    lines = [["task", config.task.name], ["data", f"{config.dataset.called}: {counts}"]]
    if ensemble.weights:
        lines.append(["weights", ", ".join(f"{weight:g}" for weight in weights)])
    lines.append(["hardware", str(hardware)])
    lines += [["note", note] for note in data.notes]
    for row in aligned(lines):
        print(f"  {row}")


def member(source: str) -> None:
    """Print that a run has answered."""
    print(f"  answered  {source}", flush=True)


def conclude(config: Config, ensemble: EnsembleConfig, metrics: dict[str, Any], run: Run) -> None:
    """Print a table for each split, a row a run and one for all together, and where the rest is."""
    names = short_names(ensemble.runs)
    for split in ("validation", "test"):
        if split not in metrics:
            continue
        scores = {key: value for key, value in metrics[split].items() if isinstance(value, int | float)}
        shown = [key for key in scores if not key.endswith("_micro")]
        table = [[split, *shown]]
        table += [
            [name, *(_number(found[split].get(key)) for key in shown)]
            for name, found in zip(names, metrics["members"], strict=True)
        ]
        table.append([f"{ensemble.name} of {len(names)}", *(_number(scores[key]) for key in shown)])
        print()
        for row in aligned(table):
            print(f"  {row}")
    print()
    print(f"  report     {run.folder / 'report.html'}")


def short_names(runs: Sequence[str]) -> list[str]:
    """The runs without the folders that all of them lie in."""
    common = os.path.commonpath([str(Path(run).parent) for run in runs])
    return [os.path.relpath(run, common) if common else run for run in runs]


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
