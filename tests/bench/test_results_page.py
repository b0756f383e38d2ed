"""Pages of docs/ say what the kept results files say: every number in them comes from there."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.bench import report_specimens as made
from uspace_drv.bench.report import results_page, summary_rows
from uspace_drv.bench.report.page import escape, kept_page, renewed
from uspace_drv.bench.results import write_results
from uspace_drv.errors import HostError, LayoutError

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"]


def test_the_page_of_results_is_made_of_the_kept_files() -> None:
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert page == kept_page(DOCS / "results"), "run: .venv/bin/python scripts/results-page"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_pages_cite_is_what_the_files_say(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page == renewed(page, DOCS / "results"), "run: .venv/bin/python scripts/results-page"


def test_a_page_has_every_figure_and_the_command() -> None:
    results = made.results()
    page = results_page(results)
    assert "\n    uspace bench nvme mmio --vm\n" in page
    for row in summary_rows(results):
        line = next(
            each
            for each in page.splitlines()
            if each.startswith(f"| {escape(row.comparison)} | {escape(row.way)} |")
        )
        assert all(
            f"| {text} |" in line for text in (row.figure, row.ratio_words, row.busy) if text
        )
    assert "- 4 KiB random reads, 4 at once: the host took 4.0 % of the processors" in page
    assert "- not measured: libaio: no fio; run: apt-get install fio" in page
    assert "Partial" not in page


def test_a_page_of_an_interrupted_run_says_so() -> None:
    assert "**Partial results" in results_page(made.results(made.irq(), complete=False))


def test_a_folder_of_files_is_one_page(tmp_path: Path) -> None:
    assert "No results file is kept yet." in kept_page(tmp_path)
    for name, suite in (("b.json", made.irq()), ("a.json", made.mmio())):
        write_results(made.results(suite), tmp_path / name)
    page = kept_page(tmp_path)
    assert page.index("a.json") < page.index("### mmio") < page.index("b.json")
    assert f"]({tmp_path.name}/a.json)" in page


def test_blocks_are_written_again_and_nothing_else_is(tmp_path: Path) -> None:
    write_results(made.results(made.irq()), tmp_path / "x.json")
    stale = "before\n<!-- from x.json irq -->\n| 1 | 2 |\n<!-- end -->\nafter\n"
    page = renewed(stale, tmp_path)
    assert page.startswith("before\n<!-- from x.json irq -->\n| comparison | way |")
    assert page.endswith("\n<!-- end -->\nafter\n")
    assert "| 1 | 2 |" not in page
    assert renewed(page, tmp_path) == page
    assert renewed(page.replace("9.", "8."), tmp_path) == page


def test_a_block_that_cites_nothing_is_refused(tmp_path: Path) -> None:
    write_results(made.results(made.irq()), tmp_path / "x.json")
    with pytest.raises(LayoutError, match="has no suite 'nvme', and a page cites it"):
        renewed("<!-- from x.json nvme -->\n<!-- end -->", tmp_path)
    with pytest.raises(HostError, match=r"y\.json: cannot be read"):
        renewed("<!-- from y.json nvme -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize(
    "name", ["a|b", "*x*", "`c`", "<script>", "a_b _c_", "[d](e)", "\\|", "&lt;", "~~f~~", "$x$"]
)
def test_names_come_out_as_they_are(name: str) -> None:
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    table = markdown.render(f"| head |\n| --- |\n| {escape(name)} |\n")
    text = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<td>{text}</td>" in table
