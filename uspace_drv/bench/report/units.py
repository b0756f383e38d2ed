"""Numbers as people read them: three digits, the prefix that fits, and the unit.

Letters of ASCII only, so that the same words serve every terminal: us, and x for times.
"""

from __future__ import annotations

import math

from uspace_drv.bench.results import Interval
from uspace_drv.bench.suite import Figure

TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"), (1e-12, "ps"))
RATES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
NONE = ""
"""What stands where nothing was measured."""


def digits(value: float) -> str:
    """Return a number with three digits that count, without an exponent where one can do without.

    1.13, 29.8, 312, 8440; what is below 0.001 or beyond a million gets an exponent.
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if not -3 <= power < 6:
        return f"{value:.2e}"
    rounded = round(value, 2 - power)
    if abs(rounded) >= 10 ** (power + 1):
        power += 1
    return f"{rounded:.{max(0, 2 - power)}f}"


def seconds(value: float | None) -> str:
    """Return a duration: 12.3 ns, 1.13 us, 4.00 s; "" for None."""
    return NONE if value is None else _scaled(value, TIMES, "")


def rate(value: float | None) -> str:
    """Return operations a second: 29.8 M/s, 312 k/s; "" for None."""
    return NONE if value is None else _scaled(value, RATES, "/s")


def data_rate(value: float | None) -> str:
    """Return bytes a second in powers of 1000: 1.22 GB/s; "" for None."""
    return NONE if value is None else _scaled(value, RATES, "B/s")


def figure(kind: str, value: float | None) -> str:
    """Return what a comparison compares with its unit; `kind` as in `ComparisonResult.figure`."""
    return rate(value) if kind == Figure.RATE else seconds(value)


def times(interval: Interval | None) -> str:
    """Return a ratio with its interval: 2.36 x (2.31 to 2.42); "" for None."""
    if interval is None:
        return NONE
    return f"{digits(interval.middle)} x ({digits(interval.low)} to {digits(interval.high)})"


def _scaled(value: float, prefixes: tuple[tuple[float, str], ...], unit: str) -> str:
    """Return it with the first prefix that leaves 1 or more, once it has three digits."""
    fitting = (each for each in prefixes if abs(value) >= each[0] * 0.9995)
    factor, prefix = next(fitting, prefixes[-1])
    if value == 0:
        factor, prefix = 1.0, prefixes[-1][1] if unit else "s"
    return f"{digits(value / factor)} {prefix}{unit}".replace(" /s", "/s")
