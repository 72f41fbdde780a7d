"""Scales of numbers."""

import numpy
import pytest
from sklearn.preprocessing import QuantileTransformer

from llmft.tasks.tables.number_columns import FARTHEST, QUANTILES, bin_edges, learn_scale, scaled

RNG = numpy.random.default_rng(0)
COLUMNS = {
    "a long tail": 1 + RNG.exponential(size=500) ** 3,
    "few values": RNG.integers(0, 3, size=500).astype(float),
    "mostly zero": numpy.where(RNG.random(500) < 0.9, 0.0, RNG.random(500)),
    "fewer than the quantiles": RNG.normal(size=40),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_quantiles_are_those_of_scikit_learn(name: str) -> None:
    values = COLUMNS[name]
    new = numpy.concatenate([values[:50], RNG.uniform(values.min(), values.max(), 50)])
    new = new[(new > values.min() + 1e-6) & (new < values.max() - 1e-6)]  # there, it does not take the middle
    count = min(QUANTILES, len(values))
    theirs = QuantileTransformer(n_quantiles=count, subsample=None, output_distribution="normal")
    expected = theirs.fit(values[:, None]).transform(new[:, None])[:, 0].clip(-FARTHEST, FARTHEST)
    assert scaled(new, learn_scale(values, "quantile"), "quantile") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("how", "expected"), [("standard", [-1, 0, 1, 3, numpy.nan]), ("quantile", [-5, 0, 5, 5, numpy.nan])])  # fmt: skip
def test_a_column_by_hand(how: str, expected: list[float]) -> None:
    learnt = learn_scale(numpy.array([1.0, 3.0]), how)
    found = scaled(numpy.array([1.0, 2.0, 3.0, 5.0, numpy.nan]), learnt, how)
    assert found.tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("how", ["standard", "quantile"])
@pytest.mark.parametrize("values", [[], [7.0], [7.0, 7.0], [0.1, 0.1, 0.1]])
def test_a_column_without_spread_stays_finite(how: str, values: list[float]) -> None:
    value = values[0] if values else 7.0
    found = scaled(numpy.array([value, value + 1, -1e9]), learn_scale(numpy.array(values), how), how)
    assert found[0] == 0 or not values
    assert found[1] == pytest.approx(1 if how == "standard" else 5, abs=0 if values else 7)
    assert numpy.isfinite(found).all()


EDGES = {
    "no more values than edges": ([3.0, 1.0, 2.0, 2.0], 3, [1.0, 2.0, 3.0]),
    "as many rows a bin": ([float(n) for n in range(9)], 4, [0.0, 2.0, 4.0, 6.0, 8.0]),
    # 12 of 17 rows are 0, more than a bin should have; the other 5 rows share the 3 edges that are left.
    "a value of most rows": ([0.0] * 12 + [1.0, 2.0, 4.0, 8.0, 9.0], 3, [0.0, 1.0, 4.0, 9.0]),
    "nearly equal": ([1.0, 1.0 + 1e-9, 2.0], 5, [1.0, 2.0]),
    "one value": ([7.0, 7.0], 4, [7.0, 8.0]),
    "none": ([], 4, [0.0, 1.0]),
}


@pytest.mark.parametrize("name", EDGES)
def test_bins_by_hand(name: str) -> None:
    values, bins, expected = EDGES[name]
    assert bin_edges(numpy.array(values), bins) == expected


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("bins", [1, 7, 48, 1000])
def test_bins_cover_the_rows_and_have_a_width(name: str, bins: int) -> None:
    values = COLUMNS[name]
    edges = numpy.array(bin_edges(values, bins))
    assert len(edges) <= bins + 1
    assert (edges[0], edges[-1]) == (pytest.approx(values.min(), abs=1e-6), pytest.approx(values.max(), rel=1e-6))
    assert (numpy.diff(edges.astype(numpy.float32)) > 0).all()
