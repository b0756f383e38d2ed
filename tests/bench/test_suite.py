"""What a sample's figure is, and which figures are better when they are larger."""

from __future__ import annotations

import pytest

from uspace_drv.bench import Figure, Histogram, Sample
from uspace_drv.errors import LayoutError


def test_a_sample_has_one_figure_of_each_kind() -> None:
    sample = Sample(operations=8, seconds=2.0, latencies=Histogram.of([100, 200, 900]))
    assert sample.figure(Figure.TIME) == 0.25
    assert sample.figure(Figure.RATE) == 4.0
    assert sample.figure(Figure.LATENCY) == pytest.approx(200e-9)


def test_a_latency_where_none_was_measured_is_refused() -> None:
    with pytest.raises(LayoutError, match="has no latency"):
        Sample(operations=1, seconds=1.0).figure(Figure.LATENCY)


def test_only_of_a_rate_more_is_better() -> None:
    assert [each for each in Figure if each.more_is_better] == [Figure.RATE]
