"""Deadlines: what is left of them, and which ones are refused."""

from __future__ import annotations

import math
import time

import pytest

from uspace_drv.deadline import Deadline
from uspace_drv.errors import RegisterValueError


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_counts_down_and_stays_at_zero(clock: Clock) -> None:
    deadline = Deadline(2.5)
    assert (deadline.timeout, deadline.remaining(), deadline.passed) == (2.5, 2.5, False)
    clock.now += 2.0
    assert (deadline.remaining(), deadline.passed) == (0.5, False)
    clock.now += 0.5
    assert (deadline.remaining(), deadline.passed) == (0.0, True)
    clock.now += 100
    assert (deadline.remaining(), deadline.passed) == (0.0, True)


def test_zero_has_passed_at_once(clock: Clock) -> None:
    assert Deadline(0).passed


@pytest.mark.parametrize("timeout", [-0.001, -1, math.inf, -math.inf, math.nan])
def test_no_way_to_wait_for_ever_or_backwards(timeout: float) -> None:
    with pytest.raises(RegisterValueError, match=rf"from 0 up, not {timeout!r}"):
        Deadline(timeout)
