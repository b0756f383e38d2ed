"""Latencies as HDR histograms: every one counted, from 1 ns to 100 s, to three digits.

The form of encoded ones is that of the HdrHistogram libraries, version 2, compressed.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from numpy.typing import ArrayLike, NDArray

LOWEST, HIGHEST, DIGITS = 1, 100_000_000_000, 3
KEPT_BITS = 11
"""Leading bits of a latency that three digits need: 2048 steps to a power of two."""


class Histogram:
    """How often each latency came, in nanoseconds."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(LOWEST, HIGHEST, DIGITS)

    @classmethod
    def of(cls, nanoseconds: ArrayLike, counts: ArrayLike = 1) -> Self:
        """Count latencies, each once or `counts` times; what is out of range goes to its end."""
        made = cls()
        values = np.clip(np.asarray(nanoseconds, np.int64), LOWEST, HIGHEST)
        # What a histogram cannot tell apart is one value, which makes the loop below short.
        lost = np.maximum(np.frexp(values.astype(np.float64))[1] - KEPT_BITS, 0)
        values = values >> lost << lost
        times = np.broadcast_to(np.asarray(counts, np.int64), values.shape)
        different, places = np.unique(values, return_inverse=True)
        sums = np.zeros(len(different), np.int64)
        np.add.at(sums, places.ravel(), times.ravel())
        for value, count in zip(different.tolist(), sums.tolist(), strict=True):
            made._counts.record_value(value, count)
        return made

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` wrote; `ValueError` for anything else."""
        made = cls()
        try:
            made._counts.add(HdrHistogram.decode(text.encode()))
        except Exception as error:
            raise ValueError(f"no HDR histogram: {error}") from error
        return made

    def encode(self) -> str:
        """Return it as text, in base 64."""
        return str(self._counts.encode().decode())

    def add(self, other: Histogram) -> None:
        """Count everything of another one, too."""
        self._counts.add(other._counts)

    @property
    def count(self) -> int:
        """How many latencies are counted."""
        return int(self._counts.get_total_count())

    def percentile(self, percent: float) -> float:
        """Return the latency in nanoseconds that so many percent do not exceed."""
        return float(self._counts.get_value_at_percentile(percent))

    def distribution(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return latencies in nanoseconds, rising, and for each the fraction that is not above."""
        pairs = [
            (each.value_iterated_to, each.count_added_in_this_iter_step)
            for each in self._counts.get_recorded_iterator()
        ]
        values = np.array([value for value, _ in pairs], np.float64)
        counts = np.array([count for _, count in pairs], np.float64)
        return values, np.cumsum(counts) / max(self.count, 1)
