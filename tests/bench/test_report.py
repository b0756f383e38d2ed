"""The HTML page and the pictures: whole, escaped, repeatable, whatever the results are."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as Xml

import matplotlib as mpl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from tests.bench import report_specimens as made
from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.report import results_page, summary_rows, write_report
from uspace_drv.bench.report.canvas import drawing
from uspace_drv.bench.report.html import report_html
from uspace_drv.bench.report.panels import Panel, panels
from uspace_drv.bench.report.rows import busy_by_round
from uspace_drv.bench.report.sheet import DARK, LIGHT, LINE, _head, _rows, sheet_png
from uspace_drv.bench.report.theme import Theme, style
from uspace_drv.bench.results import (
    ComparisonResult,
    Interval,
    Machine,
    Noise,
    Ratio,
    Results,
    Round,
    Skipped,
    SuiteResult,
    WayResult,
)
from uspace_drv.bench.statistics import interval
from uspace_drv.errors import HostError

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, and in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(text: str) -> Page:
    """Nothing is loaded from elsewhere, ids are there once, references lead somewhere."""
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {f"#{each}" for each in page.ids} >= set(page.references)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        Xml.fromstring(svg)
    return page


@pytest.fixture(scope="module")
def whole() -> str:
    return report_html(made.results())


def test_a_page_stands_alone_and_follows_dark_and_light(whole: str) -> None:
    check_page(whole)
    assert "http" not in whole
    assert "prefers-color-scheme: dark" in whole
    # Colours are the page's, so no plot has one of its own.
    assert not re.findall(r'(?:fill|stroke)="(?!none)[^"]*"', whole)
    assert all(
        "#" not in value
        for value in re.findall(r'style="[^"]*?((?:fill|stroke): [^;"u]*)[;"]', whole)
    )


def test_a_page_has_every_figure_of_the_tables(whole: str) -> None:
    for row in summary_rows(made.results()):
        cells = [row.way, row.figure, row.data, row.ratio_words, row.busy, row.own]
        start = "".join(f"<td>{escape(cell)}</td>" for cell in cells if cell)
        ends = [row.busy_ratio_words, row.p50, row.p99, row.p999, row.most]
        assert start in whole
        assert all(f"<td>{end}</td>" in whole for end in ends if end)


def test_a_page_says_summary_doubts_machine_and_command() -> None:
    results = made.results()
    page = Page(report_html(results)).text
    for words in (
        "Against UIO read: ",
        "4 KiB random reads, 4 at once: the host took 4.0 % of the processors",
        "libaio: no fio; run: apt-get install fio",
        "Example CPU 1",
        "spectre_v2: Retpolines; mds: not affected",
        "uspace bench nvme mmio --vm",
    ):
        assert words in page
    assert page.index("Against UIO read: ") < page.index("one 32-bit read")
    assert "Partial results" not in page
    results.complete = False
    assert "Partial results" in report_html(results)


def test_the_same_results_give_the_same_page_and_pictures() -> None:
    results = made.results(made.irq())
    assert report_html(results) == report_html(results)
    assert sheet_png(results, LIGHT) == sheet_png(results, LIGHT)
    assert sheet_png(results, LIGHT) != sheet_png(results, DARK)


def test_names_stay_text() -> None:
    evil = "<script>alert(1)</script>"
    ways = [
        made.way(name, 1e-6, 1e-6, latency=True)
        for name in (evil, "_hidden", "$x^2$", "日本", 'id="x" url(#y)')
    ]
    results = made.results(
        SuiteResult(name=evil, summary=evil, comparisons=[made.comparison(evil, ways)])
    )
    text = report_html(results)
    page = check_page(text)
    assert page.text.count(evil) > 5
    for name in ("_hidden", "$x^2$", "日本", 'id="x" url(#y)'):
        assert f">{name.replace(chr(34), '&quot;')}</text>" in text or f">{name}</text>" in text
    sheet_png(results, LIGHT)


def test_the_plots_of_a_suite() -> None:
    titles = [panel.title for panel in panels(made.nvme())]
    assert titles[:2] == ["Rate by depth: 4 KiB random reads", "CPU per operation"]
    assert titles[2] == "Latency: 4 KiB random reads, 1 at once"
    assert [panel.title for panel in panels(made.mmio())] == ["Ratios: time", "CPU per operation"]


def test_other_axes_make_plots_of_their_own() -> None:
    suite = made.nvme()
    for number, each in enumerate(suite.comparisons):
        each.axes = {"depth": 1 + number // 2, "queues": 1 + number % 2, "pattern": "random"}
    titles = [panel.title for panel in panels(suite)]
    assert titles[0] == "Rate by depth: 4 KiB random reads, queues 1, pattern random"
    assert titles[1] == "Rate by depth: 4 KiB random reads, queues 2, pattern random"
    for each in suite.comparisons:
        each.ways, each.ratios = each.ways[:1], []
    # What differs by less than eight times is on an even scale, from no reads a second on.
    check_page(text := report_html(made.results(suite)))
    assert ">0/s</text>" in text


def test_two_comparisons_at_one_place_are_no_line() -> None:
    suite = made.nvme()
    suite.comparisons[1].axes = suite.comparisons[0].axes
    assert panels(suite)[0].title == "Ratios: rate"


def test_sizes_stand_at_an_axis_in_binary_units() -> None:
    suite = made.nvme()
    for number, each in enumerate(suite.comparisons):
        each.axes = {"size": (512, 4096, 1 << 20, 1 << 21)[number]}
    page = report_html(made.results(suite))
    assert all(f">{size}</text>" in page for size in ("512", "4 KiB", "1 MiB", "2 MiB"))


def test_many_ratios_are_spread_over_plots() -> None:
    suite = made.mmio()
    suite.comparisons *= 4
    titles = [panel.title for panel in panels(suite)]
    assert titles == [
        "Ratios: time (1 of 2)", "Ratios: time (2 of 2)",
        "CPU per operation (1 of 2)", "CPU per operation (2 of 2)",
    ]  # fmt: skip


def test_a_doubt_is_said_once_for_all_that_it_is_about() -> None:
    suite = made.nvme()
    for each in suite.comparisons:
        each.narrow = False
    page = report_html(made.results(suite))
    assert "<li>all: intervals not narrow yet</li>" in page
    suite.comparisons[0].narrow = suite.comparisons[3].narrow = True
    page = report_html(made.results(suite))
    names = "4 KiB random reads, 4 at once; 4 KiB random reads, 32 at once"
    assert f"<li>{names}: intervals not narrow yet</li>" in page


def drawn(panel: Panel) -> Axes:
    """Draw a panel on paper that nobody keeps, and return its axes."""
    with drawing(LIGHT):
        figure = Figure(figsize=(7, panel.height), layout="constrained")
        panel.draw(figure, LIGHT)
    return figure.axes[0]


def test_processor_time_has_intervals() -> None:
    suite = made.irq()
    (panel,) = [each for each in panels(suite) if each.title == "CPU per operation"]
    axes = drawn(panel)
    ways = suite.comparisons[0].ways
    assert len(axes.patches) == len(axes.containers) - len(axes.patches) == len(ways)
    for way, bar, marks in zip(ways, axes.patches, intervals_of(axes), strict=True):
        expected = interval(busy_by_round(way.rounds))
        assert bar.get_width() == pytest.approx(expected.middle)  # type: ignore[attr-defined]
        assert marks == pytest.approx((expected.low, expected.high))
        assert expected.low < expected.middle < expected.high


def intervals_of(axes: Axes) -> list[tuple[float, float]]:
    """Return where the intervals of an axis begin and end, from left to right."""
    found = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    segments = [each.lines[2][0].get_segments()[0] for each in found]
    return [(float(segment[0][0]), float(segment[1][0])) for segment in segments]


def test_bars_too_short_to_see_become_marks_on_a_logarithmic_axis() -> None:
    ways = [made.way(name, each, each, latency=False) for name, each in (("a", 1e-3), ("b", 1e-6))]
    suite = SuiteResult(name="s", summary="", comparisons=[made.comparison("c", ways)])
    axes = drawn(panels(suite)[-1])
    assert axes.get_xscale() == "log"
    assert not axes.patches
    assert len(intervals_of(axes)) == 2


@pytest.mark.parametrize(("points", "line"), [(2, "None"), (3, "-")])
def test_a_line_joins_three_points_or_more(points: int, line: str) -> None:
    suite = made.nvme()
    del suite.comparisons[points:]
    bars = drawn(panels(suite)[0]).containers[0]
    assert isinstance(bars, ErrorbarContainer)
    assert bars.lines[0].get_linestyle() == line
    assert bars.lines[0].get_marker() == "o"
    assert len(bars.lines[2][0].get_segments()) == points


def test_wide_parts_scroll_by_themselves_and_by_keyboard(whole: str) -> None:
    for wide in ("<svg", '<table class="figures">', '<table class="facts">'):
        assert whole.count(wide) == len(
            re.findall(
                rf'<div class="wide" role="group" tabindex="0" aria-label="[^"]+">\s*{wide}', whole
            )
        )


def test_a_sheet_with_more_plots_than_it_has_room_for() -> None:
    suite = made.irq()
    suite.comparisons *= 17
    assert sheet_png(made.results(suite), LIGHT).startswith(b"\x89PNG")


def test_the_head_of_a_sheet_names_what_is_drawn_and_has_all_of_the_machine() -> None:
    empty = SuiteResult(name="empty", summary="")
    results = made.results(made.irq(), empty)
    results.machines[0].facts["kernel options"] = "quiet " * 60 + "last"
    rows = _rows([[(each.name, panel) for panel in panels(each)] for each in results.suites])
    title, *lines = _head(results, rows, 1)
    assert title.startswith("uspace bench: irq (")
    assert any("quiet last" in line for line in lines)
    assert max(map(len, lines)) <= LINE


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_ways_can_be_seen_and_told_apart(theme: Theme) -> None:
    assert theme.paper is not None
    assert contrast(theme.ink, theme.paper) > 10
    assert all(contrast(each, theme.paper) >= 3 for each in theme.ways)
    looks = [style(theme, number) for number in range(56)]
    assert len({(look.colour, look.marker) for look in looks}) == 56


def test_files_of_a_report(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    paths = write_report(made.results(made.irq()), tmp_path / "run.1")
    assert [path.name for path in paths] == ["run.1.html", "run.1.png", "run.1-dark.png"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert dict(mpl.rcParams) == before
    with pytest.raises(HostError, match="cannot be written"):
        write_report(made.results(made.irq()), tmp_path / "nowhere" / "run")


names = some.one_of(
    some.sampled_from(["kernel", "user space", "", "<b>", "_", "$", "|", "{{ x }}", "\x00\n"]),
    some.text(max_size=12),
)
positive = some.floats(1e-15, 1e15)
amounts = some.one_of(some.just(0.0), positive)
intervals = some.builds(Interval, middle=amounts, low=amounts, high=amounts)
histograms = some.one_of(
    some.none(),
    some.just("damaged"),
    some.lists(some.integers(-1, 10**12), max_size=5).map(
        lambda taken: Histogram.of(taken).encode()
    ),
)
rounds = some.builds(
    Round, operations=some.integers(0, 2**62), seconds=amounts, own=some.none() | amounts,
    busy=some.none() | some.floats(-1, 9), median=some.none() | amounts,
)  # fmt: skip
ways = some.builds(
    WayResult, name=names, rounds=some.lists(rounds, max_size=3), latencies=histograms
)
comparisons = some.builds(
    ComparisonResult, name=names, operation=names, baseline=names,
    chart=some.sampled_from(["", "c"]),
    figure=some.sampled_from(["time", "rate", "latency", "unheard"]),
    size=some.none() | some.integers(0, 2**40),
    axes=some.dictionaries(
        some.sampled_from(["depth", "size", ""]), some.integers(-(2**40), 2**40) | names, max_size=2
    ),
    ways=some.lists(ways, max_size=3),
    ratios=some.lists(
        some.builds(Ratio, way=names, figure=intervals, busy=some.none() | intervals), max_size=3
    ),
    noise=some.builds(Noise, notes=some.lists(names, max_size=1)),
    narrow=some.booleans(), complete=some.booleans(),
)  # fmt: skip
skips = some.builds(Skipped, what=names, why=names)
suites = some.builds(
    SuiteResult, name=names, summary=names, device=names, machine=some.integers(0, 3),
    comparisons=some.lists(comparisons, max_size=3), skipped=some.lists(skips, max_size=1),
)  # fmt: skip
machines = some.builds(Machine, facts=some.dictionaries(names, names, max_size=2))
files = some.builds(
    Results, started=names, command=some.lists(names, max_size=3), complete=some.booleans(),
    seconds=amounts, machines=some.lists(machines, max_size=2),
    suites=some.lists(suites, max_size=2),
)  # fmt: skip
slowly = settings(max_examples=25, suppress_health_check=list(HealthCheck))


@given(files)
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_any_results_have_rows_and_a_markdown_page(results: Results) -> None:
    rows = summary_rows(results)
    assert len(rows) == sum(
        len(each.ways) for suite in results.suites for each in suite.comparisons
    )
    lines = results_page(results).splitlines()
    tables = [line for line in lines if line.startswith("| ")]
    assert len(tables) >= len(rows)


@pytest.mark.timeout(300)
@given(files)
@slowly
def test_any_results_have_a_page(results: Results) -> None:
    check_page(report_html(results))


@pytest.mark.timeout(300)
@given(files)
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_any_results_have_a_picture(results: Results) -> None:
    assert sheet_png(results, DARK).startswith(b"\x89PNG")
