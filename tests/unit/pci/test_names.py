"""Names from pci.ids, in the file's own format."""

from __future__ import annotations

from pathlib import Path

import pytest

from uspace_drv.pci.names import PciNames

PCI_IDS = """\
# the head of the file
1234  Technical Corp.
# 11e8 is not registered
\t1111  Bochs Display
1b36  Red Hat, Inc.
\t0008  QEMU PCIe Host bridge
\t0010  QEMU NVM Express Controller
\t\t1af4 1100  QEMU Virtual Machine
\t0011  QEMU PVPanic device
C 01  Mass storage controller
\t08  Non-Volatile memory controller
\t\t02  NVM Express
C 02  Network controller
\t00  Ethernet controller
"""


@pytest.fixture
def names(tmp_path: Path) -> PciNames:
    path = tmp_path / "pci.ids"
    path.write_text(PCI_IDS)
    return PciNames([tmp_path / "absent", path])


def test_vendor_and_device(names: PciNames) -> None:
    assert names.vendor(0x1B36) == "Red Hat, Inc."
    assert names.device(0x1B36, 0x0010) == "QEMU NVM Express Controller"
    assert names.device(0x1B36, 0x0011) == "QEMU PVPanic device"
    assert names.device(0x1234, 0x1111) == "Bochs Display"


def test_a_device_belongs_to_its_vendor(names: PciNames) -> None:
    assert names.device(0x1234, 0x0010) is None
    assert names.device(0x1B36, 0x1AF4) is None
    assert names.device(0x9999, 0x0010) is None
    assert names.vendor(0x9999) is None


def test_class_names_as_exact_as_known(names: PciNames) -> None:
    expected = "Non-Volatile memory controller (NVM Express)"
    assert names.class_name(0x010802) == expected
    assert names.class_name(0x010803) == "Non-Volatile memory controller"
    assert names.class_name(0x020000) == "Ethernet controller"
    assert names.class_name(0x01FF00) == "Mass storage controller"


def test_without_the_file_base_classes_are_still_known(tmp_path: Path) -> None:
    names = PciNames([tmp_path / "absent"])
    assert names.vendor(0x1B36) is None
    assert names.device(0x1B36, 0x0010) is None
    assert names.class_name(0x020000) == "Network controller"
    assert names.class_name(0x770000) == "Class 770000"
