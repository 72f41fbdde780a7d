"""Fitting `model=boosting` beside scikit-learn's own estimator on the same rows, by turns: processor seconds.

    python benchmarks/boosting.py TRAIN.csv [ROUNDS]

The rows are read and encoded once for both. scikit-learn gets the matrix that one would make by hand, missing cells as
NaN; llmft the features as `training/fit.py` finds them, and makes tensors of the trees and checks them. Medians.
"""

import sys
import time
from statistics import median
from typing import Any

import numpy
from sklearn.ensemble import HistGradientBoostingClassifier

from llmft.commands.label import with_label
from llmft.commands.prepare import Prepared, prepare
from llmft.config.load import load
from llmft.models.boosting import BoostingForClassification
from llmft.models.build import build
from llmft.training.fit import whole


def main() -> None:
    """Print the medians and their ratio."""
    file, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    config, _ = with_label(load("finetune", ["+recipe=tabular_boosting", "dataset=csv", f"dataset.train={file}"]))
    prepared = prepare(config)
    model = build(config.model, prepared.task.head, prepared.task.model_kwargs())
    assert isinstance(model, BoostingForClassification)
    matrices = {name: matrix(prepared, name) for name in ("train", "validation")}
    taken: dict[str, list[float]] = {"scikit-learn": [], "llmft": []}
    for _ in range(rounds):
        taken["scikit-learn"].append(seconds(lambda: by_hand(model, matrices)))
        taken["llmft"].append(seconds(lambda: ours(prepared, model)))
    theirs, own = (median(found) for found in taken.values())
    print(
        f"scikit-learn {theirs:.2f} s, llmft {own:.2f} s: {own / theirs:.2f} times, medians of {rounds} rounds by turns"
    )


def seconds(work: Any) -> float:
    """Processor seconds that a call takes, over all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def matrix(prepared: Prepared, split: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The rows as scikit-learn takes them: categories first, NaN where a cell is missing; and their labels."""
    rows = whole(prepared.task, prepared.splits[split].features)
    numbers = numpy.where(rows["missing"] > 0, numpy.nan, rows["numbers"].double())
    codes = rows["categories"].double().numpy()
    return numpy.hstack([numpy.where(codes == 0, numpy.nan, codes), numbers]), rows["labels"].numpy()


def by_hand(model: BoostingForClassification, matrices: dict[str, tuple[numpy.ndarray, numpy.ndarray]]) -> None:
    """Fit with the same options, and nothing else."""
    (cells, labels), (others, truth) = matrices["train"], matrices["validation"]
    categories = list(range(len(model.config.category_sizes)))
    estimator = HistGradientBoostingClassifier(
        **model.config.options, categorical_features=categories, early_stopping=True, random_state=0
    )
    estimator.fit(cells, labels, X_val=others, y_val=truth)


def ours(prepared: Prepared, model: BoostingForClassification) -> None:
    """What a run does between the features and the fitted model."""
    rows = {n: whole(prepared.task, prepared.splits[n].features) for n in ("train", "validation")}
    model.fit(rows["train"], rows["validation"], None, seed=0, threads=1)


if __name__ == "__main__":
    main()
