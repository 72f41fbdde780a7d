"""Which layers stay in float32."""

import numpy
import pytest

from llmft.exports.programs import DEVIATIONS, spread


def test_the_range_is_counted_in_deviations() -> None:
    assert spread(numpy.array([[1.0, -1.0]])) == pytest.approx(2)
    assert spread(numpy.ones((2, 3))) == 0


def test_a_normal_sample_has_no_outliers_and_one_value_makes_one() -> None:
    values = numpy.random.default_rng(0).normal(size=10_000)
    assert spread(values) < 10
    values[0] = 1000
    assert spread(values) > DEVIATIONS
