"""VFIO's numbers and structures against the header of the kernel that this machine has."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from uspace_drv.backends.vfio import uapi
from uspace_drv.vfio_numbers import (
    DeviceFlag,
    DmaFlag,
    IrqAction,
    IrqFlag,
    IrqIndex,
    Region,
    RegionFlag,
)

HEADER = Path("/usr/include/linux/vfio.h")

STRUCTURES: Mapping[type[ctypes.Structure], str] = {
    uapi.GroupStatus: "vfio_group_status",
    uapi.DeviceInfo: "vfio_device_info",
    uapi.RegionInfo: "vfio_region_info",
    uapi.IrqInfo: "vfio_irq_info",
    uapi.IrqSetHeader: "vfio_irq_set",
    uapi.IommuInfo: "vfio_iommu_type1_info",
    uapi.CapabilityHeader: "vfio_info_cap_header",
    uapi.IovaRangeCapability: "vfio_iommu_type1_info_cap_iova_range",
    uapi.IovaRangeEntry: "vfio_iova_range",
    uapi.DmaAvailCapability: "vfio_iommu_type1_info_dma_avail",
    uapi.DmaMap: "vfio_iommu_type1_dma_map",
    uapi.DmaUnmap: "vfio_iommu_type1_dma_unmap",
}

ALIASES = {("vfio_iommu_type1_info_cap_iova_range", "count"): "nr_iovas"}

NUMBERS = {
    **{f"VFIO_{request.name}": int(request) for request in uapi.Request},
    **{f"VFIO_{request.name}": int(request) for request in uapi.Type1Request},
    "VFIO_API_VERSION": uapi.API_VERSION,
    "VFIO_TYPE1v2_IOMMU": uapi.Extension.TYPE1V2,
    **{f"VFIO_GROUP_FLAGS_{flag.name}": flag for flag in uapi.GroupFlag},
    **{f"VFIO_DEVICE_FLAGS_{flag.name}": flag for flag in DeviceFlag},
    **{f"VFIO_REGION_INFO_FLAG_{flag.name}": flag for flag in RegionFlag},
    **{f"VFIO_PCI_{region.name}_REGION_INDEX": region for region in Region},
    **{f"VFIO_PCI_{index.name}_IRQ_INDEX": index for index in IrqIndex},
    **{f"VFIO_IRQ_INFO_{flag.name}": flag for flag in IrqFlag},
    "VFIO_IRQ_SET_DATA_NONE": IrqAction.DATA_NONE,
    "VFIO_IRQ_SET_DATA_EVENTFD": IrqAction.DATA_EVENTFD,
    "VFIO_IRQ_SET_ACTION_MASK": IrqAction.MASK,
    "VFIO_IRQ_SET_ACTION_UNMASK": IrqAction.UNMASK,
    "VFIO_IRQ_SET_ACTION_TRIGGER": IrqAction.TRIGGER,
    **{f"VFIO_DMA_MAP_FLAG_{flag.name}": flag for flag in DmaFlag},
    "VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE": uapi.IommuCapability.IOVA_RANGE,
    "VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL": uapi.IommuCapability.DMA_AVAIL,
    "VFIO_IOMMU_INFO_PGSIZES": uapi.IommuFlag.PAGE_SIZES,
    "VFIO_IOMMU_INFO_CAPS": uapi.IommuFlag.CAPS,
}


def places() -> dict[str, int]:
    """Where our structures have each member, by the kernel's names."""
    return {
        f"offsetof(struct {theirs}, {ALIASES.get((theirs, name), name)})": getattr(
            ours, name
        ).offset
        for ours, theirs in STRUCTURES.items()
        for name, *_ in ours._fields_
        if name != "pad"  # padding got a name in Linux 6.6
    }


def sizes() -> dict[str, int]:
    return {
        f"sizeof(struct {theirs})": ctypes.sizeof(ours)
        for ours, theirs in STRUCTURES.items()
        if ours is not uapi.DeviceInfo  # it grew by its padding in Linux 6.6; see argsz
    }


@pytest.fixture(scope="module")
def of_the_kernel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the compiler makes of the header, by expression."""
    folder = tmp_path_factory.mktemp("uapi")
    wanted = [*NUMBERS, *places(), *sizes()]
    lines = "\n".join(map(_print, wanted))
    source, program = folder / "print.c", folder / "print"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n"
        f"#include <linux/vfio.h>\nint main(void)\n{{\n{lines}\n}}\n"
    )
    subprocess.run(["cc", "-O0", "-o", str(program), str(source)], check=True, timeout=100)
    ran = subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=20)
    answers = zip(wanted, ran.stdout.split(), strict=True)
    return {each: int(answer) for each, answer in answers if answer != "absent"}


def _print(expression: str) -> str:
    """C that prints it, or that the header is too old to have it."""
    line = f'printf("%llu\\n", (unsigned long long)({expression}));'
    if not expression.isidentifier():
        return line
    return f'#ifdef {expression}\n{line}\n#else\nputs("absent");\n#endif'


@pytest.mark.skipif(not HEADER.exists(), reason=f"no {HEADER}: install linux-libc-dev")
@pytest.mark.parametrize("ours", [NUMBERS, places(), sizes()], ids=["numbers", "places", "sizes"])
def test_is_what_the_kernel_says(ours: dict[str, int], of_the_kernel: dict[str, int]) -> None:
    assert of_the_kernel.items() & ours.items()
    assert {each: of_the_kernel.get(each, ours[each]) for each in ours} == ours


@pytest.mark.parametrize(
    ("ours", "size"),
    [(uapi.BindIommufd, 24), (uapi.AttachIommufd, 16), (uapi.DetachIommufd, 12)],
)
def test_sizes_of_what_is_newer(ours: type[ctypes.Structure], size: int) -> None:
    """As Linux 6.18 has them; see `argsz` for kernels that know less."""
    assert ctypes.sizeof(ours) == size


def test_device_info_holds_what_any_kernel_fills_in() -> None:
    """20 bytes before Linux 6.6, 24 since; a kernel fills in no more than argsz says."""
    assert ctypes.sizeof(uapi.DeviceInfo) == 24
