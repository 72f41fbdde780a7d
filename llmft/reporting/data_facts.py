"""What a report shows of the rows of a run: how many, the balance of labels, lengths, and notes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import quantiles
from typing import Any

from llmft.tasks.task import Task
from llmft.training.evaluation import Split

LABELS = 50  # the most frequent labels that the page shows
SAMPLE = 10_000  # rows whose labels are counted: 0.2 s for rows with entities


def data_facts(task: Task[Any], splits: Mapping[str, Split], notes: Sequence[str]) -> dict[str, Any]:
    """The facts about the rows, which the manifest keeps for `report.html`: `splits` by name, and `notes`."""
    return {"splits": {name: _split(task, split) for name, split in splits.items()}, "notes": list(notes)}


def _split(task: Task[Any], split: Split) -> dict[str, Any]:
    """`rows`; `balance` (rows per label) or `numbers`; `tokens` (lengths of features), if there are any."""
    facts: dict[str, Any] = {"rows": len(split)}
    answers = [] if task.corpus else [task.reference(row) for row in islice(split.rows, SAMPLE)]
    facts |= balance(answers)
    if "balance" in facts and len(answers) < len(split):
        facts["balance_of"] = len(answers)
    if lengths := getattr(split.features, "lengths", None):  # streamed rows and tables have no lengths
        low, high = min(lengths), max(lengths)
        # Twentieths: the 10th is the median, the 19th the 95th percentile, which guides the choice of max_length.
        cuts = quantiles(lengths, n=20, method="inclusive") if len(lengths) > 1 else [low] * 19
        facts["tokens"] = {"shortest": low, "median": cuts[9], "p95": cuts[18], "longest": high}
    return facts


def balance(answers: Sequence[Any]) -> dict[str, Any]:
    """How often each label occurs. Numbers have a range instead; texts have neither."""
    known = [answer for answer in answers if answer is not None]
    # bool is a subclass of int, and a label, not a number.
    if known and all(isinstance(answer, float | int) and not isinstance(answer, bool) for answer in known):
        return {"numbers": {"least": min(known), "mean": sum(known) / len(known), "greatest": max(known)}}
    counts: Counter[str] = Counter()
    for answer in known:
        for part in answer if isinstance(answer, list) else [answer]:
            label = part.get("label") if isinstance(part, dict) else part
            if isinstance(label, str):
                counts[label] += 1
    if not counts or len(counts) > len(known) / 2 > 4:  # free texts, of which hardly any occurs twice
        return {}
    return {"balance": dict(counts.most_common(LABELS)), "labels": len(counts)}


def majority(facts: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """The metric of a baseline that gives every row the most frequent label of the training rows.

    Args:
        facts: `data_facts` of the run.
        answers: the rows of predictions/SPLIT.jsonl.
        metric: only for `accuracy` is this baseline informative; None for other metrics.
    """
    balance = facts["splits"].get("train", {}).get("balance")
    if metric != "accuracy" or not balance or not answers or not isinstance(answers[0]["label"], str):
        return None
    most = next(iter(balance))
    return sum(row["label"] == most for row in answers) / len(answers)


def interval(answers: Sequence[Mapping[str, Any]], metric: str, value: Any) -> tuple[float, float] | None:
    """The 95% interval of an accuracy over rows; None for other metrics and answers.

    Wilson's score interval (Wilson 1927, JASA 22:209-212), which stays inside [0, 1] and holds for small samples and
    for an accuracy of 1.0, where the usual normal interval has no width.
    """
    if metric not in ("accuracy", "exact_match", "subset_accuracy") or not isinstance(value, float) or not answers:
        return None
    count, z = len(answers), 1.959964  # the 97.5% quantile of the normal distribution
    center = (value + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (value * (1 - value) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)
