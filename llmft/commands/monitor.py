"""`llmft monitor RUN`: whether the rows of a file are like those that the model was not trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmft import tasks
from llmft.data.pipeline import load
from llmft.metrics.drift import ALARM_RATE, LEAST, Reference, compare
from llmft.models.generate import set_generation
from llmft.models.trained import load_trained
from llmft.reporting.charts import Line, chart
from llmft.reporting.lines import aligned, counting, phase, quiet
from llmft.reporting.reports import pages
from llmft.runs.environment import environment
from llmft.runs.folder import Run, whole
from llmft.schema.config import Config
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.measurements import Meter, of_answers
from llmft.tasks.task import Task
from llmft.training.evaluation import Prediction, Split, predict
from llmft.training.features import encode
from llmft.training.hardware import detect
from llmft.training.reference import measure

TRIED = 8  # rows whose answers tell whether the reference has measurements of such answers
PAGES = 12  # charts of the report: those that alarm come first


class Inputs:
    """The roles of a task that the model reads: a file of rows from a service has no labels."""

    def __init__(self, task: Task[Any]) -> None:
        self.columns = {role: spec for role, spec in task.columns.items() if spec.is_input}
        self.synthetic_rows = task.synthetic_rows
        self.config = task.config


def run(config: Config) -> Run:
    """Answer the rows of `dataset.test`, measure them, and compare them with RUN/model/reference.json.

    Raises:
        UserError: if there is no finished model, no reference, or the rows cannot be answered.
    """
    quiet()
    Run.check(config)
    source = Path(str(config.run.source))
    hardware = detect(config.hardware)
    phase("loading", str(source))
    model, task = load_trained(source, tasks.build(config.task), hardware.device, config.model.trust_remote_code)
    set_generation(model, config.generation, config.seed)
    task = task.for_inference("file")
    meter, reference = _reference(task, source)
    data = load(_only_inputs(config.dataset, task), Inputs(task), ("test",))
    rows = data["test"]
    if problems := task.check(rows, "test"):
        raise UserError(problems, "the data")
    split = Split(rows, encode(task, rows))
    with whole(config) as folder:
        facts = environment() | {"command": "monitor", "source": str(source), "data": data.digests}
        with folder.recorded(facts):
            print(f"llmft monitor: {config.name}")
            phase("task", config.task.name)
            phase("model", f"{config.model.name} of {source}")
            phase("data", f"{config.dataset.display_name}: test {len(rows):,}")
            phase("reference", f"{plural(reference.rows, 'rows')} of {reference.split}")
            for note in data.notes:
                phase("note", note)
            answers = _answers(task, model, split, config.trainer.eval_batch_size, reference).answers
            found = compare(reference, measure(meter, split, answers))
            drift = {"rows": len(rows), "reference": {"split": reference.split, "rows": reference.rows}}
            drift |= {"alarm_rate": ALARM_RATE, "alarms": [each["name"] for each in found if each["alarm"]]}
            folder.write_json("metrics.json", {"drift": drift | {"statistics": found}})
            page = pages().get_template("monitor.html.jinja")
            charts = _charts(found, reference)
            folder.write_text("report.html", page.render(config=config, drift=drift, found=found, charts=charts))
    _conclude(found, folder)
    return folder


def _reference(task: Task[Any], source: Path) -> tuple[Meter, Reference]:
    """The reference of a run and what measures rows as it did; UserError if there is none."""
    try:
        reference = Reference.load(source / "model")
    except ValueError as error:
        raise UserError(Problem(str(source / "model"), f"cannot be compared with: {error}", "command line")) from error
    if reference is None:
        what = (
            f"has no reference.json: it had fewer than {LEAST} rows of validation or test, or is of an earlier version"
        )
        hint = "Train again with more validation rows, such as dataset.split.validation=0.1."
        raise UserError(Problem(str(source / "model"), what, "command line", hint))
    return Meter.of_reference(task, reference), reference


def _only_inputs(dataset: DatasetConfig, task: Task[Any]) -> DatasetConfig:
    """The dataset as far as it says how to read the inputs of the test rows."""
    inputs = {role for role, spec in task.columns.items() if spec.is_input}
    columns = {role: column for role, column in dataset.columns.items() if role in inputs}
    return dataset.model_copy(update={"train": None, "validation": None, "columns": columns})


def _answers(task: Task[Any], model: Any, split: Split, batch_size: int, reference: Reference) -> Prediction:
    """The answers to all rows; to none if the reference knows nothing of such answers, such as a language model's.

    Training scores a language model by its loss, and does not generate.
    """
    rows = split.rows.select(range(min(TRIED, len(split.rows))))
    first = predict(task, model, encode(task, rows), batch_size)
    if not of_answers(first.answers).keys() & reference.measurements.keys():
        return Prediction([{"answer": None}] * len(split.rows), [], None)
    with counting("answering", len(split.features), "rows") as seen:
        return predict(task, model, split.features, batch_size, seen)


def _charts(found: list[dict[str, Any]], reference: Reference) -> list[tuple[str, str]]:
    """Cumulative distributions of numbers, those that alarm first: the name of each, and an SVG element."""
    charts = []
    for each in sorted(found, key=lambda each: each["limit"] - each["value"]):
        edges = reference.measurements[each["name"]].edges
        if each["kind"] == "number":
            lines = [
                Line(name, list(zip(edges, _cumulative(each["bins"][key]), strict=False)), style)
                for name, key, style in (("reference", "reference", "a"), ("these rows", "window", "b"))
            ]
            charts.append(
                (each["name"], chart(lines, each["name"], f"share of rows with at most so much {each['name']}"))
            )
    return charts[:PAGES]


def _cumulative(shares: list[float]) -> list[float]:
    """The share of rows up to each edge, of those that have a value."""
    there, sums = 1 - shares[0] or 1.0, [0.0]
    for share in shares[1:-1]:
        sums.append(sums[-1] + share / there)
    return sums[1:]


def _conclude(found: list[dict[str, Any]], folder: Run) -> None:
    """Print a line for each measurement that has drifted, the others in one, and where the report is."""
    alarms = [each for each in found if each["alarm"]]
    print()
    for row in aligned(
        [[each["name"], _told(each), f"(distance {each['value']:.3f}, limit {each['limit']:.3f})"] for each in alarms]
    ):
        print(f"  drift     {row}")
    others = [each["name"] for each in found if not each["alarm"]]
    if others:
        print(f"  as before {', '.join(others[:10])}{', ...' if len(others) > 10 else ''}")
    print(f"  report    {folder.folder / 'report.html'}")


def _told(each: Mapping[str, Any]) -> str:
    """How a measurement has changed, in a few words."""
    if each["kind"] == "number":
        before, now = each["reference"], each["window"]
        return f"mean {before:.4g}, now {'none' if now is None else f'{now:.4g}'}"
    labels = {*each["reference"], *each["window"]}
    change = max(labels, key=lambda label: abs(each["window"].get(label, 0) - each["reference"].get(label, 0)))
    before, now = each["reference"].get(change, 0), each["window"].get(change, 0)
    return f"{change or 'missing'} {before:.1%}, now {now:.1%}"
