"""`llmft eval RUN RUN ... ensemble=mean`: score what several runs say together, and each of them beside it."""

from pathlib import Path
from typing import Any

from llmft import tasks
from llmft.commands.session import check_inputs, check_labels, quiet
from llmft.data.load import Data, load
from llmft.models.generate import set_generation
from llmft.models.trained import load_trained
from llmft.reporting import ensemble as console
from llmft.reporting.reports import write_reports
from llmft.runs.environment import environment
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.ensemble import EnsembleConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.targets.combination import combine
from llmft.training.evaluation import Split, evaluate, keep
from llmft.training.features import encode
from llmft.training.hardware import detect


def run(config: Config, ensemble: EnsembleConfig) -> Run:
    """Score the validation and test rows with each run, and with all of them together. One model is loaded at a time.

    Raises:
        UserError: if a run has no finished model or other labels, or the data are not what all of them can answer;
            nothing is written then.
    """
    quiet()
    Run.check(config)
    hardware = detect(config.hardware)
    task = tasks.build(config.task)
    data = load(config.dataset, task, splits=("validation", "test"))
    weights = ensemble.weights or [1.0] * len(ensemble.runs)
    console.announce(config, ensemble, weights, data, hardware)
    members: list[Member] = []
    for source in ensemble.runs:
        members.append(Member(Path(source), config, hardware.device))
        if members[-1].labels != members[0].labels:
            own, wanted = _few(members[-1].labels), _few(members[0].labels)
            what = f"answers {own}, and {ensemble.runs[0]} answers {wanted}"
            raise UserError(Problem(source, what, "command line"))
        members[-1].answer(data)
        console.member(source)
    thresholds = [member.task.label_thresholds() for member in members]
    answers = {
        name: combine([member.answers[name] for member in members], ensemble.name, weights, thresholds)
        for name in data.splits
    }
    task = members[0].task.uncalibrated()
    run = Run.create(config)
    facts = {"command": "eval", "sources": ensemble.runs, "hardware": str(hardware), "data": data.digests}
    facts["metric"] = config.headline
    facts["rows_sha256"] = data.rows_sha256
    with run.alone(), run.recorded(environment() | facts):
        metrics: dict[str, Any] = {}
        for name, rows in data.splits.items():
            metrics[name] = task.score(answers[name], rows)
            keep(task, name, rows, answers[name], run)
        pairs = zip(ensemble.runs, weights, members, strict=True)
        metrics["members"] = [{"run": source, "weight": weight, **member.scores} for source, weight, member in pairs]
        run.write_json("metrics.json", metrics)
        write_reports(config, task, run)
    console.conclude(config, ensemble, metrics, run)
    return run


class Member:
    """One run, and what it says of the rows."""

    def __init__(self, source: Path, config: Config, device: str) -> None:
        """Load its model; UserError if it has none."""
        self.config, self.size = Run(source).config(), config.trainer.eval_batch_size
        task = tasks.build(self.config.task)
        self.model, self.task = load_trained(source, task, device, config.model.trust_remote_code)
        set_generation(self.model, config.generation, config.seed)
        self.labels = sorted(self.task.model_kwargs().get("id2label", {}).values())
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.scores: dict[str, dict[str, float]] = {}

    def answer(self, data: Data) -> None:
        """Answer and score every split, and let the model go; UserError for rows that it can't answer."""
        task = self.task
        check_labels(task, data)
        splits = {name: Split(rows, encode(task, rows)) for name, rows in data.splits.items()}
        check_inputs(task, self.model, self.config.model.name, splits)
        for name, split in splits.items():
            scores, prediction = evaluate(task, self.model, split, self.size)
            self.answers[name] = prediction.answers
            self.scores[name] = {key: value for key, value in scores.items() if isinstance(value, int | float)}
        del self.model


def _few(labels: list[str]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
