"""What the report shows of the answers on a split: the worst mistakes, and charts of how reliable scores are."""

import json
from typing import Any

from datasets import Dataset

from llmft.metrics.calibration import SHOWN
from llmft.reporting.charts import Line, chart
from llmft.reporting.illustrations import Inputs, illustrated
from llmft.runs.folder import Run
from llmft.tasks.task import RowScore, Task

MISTAKES = 20  # the wrong answers with the highest scores, or the largest errors
EXPLAINED = 4  # mistakes whose parts are weighed, at 50 to 100 answers each: 5 s for 4 M weights at 224 pixels
CELLS = 12  # of a table, those with the largest weights
SAMPLES = 5  # right answers, so that a run without mistakes shows examples too
CURVES = 3  # labels in a chart, one a color
DOTS = 1000  # points in a scatter plot, about 50 kB of SVG


def predictions(run: Run, split: str) -> list[dict[str, Any]]:
    """The rows of RUN/predictions/SPLIT.jsonl."""
    with (run.folder / "predictions" / f"{split}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def mistakes(rows: list[dict[str, Any]], task: Task[Any], inputs: Inputs | None = None) -> list[dict[str, Any]]:
    """The worst answers, rows with the same input and answer once; `label` is None if there is no right or wrong.

    The first EXPLAINED are explained, if `inputs` can ask the model.
    """
    wrong: dict[str, list[tuple[RowScore, dict[str, Any]]]] = {}
    for row in rows:
        if row["label"] is None and not task.corpus:  # language models have errors without a label
            continue
        if (score := task.row_score(row, row["label"])).error > 0:
            wrong.setdefault(str((row["input"], row["answer"], row["label"])), []).append((score, row))
    # Equal rows with equal answers are one mistake: 300 copies of a row must not fill the page.
    worst = sorted(wrong.values(), key=lambda same: -same[0][0].error)
    return [
        _example(*same[0], task, inputs, len(same), explained=number < EXPLAINED)
        for number, same in enumerate(worst[:MISTAKES])
    ]


def samples(rows: list[dict[str, Any]], task: Task[Any], inputs: Inputs | None = None) -> list[dict[str, Any]]:
    """The first SAMPLES right answers with different inputs; none if there is no right or wrong."""
    right: dict[str, dict[str, Any]] = {}
    for row in rows:
        if len(right) < SAMPLES and row["label"] is not None and not task.row_score(row, row["label"]).error:
            right.setdefault(row["input"], row)
    return [_example(None, row, task, inputs) for row in right.values()]


def _example(
    score: RowScore | None,
    row: dict[str, Any],
    task: Task[Any],
    inputs: Inputs | None,
    times: int = 1,
    explained: bool = False,
) -> dict[str, Any]:
    inputs = inputs or Inputs()
    explanation = inputs.explanation(row, task) if explained else None
    return {
        "id": row["id"],
        "parts": parts(row["input"], spans(row["answer"])),
        "label": None if row["label"] is None else task.format_answer(row["label"]),
        "answer": task.format_answer(row["answer"]),
        "how": score.why if score else "",
        "times": times,
        "images": illustrated(row, inputs.cell(row), task, explanation),
        "weights": weights(explanation, inputs.row(row), task) if explanation else None,
        "attention": attention(explanation) if explanation else None,
    }


def weights(explanation: dict[str, Any], row: Dataset | None, task: Task[Any]) -> dict[str, Any] | None:
    """The words or cells of a row as a report marks them: `parts` with a text and a weight from -1 to 1.

    Returns:
        None for parts that are not words or cells, such as regions of an image.
    """
    found = explanation["parts"]
    most = max((abs(part["weight"]) for part in found), default=0.0) or 1.0
    shown: list[tuple[str, float]] = []
    for role in dict.fromkeys(part["role"] for part in found if "role" in part):
        own = [part for part in found if part["role"] == role]
        text, end = _text_of(row, role, own, task), 0
        shown += [(" ⏐ ", 0.0)] if shown else []
        for part in own:
            shown += [(text[end : part["start"]] if text else " ", 0.0), (part["text"], part["weight"] / most)]
            end = part["end"]
        shown.append((text[end:], 0.0))
    cells = sorted((part for part in found if "column" in part), key=lambda part: -abs(part["weight"]))
    for part in cells[:CELLS]:
        shown += [(f"{part['column']}={part['value']}", part["weight"] / most), (" ", 0.0)]
    if not shown:
        return None
    of = task.format_answer(explanation["of"])
    found = {"of": of, "measure": explanation["measure"], "most": most, "parts": [part for part in shown if part[0]]}
    return found | ({"why": explanation["why"]} if "why" in explanation else {})


def attention(explanation: dict[str, Any]) -> dict[str, Any] | None:
    """Where the layers of a model look, as a report draws it: `layers`, the shares of each over the largest of it.

    Returns:
        None for a model that does not tell, and for an image, which is drawn.
    """
    found = explanation.get("attention", {})
    if not found.get("tokens"):
        return None
    layers = []
    for number in range(found["layers"]):
        shares = [token["shares"][number] for token in found["tokens"]]
        layers.append([(share, share / (max(shares) or 1.0)) for share in shares])
    return found | {"shares": layers}


def _text_of(row: Dataset | None, role: str, own: list[dict[str, Any]], task: Task[Any]) -> str:
    """The text that parts are of, as it stands in its column or as the task shows it; empty if it is neither."""
    if row is None:
        return ""
    texts = (str(row[role][0]) if role in row.column_names else "", task.format_input(row[0]))
    return next((text for text in texts if all(text[p["start"] : p["end"]] == p["text"] for p in own)), "")


def spans(answer: Any) -> list[tuple[int, int, str]]:
    """The spans of the entities in an answer, with their labels; none for other answers."""
    parts = answer if isinstance(answer, list) else []
    return [(part["start"], part["end"], part["label"]) for part in parts if isinstance(part, dict) and "start" in part]


def parts(text: str, places: list[tuple[int, int, str]]) -> list[tuple[str, str]]:
    """A text cut at the spans to mark, which do not overlap: (text, label), with an empty label between spans."""
    found, end = [], 0
    for start, stop, label in sorted(places):
        if start >= end:  # a span inside another is left out: nested marks cannot be told apart
            found += [(text[end:start], ""), (text[start:stop], label)]
            end = stop
    return [part for part in [*found, (text[end:], "")] if part[0]]


def per_label(found: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The metrics of each label; of those with the lowest F1 if there are too many for a page."""
    rows = list(found.items())
    return rows if len(rows) <= SHOWN else sorted(rows, key=lambda pair: pair[1]["f1"])[:SHOWN]


def charts(rows: list[dict[str, Any]], metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """For each chart its title, a caption, and the SVG."""
    if "reliability" in metrics:
        return [_reliability(metrics)]
    if metrics.get("curves"):
        return [_curves(metrics)]
    if rows and isinstance(rows[0]["answer"], float) and isinstance(rows[0]["label"], float):
        return [_numbers(rows)]
    return []


def _reliability(metrics: dict[str, Any]) -> tuple[str, str, str]:
    """The share of right answers over the score: of rows with a score of 0.8, 80% should be right."""
    found = metrics["reliability"]
    names = {"before": ("before calibration", "b"), "after": ("scores", "a")}
    lines = [
        Line(name, [(spot["score"], spot["right"]) for spot in found[key]], style)
        for key, (name, style) in names.items()
        if key in found
    ]
    # The diagonal is perfect calibration: points below it are too sure, points above it not sure enough.
    lines.append(Line("score = share", [(0.0, 0.0), (1.0, 1.0)], "c"))
    before = metrics.get("ece_uncalibrated")
    was = "" if before is None else f", {before:.4f} before calibration"
    text = f"Share of right answers by score. Expected calibration error {metrics['ece']:.4f}{was}."
    return "Reliability", text, chart(lines, "score", "share of right answers by score")


def _curves(metrics: dict[str, Any]) -> tuple[str, str, str]:
    """The precision of boxes over their recall, of the CURVES labels with the most boxes."""
    found = metrics["curves"]
    shown = sorted(found, key=lambda label: -metrics["per_class"][label]["support"])[:CURVES]
    lines = [
        Line(label, [(number / (len(found[label]) - 1), value) for number, value in enumerate(found[label])], style)
        for label, style in zip(shown, "abc", strict=False)
    ]
    rest = f" The {len(shown)} of {len(found)} labels with the most boxes." if len(found) > len(shown) else ""
    text = f"Share of right boxes by the share of boxes that are found, at an overlap of 0.5.{rest}"
    return "Precision and recall", text, chart(lines, "recall", "precision of boxes by recall")


def _numbers(rows: list[dict[str, Any]]) -> tuple[str, str, str]:
    """A dot per row: the predicted number over the right one."""
    step = -(-len(rows) // DOTS)  # rounded up, so that at most DOTS rows are drawn
    dots = [(row["label"], row["answer"]) for row in rows[::step]]
    ends = [min(map(min, dots)), max(map(max, dots))]
    lines = [Line("rows", dots, "a", joined=False), Line("predicted = true", [(end, end) for end in ends], "c")]
    text = "One dot per row: the predicted value over the true one."
    return "Answers", text, chart(lines, "true value", "predicted values by true values")
