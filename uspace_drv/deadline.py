"""A deadline: every wait of the framework has one, and this is how it is counted."""

from __future__ import annotations

import math
import time

from uspace_drv.errors import RegisterValueError


class Deadline:
    """The moment `timeout` seconds from now, on the monotonic clock.

    A timeout that is negative, infinite or no number raises `RegisterValueError`: there is no way
    to wait for ever.
    """

    __slots__ = ("_end", "timeout")

    def __init__(self, timeout: float) -> None:
        if not 0 <= timeout < math.inf:
            raise RegisterValueError(f"a timeout is a number of seconds from 0 up, not {timeout!r}")
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def remaining(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return time.monotonic() >= self._end
