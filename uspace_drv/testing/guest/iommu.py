"""The IOMMUs that a guest may have: QEMU's device, and what the kernel has to be told for it.

Options follow QEMU's manual (`-device intel-iommu,help` and so on), words Linux
Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

IommuKind = Literal["none", "intel", "amd", "virtio"]
"""The `iommu` of a guest."""

KINDS: tuple[IommuKind, ...] = get_args(IommuKind)

# QEMU's AMD and virtio IOMMUs do not translate interrupts in a way that Linux would trust. VFIO
# refuses a device then, for it could raise any interrupt of the machine by a DMA write. Here that
# machine lives for one command; no real one should be started with these words.
_UNSAFE = "vfio_iommu_type1.allow_unsafe_interrupts=1 iommufd.allow_unsafe_interrupts=1"


@dataclass(frozen=True)
class Iommu:
    """One kind of IOMMU: `device` are the words of a -device, `words` for the kernel's line."""

    device: str | None
    words: str
    modules: tuple[str, ...] = ()

    def arguments(self, option: str) -> list[str]:
        """Return QEMU's arguments for it; `option` are more properties."""
        if self.device is None:
            return []
        return ["-device", f"{self.device},{option}" if option else self.device]


IOMMUS: dict[IommuKind, Iommu] = {
    "none": Iommu(None, "intel_iommu=off"),
    "intel": Iommu("intel-iommu,intremap=on,caching-mode=on", "intel_iommu=on"),
    "amd": Iommu("amd-iommu", _UNSAFE),
    # A function of the bus as any other: beside those of the guest itself.
    "virtio": Iommu("virtio-iommu-pci,addr=0x1d", _UNSAFE, ("virtio_iommu",)),
}
