"""`llmft runs compare A B ...`: how configs and metrics of runs differ, and whether the difference is significant."""

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy

from llmft import tasks
from llmft.metrics.significance import LEVEL, bootstrap, holm, mcnemar, score
from llmft.reporting.answers import predictions
from llmft.reporting.charts import Line, chart
from llmft.reporting.lines import quiet
from llmft.reporting.reports import pages
from llmft.runs.folder import Run, flat
from llmft.runs.index import ROOT, Entry, title
from llmft.schema.metric import METRICS
from llmft.schema.problem import Problem, UserError, plural

APART = ("run", "resume", "name", "expect", "sweep", "command")  # keys that do not change the trained model
CHANGED = 50  # rows with different answers that the page shows
STYLES = "abcde"  # CSS classes of lines; more runs than these share colors


def compare(folders: list[Path], page: Path | None) -> dict[str, Any]:
    """Compare runs on their test rows, or on validation rows if one of them has no test rows, and write a page.

    Args:
        page: the HTML file to write; None for one in `outputs` whose name is the same for the same runs.

    Raises:
        UserError: for runs without answers, with answers to other rows or in another order, or of other tasks.
    """
    quiet()
    runs = [Run(folder, Entry(folder).manifest) for folder in folders]
    names = [title(folder) for folder in folders]
    if len(set(names)) < len(names):  # two runs of one recipe have the same title; their folders differ
        names = list(map(str, folders))
    split, rows = _rows(runs)
    parts, metric = _parts(runs, rows)
    facts = {
        "runs": [{"name": name, "folder": str(run.folder)} for name, run in zip(names, runs, strict=True)],
        "config": _differences(runs),
        "split": split,
        "rows": len(rows[0]),
        "scores": _scores(runs),
        "metric": metric,
        "tests": _tests(names, parts, metric),
    }
    facts["page"] = str(_write_page(facts, runs, rows, parts, page))
    return facts


def _rows(runs: list[Run]) -> tuple[str, list[list[dict[str, Any]]]]:
    """The split that all runs have answered, and their answers.

    Raises:
        UserError: if there is no such split, or the rows differ.
    """
    having = [{file.stem for file in (run.folder / "predictions").glob("*.jsonl")} for run in runs]
    split = next((name for name in ("test", "validation") if all(name in own for own in having)), None)
    if split is None:
        has = [
            f"{run.folder} has {' and '.join(sorted(names)) or 'none'}" for run, names in zip(runs, having, strict=True)
        ]
        raise UserError(
            Problem("compare", f"the runs have no answers to the same split: {'; '.join(has)}", "command line")
        )
    rows = [predictions(run, split) for run in runs]
    # Both tests are paired: they need the same rows in the same order.
    for run, found in zip(runs[1:], rows[1:], strict=True):
        if not _read_the_same(runs[0], run, split) and (what := _other_rows(rows[0], found)):
            what = f"has answered other rows of {split} than {runs[0].folder}: {what}"
            hint = "Score both on the same file first: llmft eval RUN dataset.test=FILE."
            raise UserError(Problem(str(run.folder), what, "command line", hint))
    return split, rows


def _read_the_same(one: Run, other: Run, split: str) -> bool:
    """Whether the manifests have the same digest of rows."""
    # Two runs may show one row differently, such as with other columns of a table, so inputs alone cannot tell.
    first, second = (run.manifest.get("rows_sha256", {}).get(split) for run in (one, other))
    return first is not None and first == second


def _other_rows(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> str:
    """How rows differ in inputs and labels; empty for the same rows in the same order."""
    ours, theirs = ([_key(row) for row in rows] for rows in (first, second))
    if ours == theirs:
        return ""
    if sorted(ours) == sorted(theirs):
        return "the same ones in another order"
    if len(ours) != len(theirs):
        return f"{len(theirs):,} and not {len(ours):,}"
    at = next(place for place, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
    return f"row {at + 1} ({second[at]['id']}) is not that of the other ({first[at]['id']})"


def _key(row: dict[str, Any]) -> str:
    return json.dumps([row["input"], row["label"]], ensure_ascii=False, sort_keys=True)


def _parts(runs: list[Run], rows: list[list[dict[str, Any]]]) -> tuple[list[numpy.ndarray], str]:
    """For each run the numerator and denominator of every row, (rows, 2), and the name of the metric that they make."""
    metrics: list[str] = []
    found = []
    for run, answers in zip(runs, rows, strict=True):
        # Each run with its own task: `task.problem`, for one, decides which metric a row contributes to.
        task = tasks.build(run.config().task)
        scores = [task.row_score(row, row["label"]) for row in answers if row["label"] is not None or task.corpus]
        if len(scores) < len(answers):
            raise UserError(Problem(str(run.folder), "has answered rows without a label", "command line"))
        metrics.append(scores[0].metric)
        found.append(numpy.array([(one.part, one.whole) for one in scores], dtype=float))
        if metrics[-1] != metrics[0]:
            what = f"has {metrics[-1]}, and {runs[0].folder} has {metrics[0]}: different tasks cannot be compared"
            raise UserError(Problem(str(run.folder), what, "command line"))
    return found, metrics[0]


def _tests(names: list[str], parts: list[numpy.ndarray], metric: str) -> list[dict[str, Any]]:
    """A significance test for each pair of runs, with p values adjusted for their number."""
    # Rows that are right or wrong have an exact test; for partial credit, such as F1 of spans, there is the bootstrap.
    binary = all(((part[:, 1] == 1) & ((part[:, 0] == 0) | (part[:, 0] == 1))).all() for part in parts)
    found = []
    for one, other in combinations(range(len(names)), 2):
        first, second = parts[one], parts[other]
        facts = mcnemar(first[:, 0], second[:, 0]) if binary else bootstrap(first, second)
        scores = [score(first), score(second)]
        found.append({"first": names[one], "second": names[other], "metric": metric, "scores": scores, **facts})
    # Of ten pairs of equal models, one falls below 0.05 with a chance of 40%: hence Holm's correction.
    for test, p in zip(found, holm([test["p"] for test in found]), strict=True):
        less = test["first"] if (test["scores"][0] < test["scores"][1]) == METRICS.get(metric, True) else test["second"]
        test |= {"p_adjusted": p, "worse": less if p < LEVEL else None}
    return found


def verdict(test: dict[str, Any]) -> str:
    """The result of a test in words."""
    several = f", {_p(test['p_adjusted'])} as one of several" if test["p_adjusted"] != test["p"] else ""
    if test["test"] == "exact McNemar":
        counts = (
            f"{plural(test['only_first'], 'rows')} right only in the first, {test['only_second']} only in the second"
        )
    else:
        low, high = test["interval"]
        counts = f"difference {test['difference']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    end = f"{test['worse']} is worse" if test["worse"] else "no difference that these rows can show"
    return f"{counts}; p = {_p(test['p'])}{several} ({test['test']}): {end}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.0001 else "less than 0.0001"


def _differences(runs: list[Run]) -> dict[str, list[Any]]:
    """The config keys that differ, with the value of every run."""
    trees = [flat({key: value for key, value in Entry(run.folder).config.items() if key not in APART}) for run in runs]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    values = {key: [tree.get(key) for tree in trees] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _scores(runs: list[Run]) -> dict[str, dict[str, list[Any]]]:
    """The value of every run, by split and metric."""
    found: dict[str, dict[str, list[Any]]] = {}
    metrics = [run.metrics() for run in runs]
    for split in ("validation", "test"):
        names = dict.fromkeys(
            name for own in metrics for name, value in own.get(split, {}).items() if isinstance(value, float)
        )
        if names:
            found[split] = {name: [own.get(split, {}).get(name) for own in metrics] for name in names}
    return found


def _write_page(
    facts: dict[str, Any],
    runs: list[Run],
    rows: list[list[dict[str, Any]]],
    parts: list[numpy.ndarray],
    page: Path | None,
) -> Path:
    """One HTML file with configs, metrics, learning curves, and the rows with different answers."""
    if page is None:
        # By the folders, so that the same comparison replaces its page, and others keep theirs.
        digest = hashlib.sha256("\n".join(str(run.folder.resolve()) for run in runs).encode()).hexdigest()[:8]
        page = ROOT / f"compare-{digest}.html"
    elif page.exists():
        raise UserError(Problem("html", f"{page} is there already; nothing is written over", "command line"))
    names = [run["name"] for run in facts["runs"]]
    task = tasks.build(runs[0].config().task)
    # A row has changed if its score has. Texts that differ but score the same would fill the page.
    wrong = [own[:, 0] / numpy.maximum(own[:, 1], 1) for own in parts]
    changed = [row for row in range(facts["rows"]) if len({answers[row] for answers in wrong}) > 1]
    answers = [
        {"input": rows[0][row]["input"], "label": rows[0][row]["label"], "said": [own[row]["answer"] for own in rows]}
        for row in changed[:CHANGED]
    ]
    text = (
        pages()
        .get_template("compare.html.jinja")
        .render(
            facts=facts,
            names=names,
            config=runs[0].config(),
            verdicts=[verdict(test) for test in facts["tests"]],
            curves=_curves(runs, names),
            answers=answers,
            changed=len(changed),
            written=task.format_answer,
        )
    )
    return Run(page.parent).write_text(page.name, text)


def _curves(runs: list[Run], names: list[str]) -> list[str]:
    """Charts of training loss, validation loss, and the metric for the best checkpoint, with a line for each run."""
    events = [run.events() for run in runs]
    picked = runs[0].config().metric_for_best
    found = []
    # dict.fromkeys: the metric for the best checkpoint may be the loss itself.
    for split, key in dict.fromkeys([("train", "loss"), ("validation", "loss"), ("validation", picked)]):
        lines = []
        for number, (name, own) in enumerate(zip(names, events, strict=True)):
            points = [(e["step"], e[key]) for e in own if e["split"] == split and e.get(key) is not None]
            if points:
                lines.append(Line(name, points, STYLES[number % len(STYLES)]))
        if lines:
            found.append(chart(lines, "step", f"{split} {key} by step"))
    return found
