"""RUN/README.md, the model card, and RUN/report.html, from the content of the run folder."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from transformers import CONFIG_MAPPING

from llmft.metrics.calibration import most_confused
from llmft.reporting.answers import charts, mistakes, per_label, predictions, samples
from llmft.reporting.charts import Line, chart
from llmft.reporting.data_facts import interval, majority
from llmft.reporting.illustrations import Inputs, contact_sheet
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.problem import plural
from llmft.tasks.explaining import Ask
from llmft.tasks.task import Task
from llmft.training.evaluation import Split
from llmft.training.optimization import lr_curve


def write_reports(
    config: Config, task: Task[Any], run: Run, splits: Mapping[str, Split] | None = None, ask: Ask | None = None
) -> None:
    """Write report.html, and for a run that trains its model card, which says how outputs become answers.

    Args:
        splits: their rows have what the report shows of inputs.
        ask: gives the answers of the model to rows, by which the worst mistakes of the main split are explained.
    """
    facts = gather(config, task, run, splits or {}, ask) | {"head": task.head, "module": module_of(run)}
    run.write_text("report.html", pages().get_template("report.html.jinja").render(facts))
    if config.trains:
        facts["formula"] = task.target.formula() if task.target else ""
        card = pages().get_template("card.md.jinja").render(facts)
        run.write_text("README.md", card)


@cache
def pages() -> Environment:
    """The templates and their filters, compiled once for all runs of a process."""
    found = Environment(
        loader=PackageLoader("llmft.reporting"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "number": number,
        "cell": cell,
        "per_label": per_label,
        "most_confused": most_confused,
        "plural": plural,
        "repr": repr,
    }
    return found


def module_of(run: Run) -> str | None:
    """The module to import before transformers can load the model of a run; None for transformers' own
    architectures."""
    file = run.model / "config.json"
    if not file.is_file():
        return None
    kind = json.loads(file.read_text(encoding="utf-8"))["model_type"]
    # An architecture whose code came with its weights (trust_remote_code) is not registered.
    module = CONFIG_MAPPING[kind].__module__ if kind in CONFIG_MAPPING else "transformers."
    return None if module.startswith("transformers.") else str(module)


def number(value: Any) -> str:
    """A metric with four digits, or a count with thousands separators."""
    if value is None:
        return "–"
    return f"{value:,.4f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"


def cell(text: str) -> str:
    """A text as one cell of a Markdown table."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def gather(
    config: Config, task: Task[Any], run: Run, splits: Mapping[str, Split], ask: Ask | None = None
) -> dict[str, Any]:
    """Everything that a report shows."""
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    scored = [name for name in ("test", "validation") if name in metrics]
    main = scored[0] if scored else None
    answers = {name: predictions(run, name) for name in scored}
    headline = config.headline
    score = metrics[main].get(headline) if main else None
    rows = run.manifest.get("dataset")
    inputs = {name: Inputs.of(splits, name, ask if name == main else None) for name in scored}
    return {
        "config": config,
        "run": run,
        "metrics": metrics,
        "splits": scored,
        "main": main,
        "headline": headline,
        "score": score,
        "counts": {name: len(answers[name]) for name in scored},
        "interval": interval(answers[main], headline, score) if main else None,
        "majority": majority(rows, answers[main], headline) if main and rows else None,
        "thresholds": {k: v for k, v in run.manifest.get("thresholds", {}).items() if v != 0.5},
        "manifest": run.manifest,
        "tree": config.model_dump(mode="json"),
        "curves": curves(run.events(), headline) + schedule(config, run),
        "mistakes": {name: mistakes(answers[name], task, inputs[name]) for name in scored},
        "samples": {name: samples(answers[name], task, inputs[name]) for name in scored},
        "sheet": contact_sheet(config, task, splits),
        "charts": {name: charts(answers[name], metrics[name]) for name in scored},
    }


def curves(events: Iterable[dict[str, Any]], metric: str) -> list[str]:
    """The learning curves: training and validation loss, and the validation metric."""
    train = [(e["step"], e["loss"]) for e in events if e["split"] == "train" and "loss" in e]
    validation = [e for e in events if e["split"] == "validation"]
    losses = [Line("training loss", train, "a")] if train else []
    if points := [(e["step"], e["loss"]) for e in validation if e.get("loss") is not None]:
        losses.append(Line("validation loss", points, "b"))
    found = [chart(losses, "step", "loss by step")] if losses else []
    scores = [(e["step"], e[metric]) for e in validation if e.get(metric) is not None]
    if len(scores) > 1 and metric != "loss":  # a single evaluation is no curve; its value is in the tiles
        found.append(chart([Line(f"validation {metric}", scores, "b")], "step", f"{metric} by step"))
    return found


def schedule(config: Config, run: Run) -> list[str]:
    """The planned and the actual learning rate, as a chart; none for a run that did not train."""
    logged = [(event["step"], event["lr"]) for event in run.events() if "lr" in event]
    if not logged:
        return []
    lines = [Line("learning rate", logged, "b")]
    if plan := lr_curve(config, **run.manifest["planned_steps"]):
        lines.insert(0, Line("planned", plan, "a"))
    return [chart(lines, "step", "learning rate by step")]
