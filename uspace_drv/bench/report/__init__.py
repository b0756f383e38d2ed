"""A results file as tables, as one HTML page with plots, as pictures, and as a Markdown page.

Everything follows from the file alone, so that the same file always gives the same report.
"""

from __future__ import annotations

from pathlib import Path

from uspace_drv.bench.report.page import results_page
from uspace_drv.bench.report.rows import COLUMNS, Row, columns, comparison_rows, summary_rows
from uspace_drv.bench.results import Results, write_whole

__all__ = [
    "COLUMNS",
    "Row",
    "columns",
    "comparison_rows",
    "results_page",
    "summary_rows",
    "write_report",
]


def write_report(results: Results, base: Path) -> list[Path]:
    """Write base.html, base.png and base-dark.png and return their paths.

    A name like "run.1" keeps its dot. `HostError` if a file cannot be written.
    """
    # matplotlib takes longer to load than all the rest; tables do without.
    from uspace_drv.bench.report.html import report_html  # noqa: PLC0415 - see above
    from uspace_drv.bench.report.sheet import DARK, LIGHT, sheet_png  # noqa: PLC0415 - see above

    contents = {
        ".html": report_html(results).encode(),
        ".png": sheet_png(results, LIGHT),
        "-dark.png": sheet_png(results, DARK),
    }
    paths = {base.parent / f"{base.name}{end}": data for end, data in contents.items()}
    for path, data in paths.items():
        write_whole(path, data)
    return list(paths)
