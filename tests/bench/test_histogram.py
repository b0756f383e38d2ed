"""Histograms of latencies: every one counted, three digits kept, none lost at the ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uspace_drv.bench.histogram import DIGITS, HIGHEST, LOWEST, Histogram

latencies = st.lists(st.integers(LOWEST, HIGHEST), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@given(latencies)
def test_what_is_encoded_is_read_again(values: list[int]) -> None:
    one = Histogram.of(values)
    other = Histogram.decode(one.encode())
    assert other.count == one.count == len(values)
    for percent in (0, 50, 99, 100):
        assert other.percentile(percent) == one.percentile(percent)


@settings(max_examples=25, deadline=None)
@given(latencies)
def test_percentiles_are_right_to_three_digits(values: list[int]) -> None:
    found = Histogram.of(values)
    assert found.percentile(100) == pytest.approx(max(values), rel=10**-DIGITS)
    middle = sorted(values)[(len(values) - 1) // 2]
    assert found.percentile(50) == pytest.approx(middle, rel=10**-DIGITS, abs=1)


def test_counts_go_with_their_latencies() -> None:
    found = Histogram.of([100, 200, 100], [3, 1, 4])
    assert (found.count, found.percentile(87), found.percentile(100)) == (8, 100, 200)
    values, fractions = found.distribution()
    assert values.tolist() == [100, 200]
    assert fractions.tolist() == [7 / 8, 1]


def test_what_is_out_of_range_goes_to_its_end() -> None:
    found = Histogram.of([-5, 0, 2 * HIGHEST])
    assert found.count == 3
    assert found.percentile(1) == LOWEST
    assert found.percentile(100) == pytest.approx(HIGHEST, rel=10**-DIGITS)


def test_one_is_added_to_another() -> None:
    both = Histogram.of(np.array([10, 20]))
    both.add(Histogram.of(30))
    assert both.count == 3
    assert both.percentile(100) == 30


def test_an_empty_one_has_no_distribution() -> None:
    values, fractions = Histogram().distribution()
    assert Histogram().count == len(values) == len(fractions) == 0


@pytest.mark.parametrize("text", ["", "nonsense", "HISTFAAAAA", "é", "====", "HISTFAAAAAt4nA=="])
def test_anything_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="no HDR histogram"):
        Histogram.decode(text)
