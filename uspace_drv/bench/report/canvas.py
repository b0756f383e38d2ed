"""Paper for plots: settings of matplotlib that hold only while something is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

from uspace_drv.bench.report.theme import Theme


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Set fonts and colours, whatever the user's matplotlibrc says, and put all back."""
    with mpl.rc_context(), warnings.catch_warnings():
        # A name may have letters that our font has no shape for; a browser finds another font.
        warnings.filterwarnings("ignore", message="Glyph|Matplotlib currently does not support")
        mpl.rcdefaults()
        mpl.rcParams.update(_settings(theme))
        yield


def _settings(theme: Theme) -> dict[Any, object]:
    """Return what differs from matplotlib's defaults; `svg.hashsalt` makes ids repeatable."""
    ink = dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), theme.ink
    )
    lines = dict.fromkeys(
        ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), theme.faint
    )
    paper = dict.fromkeys(("figure.facecolor", "savefig.facecolor"), theme.paper or "none")
    return {
        **ink, **lines, **paper, "axes.facecolor": "none", "font.size": 9, "axes.titlesize": 10,
        "grid.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "figure.constrained_layout.w_pad": 0.1,
        "legend.frameon": False, "legend.handlelength": 3.4,
        "svg.fonttype": "none", "svg.hashsalt": "uspace bench",
        # A dollar in a name is a dollar.
        "text.parse_math": False,
    }  # fmt: skip
