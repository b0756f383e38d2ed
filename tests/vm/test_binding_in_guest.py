"""Binding, brokers and virtual functions on real kernels: two boots that run binding_in_guest.py.

Debian's kernel has groups; the one built here has files of functions, iommufd and SR-IOV.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from uspace_drv.errors import HostError
from uspace_drv.testing.guest import Guest
from uspace_drv.testing.guest.cache import cache_folder, fetch
from uspace_drv.testing.guest.kernel import debian_kernel
from uspace_drv.testing.guest.kernel_build import own_kernel
from uspace_drv.testing.guest.programs import run_program

pytestmark = pytest.mark.timeout(1600)

RESULTS = os.environ.get("RESULTS")  # scripts/test counts what ran in the guest
DEVICES = (
    "edu,addr=4",
    "e1000,addr=5",
    "pcie-pci-bridge,id=bridge,addr=6",
    "edu,bus=bridge,addr=1",
    "e1000,bus=bridge,addr=2",
)
IGB = ("pcie-root-port,id=root-port,addr=7", "igb,bus=root-port")


def udev() -> Path:
    """Debian's udev, unpacked beside the kernels and not installed."""
    folder = cache_folder() / "udev"

    def download(scratch: Path) -> str:
        words = ("-q", "-o", "APT::Sandbox::User=root", "download", "udev")
        run_program("apt-get", *words, directory=scratch)
        return folder.name

    return folder if folder.exists() else fetch(download)


@pytest.mark.parametrize("kernel", ["debian", "own"])
def test_binding_in_the_guest(kernel: str, tmp_path: Path) -> None:
    results = Path(RESULTS or tmp_path)
    own = kernel == "own"
    guest = Guest(
        devices=[*DEVICES, *(IGB if own else ())],
        iommu="intel",
        kernel=own_kernel() if own else debian_kernel(),
        modules=[] if own else ["e1000"],
        qemu="newest" if own else "installed",
        shares=[results],
    )
    name = f"binding-{kernel}"
    environment = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "COVERAGE_FILE": str(results / f".coverage.{name}"),
    }
    try:
        environment["USPACE_UDEV"] = str(udev())
    except HostError as error:
        print(f"without udev: {error}")
    result = guest.run(
        [
            sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q", "-s",
            "-p", "pytest_timeout", "-p", "no:cacheprovider",
            f"--junitxml={results / f'{name}.xml'}", "tests/vm/binding_in_guest.py",
        ],
        timeout=1500.0,
        environment=environment,
    )  # fmt: skip
    print(result.output)
    assert result.exit_code == 0, f"{result.output}\n{result.kernel_log[-2000:]}"
