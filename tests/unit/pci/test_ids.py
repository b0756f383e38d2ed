"""Matching by data: numbers, classes, modalias and UIO names."""

from __future__ import annotations

import pytest

from uspace_drv.errors import RegisterValueError
from uspace_drv.pci.ids import FunctionIds, Match, Modalias, PciId, UioName

EDU = FunctionIds(0x1234, 0x11E8, 0x1AF4, 0x1100, 0x00FF00, 0x10)
NVME = FunctionIds(0x1B36, 0x0010, 0x1AF4, 0x1100, 0x010802, 0x02)


def test_modalias_is_the_kernels() -> None:
    # From a Linux guest: /sys/bus/pci/devices/.../modalias of a virtio disk.
    disk = FunctionIds(0x1AF4, 0x1042, 0x1AF4, 0x1042, 0x018000)
    assert disk.modalias == "pci:v00001AF4d00001042sv00001AF4sd00001042bc01sc80i00"


@pytest.mark.parametrize(
    ("entry", "fits_edu", "fits_nvme"),
    [
        (PciId(0x1234, 0x11E8), True, False),
        (PciId(0x1234), True, False),
        (PciId(), True, True),
        (PciId(0x1234, 0x11E9), False, False),
        (PciId(0x1234, 0x11E8, subvendor=0x1AF4, subdevice=0x1100), True, False),
        (PciId(0x1234, 0x11E8, subdevice=1), False, False),
        (PciId(class_code=0x010802), False, True),
        (PciId(class_code=0x010000, class_mask=0xFF0000), False, True),
        (Modalias("pci:v00001234d000011E8*"), True, False),
        (Modalias("pci:v*d*sv*sd*bc01sc08i02*"), False, True),
        (Modalias("pci:v00001234d000011e8*"), False, False),
        (UioName("edu"), False, False),
    ],
)
def test_what_fits(entry: Match, fits_edu: bool, fits_nvme: bool) -> None:
    assert (entry.matches(EDU), entry.matches(NVME)) == (fits_edu, fits_nvme)


def test_other_identities() -> None:
    assert Modalias("of:NuartT*").matches(Modalias("of:NuartT(null)Cns16550a"))
    assert UioName("edu").matches(UioName("edu"))
    assert not UioName("edu").matches(UioName("eduard"))
    assert not PciId().matches(UioName("edu"))
    assert not Modalias("*").matches(UioName("edu"))


def test_number_that_does_not_fit_is_named() -> None:
    with pytest.raises(RegisterValueError, match="device=0x11e80: expected 0 to 0xffff"):
        PciId(0x1234, 0x11E80)


def test_they_print_for_people() -> None:
    assert str(EDU) == "1234:11e8"
    assert str(PciId(0x1234)) == "1234:*"
    assert str(PciId(0x1234, 0x11E8, subvendor=1)) == "1234:11e8 subsystem 0001:*"
    assert str(PciId(class_code=0x010000, class_mask=0xFF0000)) == "*:* class 010000/ff0000"
