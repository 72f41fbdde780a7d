"""Tests of two models on the same rows, by numbers that are worked out by hand or known from the books."""

import numpy
import pytest
from scipy.stats import ttest_rel

from llmft.metrics.significance import bootstrap, holm, mcnemar, score


def right(both: int, first: int, second: int, neither: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    ours = [1] * both + [1] * first + [0] * second + [0] * neither
    theirs = [1] * both + [0] * first + [1] * second + [0] * neither
    return numpy.array(ours), numpy.array(theirs)


# Twice the smaller tail of a binomial of n fair draws: 9 to 0 is 2 / 2**9; 6 to 4 is 2 * 386 / 1024.
CASES = {(20, 10): 0.0987371, (9, 0): 2 / 512, (0, 9): 2 / 512, (6, 4): 772 / 1024, (1, 1): 1.0, (0, 0): 1.0}


@pytest.mark.parametrize("counts", CASES)
def test_mcnemar_counts_the_rows_that_one_alone_answers(counts: tuple[int, int]) -> None:
    found = mcnemar(*right(250, *counts, neither=20))
    assert (found["only_first"], found["only_second"]) == counts
    assert found["p"] == pytest.approx(CASES[counts], abs=1e-6)


def test_the_bootstrap_agrees_with_a_t_test_where_that_holds() -> None:
    generator = numpy.random.default_rng(3)
    first = generator.normal(1.0, 1.0, 400)
    second = first + generator.normal(0.07, 0.6, 400)
    ones = numpy.ones(400)
    found = bootstrap(numpy.stack([first, ones], 1), numpy.stack([second, ones], 1))
    assert found["p"] == pytest.approx(ttest_rel(first, second).pvalue, abs=0.01)
    assert found["difference"] == pytest.approx((second - first).mean())
    low, high = found["interval"]
    half = 1.96 * (second - first).std(ddof=1) / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert found == bootstrap(numpy.stack([first, ones], 1), numpy.stack([second, ones], 1)), "the same draws"


def test_a_ratio_of_sums_is_no_mean_of_ratios() -> None:
    """F1 of 2 of 2 entities and 0 of 8: 4 / (4 + 16), not a half."""
    parts = numpy.array([[4.0, 4.0], [0.0, 16.0], [0.0, 0.0]])
    assert score(parts) == pytest.approx(0.2)
    assert score(numpy.zeros((2, 2))) == 0
    same = bootstrap(parts, parts)
    assert (same["p"], same["interval"]) == (1.0, [0.0, 0.0])


def test_holm_adjusts_the_smallest_most() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
