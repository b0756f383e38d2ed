"""All plots of a results file on one picture, which can be read without anything beside it."""

from __future__ import annotations

from io import BytesIO
from textwrap import wrap
from typing import cast

from matplotlib.figure import Figure, SubFigure

from uspace_drv.bench.report import sentences
from uspace_drv.bench.report.canvas import drawing
from uspace_drv.bench.report.panels import WIDTH, Panel, panels
from uspace_drv.bench.report.plots import clean
from uspace_drv.bench.report.theme import DARK, LIGHT, Theme
from uspace_drv.bench.results import Machine, Results

__all__ = ["DARK", "LIGHT", "sheet_png"]

MOST = 16
"""Plots that a picture has room for; the page has all."""
LINE = 190
"""Characters of the lines over the plots; longer ones go on below."""
TITLE = 120
"""Characters of the line on top, which is larger."""
DPI = 110


def sheet_png(results: Results, theme: Theme) -> bytes:
    """Return a PNG file with the plots of all suites, title, machine and doubts above them."""
    found = [[(suite.name, panel) for panel in panels(suite)] for suite in results.suites]
    rows = _rows(found)
    head = _head(results, rows, sum(map(len, found)))
    heights = [
        0.35 + 0.2 * len(head),
        *(max(panel.height for _, panel in row) + 0.3 for row in rows),
    ]
    with drawing(theme):
        figure = Figure(figsize=(2 * WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        _write_head(parts[0][0], head)
        for part, row in zip(parts[1:, 0], rows, strict=True):
            places = part.subfigures(1, 2, squeeze=False)[0]
            for place, (suite, panel) in zip(places, row, strict=False):
                paper = _top(place, panel.height, max(other.height for _, other in row))
                paper.suptitle(clean(f"{suite}: {panel.title}", 90), fontsize=10, fontweight="bold")
                panel.draw(paper, theme)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _rows(found: list[list[tuple[str, Panel]]]) -> list[list[tuple[str, Panel]]]:
    """Return the plots in rows of two; each suite has its first before one has its last."""
    ranked = sorted(
        (place, number) for number, own in enumerate(found) for place in range(len(own))
    )
    chosen = sorted((number, place) for place, number in ranked[:MOST])
    plots = [found[number][place] for number, place in chosen]
    return [plots[start : start + 2] for start in range(0, len(plots), 2)]


def _top(place: SubFigure, height: float, most: float) -> SubFigure:
    """Return as much of a place as a plot needs, when its neighbour needs more."""
    if height > most - 0.1:
        return place
    parts = place.subfigures(2, 1, squeeze=False, height_ratios=(height + 0.3, most - height))
    return cast("SubFigure", parts[0][0])


def _head(results: Results, rows: list[list[tuple[str, Panel]]], panel_count: int) -> list[str]:
    """Return the lines above the plots: what ran where, and what is wrong with it."""
    shown = dict.fromkeys(suite for row in rows for suite, _ in row)
    names = ", ".join(shown) or "nothing measured"
    noisy = any(each.noise.notes for suite in results.suites for each in suite.comparisons)
    lines = [
        f"uspace bench: {names} ({results.started})",
        *map(_machine, results.machines),
        *sentences.missing(results)[:1],
        *(["Noisy machine: see the notes in the report."] if noisy else []),
        *([f"{panel_count - MOST} more plots are in the report."] if panel_count > MOST else []),
        *(["No plots: nothing was measured that can be drawn."] if not panel_count else []),
    ]
    title, *others = (clean(line, 20 * LINE) for line in lines)
    return [clean(title, TITLE), *(part for line in others for part in wrap(line, LINE))]


def _machine(machine: Machine) -> str:
    return "; ".join(f"{name}: {fact}" for name, fact in machine.facts.items())


def _write_head(part: SubFigure, lines: list[str]) -> None:
    height = 0.35 + 0.2 * len(lines)
    for number, line in enumerate(lines):
        part.text(
            0.01, 1 - (0.18 + 0.2 * number) / height, line, va="center",
            fontsize=13 if number == 0 else 9, fontweight="bold" if number == 0 else "normal",
        )  # fmt: skip
