"""Colours and marks of the plots, for light and dark paper and for a page that has both.

Colours after Okabe and Ito (Color Universal Design, 2008), darkened or lightened until each has a
contrast of 3 to 1 with its paper (WCAG 2.2, 1.4.11). No two ways differ by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours by what they are for; `paper` None leaves what is behind."""

    name: str
    paper: str | None
    ink: str
    faint: str
    ways: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one way is drawn, the same in all plots of its suite."""

    colour: str
    marker: str
    line: str
    hatch: str


LIGHT = Theme(
    name="light", paper="#ffffff", ink="#1c1f23", faint="#c3c8ce",
    ways=("#0072b2", "#c44e00", "#00805f", "#b0508a", "#946600", "#5b5fc7", "#6b6f75"),
)  # fmt: skip
DARK = Theme(
    name="dark", paper="#16191d", ink="#e6e8eb", faint="#4a5058",
    ways=("#5cb8f2", "#ff8f52", "#33c79a", "#eb9ccb", "#f0c24b", "#a5a8ff", "#b4b9c0"),
)  # fmt: skip
PAGE = Theme(
    name="page", paper=None, ink="#0a0b01", faint="#0a0b02",
    ways=tuple(f"#0a0b{number:02x}" for number in range(16, 16 + len(LIGHT.ways))),
)  # fmt: skip
"""Colours that nobody uses; `svg` puts names in their place that the page fills in."""

MARKERS, LINES, HATCHES = "osD^vPX*", ("-", "--", "-.", ":"), ("", "//", "..", "xx", "\\\\", "++")


def style(theme: Theme, number: int) -> Style:
    """Return how to draw the way with that number; none of the first 56 look the same."""
    return Style(
        colour=theme.ways[number % len(theme.ways)],
        marker=MARKERS[number % len(MARKERS)],
        line=LINES[number % len(LINES)],
        hatch=HATCHES[number % len(HATCHES)],
    )


def variables(theme: Theme) -> dict[str, str]:
    """Return the colours of a theme by the names that the page's style sheet gives them."""
    ways = {f"--way-{number}": colour for number, colour in enumerate(theme.ways)}
    return {"--ink": theme.ink, "--faint": theme.faint, **ways}
