"""Options of the model, checked and in bytes, and the BARs that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from uspace_drivers.nvme.model.store.namespaces import FORMATS, MOST, WITH_METADATA
from uspace_drivers.nvme.spec.identify import LbaFormat
from uspace_drivers.nvme.spec.registers import DOORBELLS, NvmeRegisters
from uspace_drv import NoDevice
from uspace_drv.models import Area, Bar, BarKind

PAGE = 4096
BAR_SIZE = 0x4000
CMB_BAR = 4
MOST_MDTS = 16
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


PYTHON, NATIVE = "python", "native"
"""Rings that run in the thread that writes a doorbell, or in one of their own, in C, which polls
doorbells in memory."""


@dataclass(frozen=True)
class Options:
    """What was asked for; `NoDevice` says what cannot be."""

    name: str
    size: int | str
    block_size: int
    namespaces: int
    latency: float
    mdts: int
    cmb: int | str
    metadata: bool
    rings: str

    def __post_init__(self) -> None:
        if self.block_size not in {512, 4096}:
            self._refuse(f"block_size={self.block_size}", "512 or 4096 bytes")
        if self.bytes % PAGE or self.bytes <= 0:
            self._refuse(f"size={self.size}", f"a positive multiple of {PAGE} bytes")
        if not 1 <= self.namespaces <= MOST:
            self._refuse(f"namespaces={self.namespaces}", f"1 to {MOST}")
        if not self.latency >= 0:  # nor is it what is no number
            self._refuse(f"latency={self.latency}", "seconds, 0 or more")
        if not 0 <= self.mdts <= MOST_MDTS:
            self._refuse(f"mdts={self.mdts}", f"0 to {MOST_MDTS}")
        if self.rings not in {PYTHON, NATIVE}:
            self._refuse(f"rings={self.rings}", f"{PYTHON} or {NATIVE}")
        cmb = self.cmb_bytes
        if cmb and (cmb & (cmb - 1) or cmb < PAGE):
            self._refuse(f"cmb={self.cmb}", f"0, or a power of two from {PAGE} on")

    @property
    def bytes(self) -> int:
        """Of each namespace."""
        return self._number("size", self.size)

    @property
    def cmb_bytes(self) -> int:
        """Of the controller memory buffer."""
        return self._number("cmb", self.cmb)

    @property
    def formats(self) -> Sequence[LbaFormat]:
        """The LBA formats that there are; namespaces have the first one."""
        if self.metadata:
            return (WITH_METADATA, *FORMATS)
        return FORMATS if self.block_size == 1 << FORMATS[0].lbads else FORMATS[::-1]

    def _number(self, option: str, text: int | str) -> int:
        if isinstance(text, int):
            return text
        unit = UNITS.get(text[-1:].upper(), 1)
        digits = text[:-1] if unit > 1 else text
        try:
            return int(digits, 0) * unit
        except ValueError:
            self._refuse(f"{option}={text}", "bytes, such as 4096, 64M or 1G")

    def _refuse(self, seen: str, expected: str) -> NoReturn:
        raise NoDevice(f"{self.name}: {seen}: expected {expected}")


def bar_list(options: Options, rings: str) -> Mapping[int, Bar]:
    """BAR 0 with the doorbells, memory where a thread polls them; BAR 4 if there is a CMB."""
    doorbells = () if rings == PYTHON else (Area(DOORBELLS, PAGE),)
    bars = {0: Bar(NvmeRegisters, size=BAR_SIZE, memory=doorbells, kind=BarKind.MEMORY_64)}
    if cmb := options.cmb_bytes:
        area = (Area(0, cmb),)
        bars[CMB_BAR] = Bar(size=cmb, memory=area, kind=BarKind.MEMORY_64, prefetchable=True)
    return bars
