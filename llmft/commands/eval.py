"""`llmft eval RUN`: score a finished run; `llmft eval RUN RUN ... ensemble=mean`: several, together and one by one."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llmft import tasks
from llmft.commands.session import Session, read
from llmft.data.pipeline import Data
from llmft.reporting.lines import aligned
from llmft.reporting.reports import write_reports
from llmft.runs.environment import environment
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.inference import EnsembleConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.task import Answer
from llmft.training.evaluation import evaluate, keep
from llmft.training.hardware import Hardware


def run(config: Config) -> Run:
    """Score the validation and test rows with the model of `config.run.source`.

    Raises:
        UserError: if there is no finished model, or the data are not what it can answer; nothing is written then.
    """
    if config.ensemble:
        return run_ensemble(config, config.ensemble)
    session = Session(config)
    session.check()
    session.load(Path(str(config.run.source)))
    session.read()
    with session.record():
        session.evaluate()
        session.report()
    return session.run


def run_ensemble(config: Config, ensemble: EnsembleConfig) -> Run:
    """Score the validation and test rows with each run, and with all of them together. One model is loaded at a time.

    Raises:
        UserError: if a run has no finished model or other labels, or the data are not what all of them can answer;
            nothing is written then.
    """
    session = Session(config)
    session.check()
    data = read(config.dataset, tasks.build(config.task))
    weights = ensemble.weights or [1.0] * len(ensemble.runs)
    _announce(config, ensemble, weights, data, session.hardware)
    members: list[Member] = []
    # One model in memory at a time: an ensemble of ten needs no more than its largest member.
    for source in ensemble.runs:
        members.append(Member(Path(source), session))
        if members[-1].labels != members[0].labels:
            own, wanted = _few(members[-1].labels), _few(members[0].labels)
            what = f"answers {own}, and {ensemble.runs[0]} answers {wanted}"
            raise UserError(Problem(source, what, "command line"))
        members[-1].answer(data)
        print(f"  answered  {source}", flush=True)
    thresholds = [member.task.target.label_thresholds() for member in members if member.task.target]
    answers = {
        name: combine([member.answers[name] for member in members], ensemble.name, weights, thresholds)
        for name in data.splits
    }
    task = members[0].task
    if task.target:  # no temperature of one model made these scores
        task = task.with_target(task.target.uncalibrated())
    run = Run.create(config)
    facts = {"command": "eval", "sources": ensemble.runs, "hardware": str(session.hardware), "data": data.digests}
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
    _conclude(config, ensemble, metrics, run)
    return run


class Member:
    """One run, and what it answers for the rows."""

    def __init__(self, source: Path, whole: Session) -> None:
        """Load its model; UserError if it has none."""
        own, trusted = Run(source).config(), whole.config.model.trust_remote_code
        model = own.model.model_copy(update={"trust_remote_code": trusted})
        self.session = Session(whole.config.model_copy(update={"task": own.task, "model": model}))
        self.session.hardware = whole.hardware
        self.session.load(source)
        self.task = self.session.task
        self.labels = sorted(self.task.model_kwargs().get("id2label", {}).values())
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.scores: dict[str, dict[str, float]] = {}

    def answer(self, data: Data) -> None:
        """Answer and score every split, and let the model go; UserError for rows that it cannot answer."""
        session = self.session
        session.accept(data)
        for name, split in session.splits.items():
            size = session.config.trainer.eval_batch_size
            scores, prediction = evaluate(self.task, session.model, split, size)
            self.answers[name] = prediction.answers
            self.scores[name] = {key: value for key, value in scores.items() if isinstance(value, int | float)}
        del session.model


def _few(labels: list[str]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")


def _announce(
    config: Config, ensemble: EnsembleConfig, weights: Sequence[float], data: Data, hardware: Hardware
) -> None:
    """Print the plan: the ensemble, its data, weights, hardware, and notes."""
    print(f"llmft {config.command}: {config.name}, ensemble={ensemble.name} of {len(ensemble.runs)} runs")
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in data.splits.items())
    lines = [["task", config.task.name], ["data", f"{config.dataset.display_name}: {counts}"]]
    if ensemble.weights:
        lines.append(["weights", ", ".join(f"{weight:g}" for weight in weights)])
    lines.append(["hardware", str(hardware)])
    lines += [["note", note] for note in data.notes]
    for row in aligned(lines):
        print(f"  {row}")


def _conclude(config: Config, ensemble: EnsembleConfig, metrics: dict[str, Any], run: Run) -> None:
    """Print a table for each split, with a row for each run and one for the ensemble, and the report's path."""
    names = short_names(ensemble.runs)
    for split in ("validation", "test"):
        if split not in metrics:
            continue
        scores = {key: value for key, value in metrics[split].items() if isinstance(value, int | float)}
        shown = [key for key in scores if not key.endswith("_micro")]  # they equal accuracy, or are in metrics.json
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
    """The paths of runs without the folders that all of them share."""
    common = os.path.commonpath([str(Path(run).parent) for run in runs])
    return [os.path.relpath(run, common) if common else run for run in runs]


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


def combine(
    answers: Sequence[Sequence[Answer]],
    how: Literal["mean", "vote"],
    weights: Sequence[float],
    thresholds: Sequence[Mapping[str, float]],
) -> list[Answer]:
    """The answers of several models combined to one answer per row.

    Answers have one of three forms: a label with the scores of all, a list of labels with the scores of all, or a
    number.

    Args:
        answers: (models, rows), with rows in the same order.
        weights: one for each model; their sum is above 0.
        thresholds: for each model by label, see `Target.label_thresholds`. The mean score of a label is compared with
            the mean of its thresholds.

    Raises:
        UserError: for a vote on numbers.
    """
    whole = sum(weights)
    shares = [weight / whole for weight in weights]
    pairs = list(zip(shares, thresholds, strict=True))
    # Each model was calibrated to its own thresholds. With equal scores, the mean of both gives what each would say.
    cuts = {name: sum(share * own[name] for share, own in pairs) for name in thresholds[0]}
    return [_one(row, how, shares, cuts) for row in zip(*answers, strict=True)]


def _one(row: Sequence[Answer], how: str, shares: Sequence[float], cuts: Mapping[str, float]) -> Answer:
    given = [answer["answer"] for answer in row]
    if not isinstance(given[0], str | list):
        if how == "vote":
            raise UserError(
                Problem(
                    "ensemble", "must be mean for a task that predicts numbers, got vote", hint="Write ensemble=mean."
                )
            )
        return {"answer": float(sum(share * number for share, number in zip(shares, given, strict=True)))}
    names = list(row[0]["scores"])
    pairs = list(zip(shares, row, strict=True))
    mean = {name: float(sum(share * answer["scores"][name] for share, answer in pairs)) for name in names}
    several = isinstance(given[0], list)
    # A vote is the weighted share of models that give the label, from 0 to 1.
    votes = {name: float(sum(share for share, answer in pairs if _says(answer, name))) for name in names}
    above = {name: mean[name] - cuts.get(name, 0.0) for name in names}  # single labels without thresholds: the mean
    if how == "mean":
        answer = [name for name in names if above[name] >= 0] if several else max(names, key=above.__getitem__)
        return {"answer": answer, "scores": mean}
    # Ties are common in a vote of two or four models: the mean score decides them.
    if several:
        chosen = [name for name in names if votes[name] > 0.5 or (votes[name] == 0.5 and above[name] >= 0)]
        return {"answer": chosen, "scores": votes}
    return {"answer": max(names, key=lambda name: (votes[name], above[name])), "scores": votes}


def _says(answer: Answer, name: str) -> bool:
    said = answer["answer"]
    return name in said if isinstance(said, list) else name == said
