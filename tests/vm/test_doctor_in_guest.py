"""The doctor on real kernels: three boots that run doctor_in_guest.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from uspace_drv.testing.guest import Guest
from uspace_drv.testing.guest.iommu import IommuKind
from uspace_drv.testing.guest.kernel import debian_kernel
from uspace_drv.testing.guest.kernel_build import own_kernel

pytestmark = pytest.mark.timeout(1300)

RESULTS = os.environ.get("RESULTS")  # scripts/test counts what ran in the guest
DEVICES = (
    "edu,addr=4",
    "pcie-pci-bridge,id=bridge,addr=6",
    "edu,bus=bridge,addr=1",
    "e1000,bus=bridge,addr=2",
)
WITHOUT_VFIO = "uio sysfs"
MACHINES: list[tuple[str, IommuKind, str]] = [
    ("debian", "intel", f"vfio-type1 {WITHOUT_VFIO}"),
    ("own", "intel", f"vfio-cdev vfio-type1 vfio-compat {WITHOUT_VFIO}"),
    ("own", "none", f"vfio-noiommu-cdev vfio-noiommu {WITHOUT_VFIO}"),
]


@pytest.mark.parametrize(("kernel", "iommu", "working"), MACHINES)
def test_doctor_in_the_guest(kernel: str, iommu: IommuKind, working: str, tmp_path: Path) -> None:
    results = Path(RESULTS or tmp_path)
    own = kernel == "own"
    guest = Guest(
        devices=DEVICES,
        iommu=iommu,
        kernel=own_kernel() if own else debian_kernel(),
        modules=[] if own else ["e1000"],
        shares=[results],
    )
    name = f"doctor-{kernel}-{iommu}"
    result = guest.run(
        [
            sys.executable, "-m", "coverage", "run", "-p", "-m", "pytest", "-q", "-s",
            "-p", "pytest_timeout", "-p", "no:cacheprovider",
            f"--junitxml={results / f'{name}.xml'}", "tests/vm/doctor_in_guest.py",
        ],
        timeout=1200.0,
        environment={
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "COVERAGE_FILE": str(results / ".coverage"),
            "WORKING_WAYS": working,
        },
    )  # fmt: skip
    print(result.output)
    assert result.exit_code == 0, f"{result.output}\n{result.kernel_log[-2000:]}"
