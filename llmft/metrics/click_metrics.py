"""Metrics of clicks, from logits in float64: AUC, AUC by user, log loss, and the calibration of the click rate."""

from collections.abc import Sequence
from typing import Any

import numpy

from llmft.metrics.calibration import calibration
from llmft.schema.problem import Failure


def click_metrics(logits: numpy.ndarray, clicks: numpy.ndarray, users: Sequence[Any] | None = None) -> dict[str, Any]:
    """All metrics of some rows.

    `auc` counts a tie as one half, as scikit-learn does. `gauc` is the mean AUC of the users who have both a click and
    a row without, weighted by their rows (Zhou et al. 2018, https://arxiv.org/abs/1706.06978, equation 5);
    `gauc_users` is how many they are, and `gauc_rows` the share of rows that they have. `log_loss` is the natural
    logarithm's, unclipped: scikit-learn clips probabilities, so that a sure error costs 36 at most. `ece` is the
    expected calibration error of the probability of a click over 15 bins, and `click_rate` has the mean `score` and
    the share of clicks.

    Args:
        logits: (rows,) float64; the probability of a click is their sigmoid.
        clicks: (rows,) bool.
        users: the user of each row, None where unknown. Without it, there is no GAUC.

    Returns:
        metrics by name; None for those that the rows do not have, such as an AUC of clicks alone.

    Raises:
        Failure: for a logit that is not finite: it has no rank.
    """
    bad = int((~numpy.isfinite(logits)).sum())
    if bad:
        raise Failure(f"{bad:,} of {len(logits):,} scores are not finite numbers, and cannot be ranked")
    shares = 1 / (1 + numpy.exp(-numpy.clip(logits, -700, 700)))
    error, bins = calibration(shares, clicks)
    found: dict[str, Any] = {
        "auc": auc(logits, clicks),
        "log_loss": float(numpy.logaddexp(0, numpy.where(clicks, -logits, logits)).mean()),
        "ece": error,
        "reliability": {"after": bins},
        "click_rate": {"score": float(shares.mean()), "clicks": float(clicks.mean())},
    }
    if users is not None:
        value, count, share = gauc(logits, clicks, users)
        found |= {"gauc": value, "gauc_users": count, "gauc_rows": share}
    return found


def auc(scores: numpy.ndarray, clicks: numpy.ndarray) -> float | None:
    """The area under the ROC curve: how often a click has a higher score than a row without; None without both."""
    found = gauc(scores, clicks, numpy.zeros(len(scores), dtype=int))
    return found[0]


def gauc(
    scores: numpy.ndarray, clicks: numpy.ndarray, users: Sequence[Any] | numpy.ndarray
) -> tuple[float | None, int, float]:
    """AUC by user, weighted by rows; see `click_metrics`.

    Returns:
        the mean, or None if no user has both kinds of rows; how many users have; the share of all rows that they have.
    """
    known = numpy.array([user is not None for user in users], dtype=bool)
    total = len(known)
    if not known.any():
        return None, 0, 0.0
    scores, clicks = scores[known], clicks[known].astype(bool)
    _, user = numpy.unique(numpy.asarray(users, dtype=object)[known].astype(str), return_inverse=True)
    order = numpy.lexsort((scores, user))
    user, scores, clicks = user[order], scores[order], clicks[order]
    rows = numpy.bincount(user)
    first = numpy.cumsum(rows) - rows
    # Mean ranks, from 1, of equal scores of a user: the middle of the places that they take together.
    new = numpy.r_[True, (numpy.diff(scores) != 0) | (numpy.diff(user) != 0)]
    block = numpy.cumsum(new) - 1
    starts = numpy.flatnonzero(new)
    sizes = numpy.diff(numpy.r_[starts, len(scores)])
    ranks = (starts + (sizes - 1) / 2)[block] - first[user] + 1
    positive = numpy.bincount(user, weights=clicks)
    negative = rows - positive
    both = (positive > 0) & (negative > 0)
    if not both.any():
        return None, 0, 0.0
    # Mann and Whitney 1947: the rank sum of the clicks, less its least value, over the number of pairs.
    above = numpy.bincount(user, weights=ranks * clicks) - positive * (positive + 1) / 2
    own = above[both] / (positive[both] * negative[both])
    return float(numpy.average(own, weights=rows[both])), int(both.sum()), float(rows[both].sum() / total)
