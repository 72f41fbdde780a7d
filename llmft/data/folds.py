"""Cross-validation: the rows of train in k parts, of which one is held out. scikit-learn's splitters divide them."""

import warnings
from collections.abc import Sequence

import numpy
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from llmft.schema.problem import Problem, UserError


def held_out(
    units: Sequence[str], labels: Sequence[str] | None, folds: int, fold: int, seed: int, grouped: bool
) -> list[int]:
    """The rows of one fold, in their first order. All folds together hold each row once.

    Args:
        units: a name for each row; rows of the same name are in the same fold.
        labels: where given, each label's share is the same in all folds, as near as whole units allow.
        seed: of the shuffle.
        grouped: whether many rows may share a unit. Their folds are made of equal size row by row, which takes
            20 times as long; where only a few inputs repeat, those of equal numbers of units do.

    Raises:
        UserError: for fewer units than folds, or fewer rows of every label.
    """
    rows: dict[str, list[int]] = {}
    for row, unit in enumerate(units):
        rows.setdefault(unit, []).append(row)
    if len(rows) < folds:
        what = f"{folds} folds can't be made of {len(rows)} {'groups' if grouped else 'different inputs'}"
        raise UserError(Problem("dataset.folds", what), "the data")
    same = labels if labels is not None else ["any"] * len(units)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a label of fewer rows than folds lacks in some of them
            if grouped:
                parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(same, same, units)
                return sorted(int(row) for row in list(parts)[fold][1])
            first = [same[members[0]] for members in rows.values()]
            parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(first, first)
            chosen = set(numpy.asarray(list(parts)[fold][1]).tolist())
    except ValueError as error:
        hint = "Write dataset.split.stratify=false."
        raise UserError(Problem("dataset.folds", f"no label has {folds} rows", hint=hint), "the data") from error
    return sorted(row for place, members in enumerate(rows.values()) if place in chosen for row in members)
