"""What a device says it is and what a driver says it serves: matching is data and runs no code.

The modalias text is that of Linux (drivers/pci/pci-driver.c, scripts/mod/file2alias.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from uspace_drv.errors import RegisterValueError

_CLASS_BITS = 0xFFFFFF
_LIMITS = {
    "vendor": 0xFFFF,
    "device": 0xFFFF,
    "subvendor": 0xFFFF,
    "subdevice": 0xFFFF,
    "class_code": _CLASS_BITS,
    "class_mask": _CLASS_BITS,
}


@dataclass(frozen=True)
class FunctionIds:
    """The numbers by which a PCI function is known; `class_code` has three bytes, 0x010802."""

    vendor: int
    device: int
    subvendor: int = 0
    subdevice: int = 0
    class_code: int = 0
    revision: int = 0

    @property
    def modalias(self) -> str:
        """The text by which the kernel and udev know it."""
        base, sub, interface = self.class_code.to_bytes(3, "big")
        return (
            f"pci:v{self.vendor:08X}d{self.device:08X}sv{self.subvendor:08X}"
            f"sd{self.subdevice:08X}bc{base:02X}sc{sub:02X}i{interface:02X}"
        )

    def __str__(self) -> str:
        return f"{self.vendor:04x}:{self.device:04x}"


@dataclass(frozen=True)
class PciId:
    """An `id_table` entry: what is None is not looked at. `PciId(0x1234, 0x11E8)`.

    `class_code` is compared under `class_mask`: `PciId(class_code=0x010802)` is any NVMe
    controller. Raises `RegisterValueError` for a number that does not fit.
    """

    vendor: int | None = None
    device: int | None = None
    subvendor: int | None = None
    subdevice: int | None = None
    class_code: int | None = None
    class_mask: int = _CLASS_BITS

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value <= limit:
                raise RegisterValueError(f"PciId {name}={value:#x}: expected 0 to {limit:#x}")

    def matches(self, identity: Identity) -> bool:
        """Whether that PCI function is meant."""
        if not isinstance(identity, FunctionIds):
            return False
        names = ("vendor", "device", "subvendor", "subdevice")
        pairs = ((getattr(self, name), getattr(identity, name)) for name in names)
        return self._matches_class(identity) and all(
            wanted is None or wanted == seen for wanted, seen in pairs
        )

    def _matches_class(self, ids: FunctionIds) -> bool:
        return self.class_code is None or not (self.class_code ^ ids.class_code) & self.class_mask

    def __str__(self) -> str:
        def digits(value: int | None) -> str:
            return "*" if value is None else f"{value:04x}"

        text = f"{digits(self.vendor)}:{digits(self.device)}"
        if self.subvendor is not None or self.subdevice is not None:
            text += f" subsystem {digits(self.subvendor)}:{digits(self.subdevice)}"
        if self.class_code is not None:
            text += f" class {self.class_code:06x}"
            text += "" if self.class_mask == _CLASS_BITS else f"/{self.class_mask:06x}"
        return text


@dataclass(frozen=True)
class Modalias:
    """An `id_table` entry by the kernel's own pattern, '*' and all; or a device's own modalias."""

    text: str

    def matches(self, identity: Identity) -> bool:
        """Whether the pattern fits the device's modalias, case and all."""
        if isinstance(identity, UioName):
            return False
        return fnmatchcase(
            identity.modalias if isinstance(identity, FunctionIds) else identity.text, self.text
        )

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class UioName:
    """An `id_table` entry by the name of a UIO device (/sys/class/uio/uio0/name), or that name."""

    name: str

    def matches(self, identity: Identity) -> bool:
        """Whether it is that name, letter for letter."""
        return identity == self

    def __str__(self) -> str:
        return f"uio {self.name}"


Identity: TypeAlias = FunctionIds | Modalias | UioName
"""One way in which a device says what it is; a device may have several."""

Match: TypeAlias = PciId | Modalias | UioName
"""What a driver's `id_table` holds."""
