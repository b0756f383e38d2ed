"""Numbers with units, rows, and what is said of them in words."""

from __future__ import annotations

import pytest

from tests.bench import report_specimens as made
from uspace_drv.bench.report import columns, comparison_rows, sentences, summary_rows, units
from uspace_drv.bench.report.rows import BASELINE, verdict
from uspace_drv.bench.results import ComparisonResult, Interval, Noise, Round, WayResult


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.34e-9, "12.3 ns"),
        (1.1345e-6, "1.13 us"),
        (999.7e-9, "1.00 us"),
        (0.0305, "30.5 ms"),
        (0.0, "0 s"),
        (75.0, "75.0 s"),
        (3600.0, "3600 s"),
        (-3e-6, "-3.00 us"),
        (None, ""),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert units.seconds(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(29.8e6, "29.8 M/s"), (312_345.0, "312 k/s"), (8438.0, "8.44 k/s"), (99.96, "100/s")],
)
def test_rates(rate: float, text: str) -> None:
    assert units.rate(rate) == text


def test_data_rates() -> None:
    assert units.data_rate(1.277e9) == "1.28 GB/s"
    assert units.data_rate(None) == ""


def test_numbers_that_have_no_room_get_an_exponent() -> None:
    assert [units.digits(each) for each in (1e-7, 1234567.0, 999999.0, float("inf"))] == [
        "1.00e-07",
        "1.23e+06",
        "1000000",
        "inf",
    ]


def test_a_row_has_figures_ratios_and_percentiles() -> None:
    base, *_, polled = comparison_rows("nvme", made.nvme().comparisons[2])
    assert (base.way, base.baseline, base.ratio_words, base.busy_ratio_words) == (
        made.KERNEL, True, BASELINE, "",
    )  # fmt: skip
    assert polled.value is not None
    assert polled.figure == units.rate(polled.value)
    assert polled.data == units.data_rate(polled.value * 4096)
    assert polled.ratio_value is not None
    assert polled.ratio_words == f"{units.times(polled.ratio_value)} better"
    assert polled.busy_ratio_words.endswith(") better")
    assert polled.busy_value is not None
    assert polled.own_value is not None
    assert polled.busy_value > polled.own_value > 0
    assert [*polled.percentiles] == ["p50", "p99", "p999", "most"]
    assert sorted(polled.percentiles.values()) == list(polled.percentiles.values())
    assert polled.p999 == units.seconds(polled.percentiles["p999"])


def test_a_time_is_better_when_it_is_less() -> None:
    words = {row.way: row.verdict for row in summary_rows(made.results(made.mmio()))}
    assert words["window.read32(offset)"] == "better"
    assert words["numpy a[i]"] == "worse"
    assert words["ctypes"] == "even"


@pytest.mark.parametrize(
    ("low", "high", "more", "word"),
    [
        (1.1, 1.2, True, "better"),
        (1.1, 1.2, False, "worse"),
        (0.8, 0.9, True, "worse"),
        (0.8, 0.9, False, "better"),
        (0.95, 1.05, True, "even"),
        (1.0, 1.1, True, "even"),
        (0.8, 1.2, True, "undecided"),
        (0.2, 1.0, False, "undecided"),
        (0.0, 2.0, False, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, more: bool, word: str) -> None:
    assert (
        verdict(Interval(middle=(low + high) / 2, low=low, high=high), more_is_better=more) == word
    )


def test_doubts_are_marked_in_each_row_and_said_in_words() -> None:
    found = ComparisonResult(
        name="n", operation="o", figure="time", baseline="a", complete=False,
        ways=[WayResult(name="a", latencies="no histogram")],
        noise=Noise(notes=["the host took 4.0 %"]),
    )  # fmt: skip
    (row,) = comparison_rows("s", found)
    assert row.marks == ("incomplete", "noisy", "damaged")
    assert (row.figure, row.p50, row.value) == ("", "", None)
    assert sentences.doubts(found)[0] == "the host took 4.0 %"
    assert len(sentences.doubts(found)) == 3


def test_rounds_that_have_no_figure_are_left_out() -> None:
    ways = [
        WayResult(
            name="a", rounds=[Round(operations=0, seconds=1.0), Round(operations=4, seconds=2.0)]
        )
    ]
    (row,) = comparison_rows(
        "s", ComparisonResult(name="n", operation="o", figure="rate", baseline="b", ways=ways)
    )
    assert (row.figure, row.rounds, row.busy, row.ratio) == ("2.00/s", 2, "", "")


def test_columns_without_content_are_left_out() -> None:
    found = columns(summary_rows(made.results(made.mmio())))
    assert {"way", "figure", "ratio (95 %)", "CPU/op", "rounds"} <= set(found)
    assert not {"p50", "p99.9", "data", "doubts"} & set(found)


def test_a_suite_in_a_sentence() -> None:
    nvme = made.nvme()
    sentence = sentences.suite_sentence(nvme)
    assert sentence.startswith("Against kernel, io_uring: ")
    ratios = [each.ratios[-1].figure.middle for each in nvme.comparisons]
    span = f"{units.digits(min(ratios))} x to {units.digits(max(ratios))} x"
    assert f"user space, polled has {span} the rate (better in 4 of 4), for " in sentence


def test_a_sentence_names_four_ways_and_counts_the_rest() -> None:
    assert sentences.suite_sentence(made.mmio()).endswith("; 2 more ways are in the tables.")


def test_one_comparison_gives_its_interval_in_the_sentence() -> None:
    irq = made.irq()
    assert units.times(irq.comparisons[0].ratios[1].figure) in sentences.suite_sentence(irq)


def test_no_ratio_no_claim() -> None:
    empty = made.irq()
    empty.comparisons[0].ratios = []
    assert sentences.suite_sentence(empty) == "No ratio was measured."


def test_what_is_missing_is_named() -> None:
    assert sentences.missing(made.results(made.irq())) == []
    half = made.results(made.irq(), complete=False)
    half.suites[0].comparisons[0].complete = False
    first, second = sentences.missing(half)
    assert first.startswith("Partial results")
    assert second == "irq: one interrupt: interrupted before it was done"


def test_what_is_damaged_is_said_where_it_stands_and_narrowness_last() -> None:
    found = ComparisonResult(
        name="n", operation="o", figure="time", baseline="z",
        ways=[WayResult(name="a", rounds=[Round(operations=0, seconds=0)], latencies="none")],
        noise=Noise(notes=["the host took 4.0 %"]),
    )  # fmt: skip
    assert sentences.doubts(found) == [
        "the host took 4.0 %",
        "damaged: none of its ways is its baseline, 'z'",
        "damaged: a: 1 of 1 rounds have no figure, left out",
        "damaged: a: latencies cannot be read or are none, left out",
        "intervals not narrow yet",
    ]
    suite = made.irq()
    assert sentences.damages(made.results(suite)) == []
    suite.comparisons = [found]
    assert sentences.damages(made.results(suite))[0].startswith("irq, n: damaged: none of its")
