"""UIO and sysfs on a real kernel: a device of the board, ports, ROM and write-combined memory.

One boot. The kernel is the guests' own: no distribution's has uio_pdrv_genirq for x86.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from tests.vm.acpi_table import platform_device
from uspace_drv.testing.guest import Guest, own_kernel

pytestmark = pytest.mark.timeout(1300)

EDU, TESTDEV = "0000:00:04.0", "0000:00:05.0"
DEVICE, NAME = "USPC0001:00", "edu"
MEMORY, SIZE = 0xD000_0000, 1 << 20
INTERRUPT = 20
"""What INTA of slot 4 is wired to (QEMU hw/isa/lpc_ich9.c: slot and pin, modulo 4, from 20 on)."""

RESULTS = os.environ.get("RESULTS")  # scripts/test counts what ran in the guest

PYTEST = (
    f"{sys.executable} -m coverage run -p -m pytest -q -p pytest_timeout --timeout 120 "
    "--junitxml=$RESULTS_FOLDER/{name}.xml {words}"
)
RUNS = {
    "own-intel.sysfs": f"--device {TESTDEV} --via sysfs tests/backends/test_on_resource.py",
    "own-intel.platform-uio": "tests/vm/platform_uio_in_guest.py",
}


def test_table_adds_up() -> None:
    table = platform_device("USPC0001", memory=1, size=2, interrupt=3, properties={"a": "b"})
    assert sum(table) % 256 == 0
    assert struct.unpack_from("<4sI", table) == (b"SSDT", len(table))


def expansion_rom() -> bytes:
    """The least that Linux takes for a ROM (PCI Firmware Specification, section 5.1)."""
    content = bytearray(2048)
    struct.pack_into("<H22xH", content, 0, 0xAA55, 0x1C)
    fields = (b"PCIR", 0x1B36, 0x0005, 24, 0, len(content) // 512, 0, 0, 0x80)
    struct.pack_into("<4sHHxxHB3xHHBB", content, 0x1C, *fields)
    content[0x40:0x50] = bytes(range(16))
    return bytes(content)


def test_in_the_guest(tmp_path: Path) -> None:
    results = Path(RESULTS or tmp_path)
    table, rom = tmp_path / "ssdt.aml", tmp_path / "rom"
    table.write_bytes(
        platform_device(
            "USPC0001",
            memory=MEMORY,
            size=SIZE,
            interrupt=INTERRUPT,
            properties={"linux,uio-name": NAME},
        )
    )
    rom.write_bytes(expansion_rom())
    guest = Guest(
        kernel=own_kernel(),
        qemu="newest",  # the first whose pci-testdev has memory
        iommu="intel",
        devices=[
            "edu,addr=4",
            f"pci-testdev,addr=5,membar=16M,membar-backed=on,romfile={rom}",
        ],
        acpi_tables=[table],
        shares=[results],
    )
    runs = [f"{PYTEST.format(name=name, words=words)} || code=1" for name, words in RUNS.items()]
    result = guest.run(
        ["sh", "-c", "\n".join(["code=0", *runs, "exit $code"])],
        timeout=1200.0,
        environment={
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "RESULTS_FOLDER": str(results),
            "COVERAGE_FILE": str(results / ".coverage"),
        },
    )
    assert result.exit_code == 0, f"{result.output}\n{result.kernel_log[-2000:]}"
