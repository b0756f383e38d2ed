"""What an IOMMU says of itself, with numbers typed from the specifications."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.iommufd.fake_iommu import FakeIommu
from uspace_drv.iommufd import Hardware, HwInfoType, Iommufd


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeIommu:
    return FakeIommu(monkeypatch)


def hardware(fake: FakeIommu, kind: int, data: bytes) -> Hardware:
    fake.hardware = kind, data
    iommufd = Iommufd("0000:00:04.0")
    try:
        return iommufd.hardware(1)
    finally:
        iommufd.close()


# QEMU's Intel IOMMU: 39 bits of address, pages of 2 MiB and 1 GiB, caching mode, 2**16 domains.
VTD = struct.pack("<IIQQ", 0, 0, 0x00D2_008C_2226_0286, 0x0000_0000_00F0_0F4A)
SMMU = struct.pack("<II6III", 0, 0, 0x0C08_1008, 0x0000_0290, 0, 0x0000_1C00, 0, 0x74, 0, 2)
AMD = struct.pack("<QQ", 0x0010_0020_2003_02DA, 0x800)


@pytest.mark.parametrize(
    ("kind", "data", "register", "expected"),
    [
        (
            HwInfoType.INTEL_VTD,
            VTD,
            "cap",
            {"mgaw": 38, "sagaw": 2, "cm": 1, "nd": 6, "sslps": 3, "psi": 1, "drd": 1, "dwd": 1},
        ),
        (HwInfoType.INTEL_VTD, VTD, "ecap", {"qi": 1, "ir": 1, "eim": 0, "pt": 1, "iro": 15}),
        (HwInfoType.ARM_SMMUV3, SMMU, "idr0", {"cd2l": 1, "asid16": 1, "ttf": 2, "st_level": 1}),
        (HwInfoType.ARM_SMMUV3, SMMU, "idr1", {"sidsize": 16, "ssidsize": 10}),
        (HwInfoType.ARM_SMMUV3, SMMU, "idr3", {"ril": 1, "bbml": 3}),
        (HwInfoType.ARM_SMMUV3, SMMU, "idr5", {"gran4k": 1, "gran16k": 1, "gran64k": 1}),
        (HwInfoType.AMD, AMD, "efr", {"hd": 1, "gt": 1, "ppr": 1, "he": 0, "pc": 1, "pasmax": 0}),
        (HwInfoType.AMD, AMD, "efr2", {"ht_range_ignore": 1, "sev_snp_io": 0}),
    ],
)
def test_decodes(
    fake: FakeIommu, kind: HwInfoType, data: bytes, register: str, expected: dict[str, Any]
) -> None:
    found = hardware(fake, kind, data)
    assert found.kind is kind
    assert {name: getattr(found.registers[register], name) for name in expected} == expected


def test_prints_itself(fake: FakeIommu) -> None:
    text = str(hardware(fake, HwInfoType.INTEL_VTD, VTD))
    assert text.startswith("INTEL_VTD: nothing optional, 0 bits of PASID\n  cap: ")


def test_an_unknown_iommu_is_bytes(fake: FakeIommu) -> None:
    found = hardware(fake, 0x99, b"abcd")
    assert (found.kind, found.registers, found.data) == (0x99, {}, b"abcd")
    assert str(found).startswith("0x99: ")


def test_no_iommu_says_nothing(fake: FakeIommu) -> None:
    assert hardware(fake, 0, b"").kind is HwInfoType.NONE
