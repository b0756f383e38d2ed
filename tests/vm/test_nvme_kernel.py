"""The kernel's own nvme driver on our controller, which QEMU sees through vfio-user.

In the guest runs nvme_kernel_in_guest.py; out here, what nvme-cli printed there is compared with
what the model says, and the kernel's log must hold no complaint.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import closing
from pathlib import Path

import pytest

from uspace_drivers.nvme import NvmeModel
from uspace_drv.testing.guest import Guest, Kernel, debian_kernel, own_kernel
from uspace_drv.vfiouser.server import Server

pytestmark = pytest.mark.timeout(420)

RESULTS = os.environ.get("RESULTS")  # scripts/test counts what ran in the guest
ADDRESS = "0000:00:10.0"
DEBIAN_MODULES = ("nvme", "ext4", "crc32c_generic")
COMPLAINT = re.compile(
    r".*(nvme.*(?i:time.?out|error|fail|bogus|abort|invalid|inconsistent|missing|not ready|disabl)"
    r"|I/O error|BUG|Oops|WARNING|Call Trace|blocked for more than).*"
)


@pytest.mark.parametrize(
    ("kernel", "rings"), [("debian", "native"), ("debian", "python"), ("own", "native")]
)
def test_the_kernels_driver(tmp_path: Path, kernel: str, rings: str) -> None:
    results = Path(RESULTS or tmp_path)
    model = NvmeModel(size=128 << 20, serial="USPACE-7", rings=rings)
    with closing(model), Server(model, tmp_path / "socket") as server:
        log = run_in_guest(kernel, f"nvme-{kernel}-{rings}", tmp_path / "socket", results, tmp_path)
        assert list(server.complaints) == []
        compare(model, tmp_path)
    assert [found[0] for found in COMPLAINT.finditer(log)] == []


def run_in_guest(kernel: str, name: str, socket: Path, results: Path, folder: Path) -> str:
    """Run all that the kernel's driver can do in one boot; return what its kernel said then."""
    built_in = kernel == "own"
    chosen: Kernel = own_kernel() if built_in else debian_kernel()
    guest = Guest(
        kernel=chosen, vfio_user=[socket], shares=[results, folder],
        modules=() if built_in else DEBIAN_MODULES,
    )  # fmt: skip
    words = ["-k", "not file_system"] if built_in else []  # our own kernel has no ext4
    result = guest.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "pytest_timeout", "-p", "no:cacheprovider",
            "--timeout", "120", "--durations=10", f"--junitxml={results / f'{name}.xml'}",
            "tests/vm/nvme_kernel_in_guest.py", *words,
        ],
        timeout=400.0,
        environment={
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "NVME_ADDRESS": ADDRESS,
            "NVME_RESULTS": str(folder),
            "NVME_MODULES": str(chosen.modules) if not built_in else "/nowhere",
        },
    )  # fmt: skip
    print(result.output)
    assert result.exit_code == 0, f"{result.output}\n{result.kernel_log[-4000:]}"
    (folder / "kernel.log").write_text(result.kernel_log)
    return result.kernel_log


def compare(model: NvmeModel, folder: Path) -> None:
    """What nvme-cli printed is what the model says of itself."""
    assert (folder / "id-ctrl.bin").read_bytes() == model.identification.controller()
    said = json.loads((folder / "id-ctrl.json").read_text())
    assert (said["sn"].strip(), said["mdts"], said["ver"]) == ("USPACE-7", model.mdts, 0x10400)
    assert (folder / "smart-log.bin").read_bytes() == model.health.smart_log()
    printed = json.loads((folder / "smart-log.json").read_text())
    assert printed["temperature"] == model.health.temperature
    counts = [int(printed[f"host_{kind}_commands"]) for kind in ("read", "write")]
    assert counts == [model.health.reads, model.health.writes]
