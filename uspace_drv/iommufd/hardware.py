"""What the IOMMU behind a device can do: its registers, in words.

Linux include/uapi/linux/iommufd.h, IOMMU_GET_HW_INFO; Intel VT-d specification 11.4.2 and 11.4.3;
Arm SMMUv3 specification 6.3.1 to 6.3.6; AMD IOMMU specification, MMIO offsets 0x30 and 0x1A0.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uspace_drv.iommufd import hardware_registers as registers
from uspace_drv.iommufd.objects import OpenFile
from uspace_drv.iommufd.uapi import page_tables
from uspace_drv.iommufd.uapi.page_tables import HwCapability, HwInfoType
from uspace_drv.iommufd.uapi.requests import Request
from uspace_drv.registers import Register

INPUT_TYPE = 1
"""iommu_hw_info.flags: the kind is asked for, not just told."""

_ROOM = 256


@dataclass(frozen=True)
class Hardware:
    """One IOMMU, as one device sees it. `pasid_bits` is 0 where the device has no PASIDs."""

    kind: HwInfoType | int
    capabilities: HwCapability
    pasid_bits: int
    registers: Mapping[str, Register]
    data: bytes
    """The registers as the kernel gave them."""

    def __str__(self) -> str:
        kind = self.kind.name if isinstance(self.kind, HwInfoType) else f"{self.kind:#x}"
        able = self.capabilities.name or "nothing optional"
        lines = [f"{kind}: {able}, {self.pasid_bits} bits of PASID"]
        lines += [f"  {name}: {value}" for name, value in self.registers.items()]
        return "\n".join(lines)


def read_hardware(file: OpenFile, device: int, kind: HwInfoType | int | None) -> Hardware:
    """Ask for the IOMMU behind `device`; see `Iommufd.hardware`."""
    buffer = ctypes.create_string_buffer(_ROOM)
    argument = page_tables.HwInfo(
        flags=0 if kind is None else INPUT_TYPE,
        dev_id=device,
        data_type=kind or 0,
        data_len=_ROOM,
        data_uptr=ctypes.addressof(buffer),
    )
    file.call(Request.GET_HW_INFO, argument)
    data = buffer.raw[: argument.data_len]
    found = argument.data_type
    decode = _DECODERS.get(found)
    return Hardware(
        kind=next((each for each in HwInfoType if each == found), found),
        capabilities=HwCapability(argument.out_capabilities),
        pasid_bits=argument.out_max_pasid_log2,
        registers=decode(data) if decode else {},
        data=data,
    )


def _vtd(data: bytes) -> Mapping[str, Register]:
    info = page_tables.HwInfoVtd.from_buffer_copy(data)
    return {
        "cap": registers.VtdCapability(info.cap_reg),
        "ecap": registers.VtdExtendedCapability(info.ecap_reg),
    }


def _smmuv3(data: bytes) -> Mapping[str, Register]:
    info = page_tables.HwInfoSmmuv3.from_buffer_copy(data)
    kinds = {
        0: registers.SmmuIdr0,
        1: registers.SmmuIdr1,
        3: registers.SmmuIdr3,
        5: registers.SmmuIdr5,
    }
    return {f"idr{number}": kind(info.idr[number]) for number, kind in kinds.items()}


def _amd(data: bytes) -> Mapping[str, Register]:
    info = page_tables.HwInfoAmd.from_buffer_copy(data)
    return {
        "efr": registers.AmdExtendedFeature(info.efr),
        "efr2": registers.AmdExtendedFeature2(info.efr2),
    }


_DECODERS: Mapping[int, Callable[[bytes], Mapping[str, Register]]] = {
    HwInfoType.INTEL_VTD: _vtd,
    HwInfoType.ARM_SMMUV3: _smmuv3,
    HwInfoType.AMD: _amd,
}
