"""What computes a model: onnxruntime for an export in ONNX, torch for everything else."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from llmft import tasks
from llmft.exports.runtime import BESIDE, load
from llmft.runs.exported import FACTS, is_export, verified
from llmft.schema.config import Config
from llmft.tasks.explaining import Ask
from llmft.tasks.task import Task

GROUP = 8  # rows of similar length that are computed together: see batcher.py
ALIKE = 0.9  # of the longest, in a program: a further run of it costs as much as 10 tokens


@dataclass(frozen=True)
class Engine:
    """A loaded model."""

    task: Task[Any]
    """With its state, for rows of predict."""
    run: Callable[[list[dict[str, Any]]], list[Any]]
    """The outputs of features, as `task.decode` takes them."""
    workers: int
    """How many threads may call `run` at once."""
    group: int
    """The most features of a call."""
    alike: float = 0.0
    """The least length in a call, as a share of the greatest; 1 where padding changes the outputs."""
    model: Any = None
    """The torch model, where it is one."""
    asking: Callable[[Ask], Ask] = lambda ask: ask
    """What explanations ask by: of a torch model also by its gradients and attention."""
    what: str = ""
    """How it is computed, in a few words for the console."""


def open_engine(folder: Path, config: Config, workers: int) -> Engine:
    """Load the model of a run or an export.

    Args:
        config: that of the run, with what the command sets.
        workers: threads for a program that takes one core each.

    Raises:
        UserError: if there is no finished model, or its files are not those that were written.
    """
    if is_export(folder):
        if _format(folder) != "onnx":
            return _torch(folder, config)
        program = load(folder)  # verifies its files; once is enough
        how = f"onnx {program.facts['precision']}"
        how += ", a row at a time since int8 is dynamic" if program.alone else ""
        return Engine(program.task, program.run, workers, 1 if program.alone else GROUP, ALIKE, what=how)
    return _torch(folder, config)


def _format(folder: Path) -> str:
    """The format of an export, whose files are verified when it is loaded."""
    try:
        return str(json.loads((folder / FACTS).read_text(encoding="utf-8"))["format"])
    except (OSError, ValueError, KeyError):
        return str(verified(folder)["format"])  # which says what is wrong with it


def _torch(folder: Path, config: Config) -> Engine:
    from llmft.models.generate import set_generation
    from llmft.models.trained import load_trained
    from llmft.training.evaluation import float32, padding_matters
    from llmft.training.hardware import detect
    from llmft.training.introspection import asking

    device = detect(config.hardware).device
    model, task = load_trained(folder, tasks.build(config.task), device, config.model.trust_remote_code)
    set_generation(model, config.generation, config.seed)
    task = task.for_inference()
    place = next(model.parameters()).device
    alone = Lock()  # explanations look into the model in threads of their own

    def run(features: list[dict[str, Any]]) -> list[Any]:
        batch = task.objective.collate([{k: v for k, v in each.items() if k not in BESIDE} for each in features])
        with alone, float32(model):
            outputs, _ = task.objective.predict(model, {name: value.to(place) for name, value in batch.items()})
        if "aside" in features[0]:
            return [(output, each["aside"]) for output, each in zip(outputs, features, strict=True)]
        return list(outputs)

    def look(ask: Ask) -> Ask:
        return asking(task, model, ask, alone)

    # A text is written token by token: the more of them at once, the better, and padding counts little.
    group = GROUP if place.type == "cpu" and not config.task.generates else config.trainer.eval_batch_size
    return Engine(task, run, 1, group, float(padding_matters(model)), model, look, f"torch on {place}")
