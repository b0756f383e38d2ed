"""Print which way to open a device was tested on which kernel and IOMMU, and each driver by which.

usage: matrix.py RESULTS   (reads what scripts/test leaves there: KERNEL-IOMMU.WAY[.DRIVER].xml of
scripts/in-guest, and virtual.xml and socket.xml of the host)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tally import read_tier

GUESTS = ("debian-intel", "debian-none", "own-intel", "own-amd", "own-virtio", "own-none")
WAYS = (
    "vfio-cdev", "vfio-type1", "vfio-type1v1", "vfio-compat",
    "vfio-noiommu-cdev", "vfio-noiommu", "uio", "platform-uio", "sysfs",
)  # fmt: skip

WHY_NOT = (
    ("debian-*", "vfio-cdev", "Debian's kernels have no VFIO_DEVICE_CDEV"),
    ("debian-*", "vfio-compat", "Debian's kernels have no IOMMUFD"),
    ("debian-*", "vfio-noiommu*", "Debian's kernels have no VFIO_NOIOMMU"),
    ("debian-*", "platform-uio", "Debian's kernels have no UIO_PDRV_GENIRQ"),
    ("*-none", "vfio-[!n]*", "there is no IOMMU"),
    ("own-[!n]*", "vfio-noiommu*", "an IOMMU is there, and the kernel gives its groups instead"),
    ("*-[!n]*", "uio", "UIO's DMA needs that no IOMMU translates"),
)
"""Guest, way and reason, the first that fits; [!n] keeps "none" and "noiommu" out."""

FULLEST = "own-intel"
ONCE = ("vfio-type1v1", "vfio-compat", "platform-uio", "sysfs")
"""Ways that are tested in the fullest guest alone."""

DRIVERS = {
    "edu": ("tests.drivers.test_edu",),
    "nvme": ("tests.drivers.test_nvme", "tests.drivers.nvme."),
    "virtio-rng": ("tests.drivers.test_virtio_rng",),
}
"""The modules of each driver's tests."""

KINDS = {
    "model": ("virtual",),
    "vfio-user": ("socket", "vfio-user"),
    "type1": ("*.vfio-type1*",),
    "iommufd": ("*.vfio-cdev*", "*.vfio-compat*"),
    "noiommu": ("*.vfio-noiommu*",),
    "UIO": ("*.uio*",),
}
"""The result files of each kind of way, in whatever guest."""

SAME = "=", "does not depend on that; tested in another column"
LOST = "NO RESULT", None


def cell(results: Path, guest: str, way: str) -> tuple[str, str | None]:
    """Return what a cell shows, and the reason where nothing was run."""
    path = results / f"{guest}.{way}.xml"
    if path.exists():
        tier = read_tier(path, way)
        bad = tier.failed + len(tier.skips)
        return (f"{bad} FAILED" if bad else f"{tier.passed} passed"), None
    fits = (why for at, what, why in WHY_NOT if fnmatch(guest, at) and fnmatch(way, what))
    reason = next(fits, None)
    if reason:
        return "-", reason
    return SAME if way in ONCE and guest != FULLEST else LOST


def driver_cell(results: Path, modules: tuple[str, ...], names: tuple[str, ...]) -> str:
    """Return what came of a driver's tests in all runs of such a name."""
    paths = [path for name in names for path in sorted(results.glob(f"{name}.xml"))]
    tiers = [read_tier(path, path.stem, modules) for path in paths]
    passed = sum(tier.passed for tier in tiers)
    bad = sum(tier.failed + len(tier.skips) for tier in tiers)
    if bad:
        return f"{bad} FAILED"
    return f"{passed} passed" if passed else LOST[0]


def a_table(first: str, columns: Iterable[str]) -> Table:
    """Return an empty one."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (first, *columns):
        table.add_column(name)
    return table


def main(arguments: list[str]) -> None:
    """Print both tables, and under the first one its reasons by number."""
    results = Path(arguments[0])
    table = a_table("way", (guest.replace("-", ", ") for guest in GUESTS))
    reasons: list[str] = []
    for way in WAYS:
        row = []
        for guest in GUESTS:
            shown, reason = cell(results, guest, way)
            if reason and reason not in reasons:
                reasons.append(reason)
            row.append(f"{shown} ({reasons.index(reason) + 1})" if reason else shown)
        table.add_row(way, *row)
    console = Console(width=120, markup=False, highlight=False)
    console.print(table)
    for number, reason in enumerate(reasons, start=1):
        console.print(f"({number}) {reason}")
    drivers = a_table("driver", KINDS)
    for driver, modules in DRIVERS.items():
        drivers.add_row(driver, *(driver_cell(results, modules, KINDS[kind]) for kind in KINDS))
    console.print()
    console.print(drivers)


if __name__ == "__main__":
    main(sys.argv[1:])
