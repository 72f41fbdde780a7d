"""The first and the last lines that a command prints: its plan, and its results."""

import textwrap
from collections.abc import Mapping
from typing import Any

from llmft.models import adapters
from llmft.reporting.lines import phase
from llmft.reporting.trains import trains
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import plural
from llmft.training.evaluation import Experiment, Split
from llmft.training.fit import fits
from llmft.training.hardware import Hardware
from llmft.training.optimization import effective_batch_size, planned_steps


def announce(experiment: Experiment, notes: list[str], origin: str) -> None:
    """Print the plan: task, model and its size, data and its splits, steps, hardware, folder, and notes.

    Args:
        origin: where the prepared rows come from; empty where that is nothing to mention.
    """
    config, task, model, splits = experiment.config, experiment.task, experiment.model, experiment.splits
    millions = model.num_parameters() / 1e6
    training = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) / 1e6
    # With a frozen part or an adapter, the number that trains is what decides memory and speed.
    part = f", of which {_short(training)} M train" if config.trains and training < millions else ""
    backbone = f" but for {config.model.backbone}" if config.model.backbone else ""
    if config.command == "eval":  # an export knows its weights' origin, a run's model is always trained
        size = f", {_short(millions)} M parameters, {getattr(model, 'origin', 'trained')}"
    else:
        size = "" if fits(model) else f", {_short(millions)} M parameters{part}, {config.model.first_weights}{backbone}"
    lines = {
        "task": config.task.name,
        "model": f"{config.model.name} ({model.config.model_type}{size})",
        "data": f"{config.dataset.display_name}: "
        + ", ".join(f"{name} {len(split):,}{' (streamed)' if split.stream else ''}" for name, split in splits.items()),
    }
    if config.adapter.name != "none" and config.trains:
        lines["adapter"] = adapters.describe(model, config.adapter)
    if answers := task.state.description:
        lines["task"] += f", {answers}"
    if "train" in splits:
        examples = splits["train"].examples
        lines["training"] = model.plan() if fits(model) else _training(config, examples)
    if origin:
        lines["prepared"] = origin
    lines["hardware"] = str(experiment.hardware)
    if config.trains and config.tracking.to:
        lines["tracking"] = ", ".join(config.tracking.to)
    lines["folder"] = str(experiment.run.folder)
    print(f"llmft {config.command}: {config.name}")
    for name, text in lines.items():
        phase(name, text)
    if "train" in splits and not fits(model) and (part or config.model.unfreeze):
        for number, line in enumerate(trains(model, config.model.unfreeze)):
            print(f"  {'' if number else 'trains':<9} {line['part']:<14} {line['parameters']:>12,}  {line['trains']}")
    # Notes come last: they are what a user has to act on, and stay visible above the progress lines.
    for note in notes + cut_notes(splits):
        phase("note", note)


def _short(millions: float) -> str:
    return f"{millions:.1f}" if millions >= 0.1 else f"{millions:.4f}"


def cut_notes(splits: Mapping[str, Split]) -> list[str]:
    """One line about inputs longer than `task.max_length`."""
    counts = {name: split.features.cut for name, split in splits.items() if split.features.cut}
    if not counts:
        return []
    shares = ", ".join(f"{count / len(splits[name].features):.1%} of {name}" for name, count in counts.items())
    return [f"longer than task.max_length and cut: {shares}"]


def _training(config: Config, examples: int) -> str:
    trainer = config.trainer
    steps = planned_steps(config, examples)
    if trainer.batch_size == "all":
        size = f"all {effective_batch_size(config, examples):,}"
    else:
        # 2 x 32 x 4: the factors show what to change, their product alone does not.
        factors = (config.hardware.processes, trainer.batch_size, trainer.accumulation)
        size = " x ".join(str(factor) for factor in factors if factor > 1) or "1"
    length = plural(steps, "steps")
    if not trainer.max_steps:
        length = f"{plural(trainer.epochs, 'epochs')}, {length}"
    rows = f"{size} {'row' if size == '1' else 'rows'}"
    return f"{length} of {rows}, {config.optimizer.name} lr {config.optimizer.lr:g}, {config.scheduler.name}"


def start_on_nodes(hardware: Hardware, run: Run) -> None:
    """Print the command that starts the processes of each node."""
    each = hardware.processes // hardware.nodes
    print("\nThe run folder is ready. Start the processes on each node; FIRST is the host name of one of the nodes:")
    print(f"  torchrun --nnodes {hardware.nodes} --nproc-per-node {each} --rdzv-backend c10d \\")
    print(f"    --rdzv-endpoint FIRST:29500 -m llmft.worker {run.folder}")


def conclude(config: Config, metrics: Mapping[str, Mapping[str, Any]], run: Run) -> None:
    """Print the metrics, the report, and the next command to type."""
    print()
    headline = config.headline
    for split in ("validation", "test"):
        if split in metrics:
            numbers = {
                k: v
                for k, v in metrics[split].items()
                # Micro and per-row averages would double the lines; metrics.json has them.
                if isinstance(v, float) and (k == headline or not k.endswith(("_micro", "_samples")))
            }
            print(metrics_line(split, numbers))
    if baseline := metrics.get("baseline"):
        print(f"  baseline   {baseline_line(config, metrics, baseline)}")

    thresholds = run.manifest.get("thresholds", {})
    if config.trains and any(cut != 0.5 for cut in thresholds.values()):
        shown = [f"{label} {cut:.4f}" for label, cut in thresholds.items()][:8]
        more = f", and {len(thresholds) - 8} more in model/task.json" if len(thresholds) > 8 else ""
        print(f"  thresholds {', '.join(shown)}{more}")
    expect = config.expect
    value = metrics.get("test", {}).get(expect.metric) if expect else None
    if expect and expect.data == config.dataset.name and value is not None:  # a promise holds for its own data only
        met = value >= expect.at_least if METRICS[expect.metric] else value <= expect.at_least
        how = "met" if met else "missed"
        print(f"  promised   {expect.metric} {expect.at_least:g} on test by the recipe: {how}")
    print(f"  report     {run.folder / 'report.html'}")
    if config.trains:
        then = config.task.then or f"eval {{run}} {config.own_files}"
        print(f"  next       llmft {then.format(run=run.folder)}")


def metrics_line(split: str, numbers: Mapping[str, float]) -> str:
    """The metrics of a split in lines of at most 100 characters; a name and its value stay together."""
    pairs = "  ".join(f"{name}\xa0{value:.4f}" for name, value in numbers.items())
    wrapped = textwrap.wrap(pairs, 100, initial_indent=f"  {split:<10} ", subsequent_indent=" " * 13)
    return "\n".join(wrapped).replace("\xa0", " ")


def baseline_line(config: Config, metrics: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Any]) -> str:
    """The headline metric of the baseline, and whether it is better than the model."""
    split, metric = next(name for name in ("test", "validation") if name in baseline), config.headline
    own, other = metrics[split].get(metric), baseline[split].get(metric)
    seconds = f"in {metrics['train']['baseline_seconds']:.1f} s"
    if own is None or other is None:
        return f"{baseline['name']}, {seconds}; metrics.json has its metrics"
    ahead = (other - own) if METRICS[metric] else (own - other)
    better = ", better than the model" if ahead > 0 else ""
    return f"{baseline['name']}: {metric} {other:.4f} on {split}{better} ({seconds})"
