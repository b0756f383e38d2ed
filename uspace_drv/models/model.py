"""A device model: a class that declares what the device has and reacts to reads and writes.

    class EduModel(DeviceModel):
        identity = PciIdentity(0x1234, 0x11E8)
        bars = {0: Bar(EduRegisters, size=1 << 20)}

        @on_write(EduRegisters.liveness)
        def invert(self, value: int) -> None:
            self.set(EduRegisters.liveness, value ^ 0xFFFF_FFFF)

A register without a method of its own behaves as its access right says: what was written is read
back, ones clear what is write-one-to-clear, a read-only one keeps what the model set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from uspace_drv.errors import DeviceError, LayoutError, UspaceError
from uspace_drv.models.config import ModelConfig, PciIdentity
from uspace_drv.models.interrupts import ModelIrqs
from uspace_drv.models.iommu import Iommu
from uspace_drv.port import IrqKind
from uspace_drv.registers import Access, Declaration, RegisterBlock

T = TypeVar("T")
M = TypeVar("M")

ALL_ONES = (1 << 64) - 1
"""What a bus reads where nobody answers."""


@dataclass(frozen=True)
class Bar:
    """A BAR of `size` bytes (a power of two) that begins with a table of registers."""

    registers: type[RegisterBlock]
    size: int

    def __post_init__(self) -> None:
        if self.size < max(self.registers.SIZE, 16) or self.size & (self.size - 1):
            raise LayoutError(
                f"a BAR of {self.size:#x} bytes for {self.registers.__name__} "
                f"({self.registers.SIZE:#x}): expected a power of two that holds it, from 16 up"
            )


def on_write(
    register: Declaration[Any, T],
) -> Callable[[Callable[[M, T], None]], Callable[[M, T], None]]:
    """Declare what happens when the driver writes: the method gets the value and decides."""

    def mark(method: Callable[[M, T], None]) -> Callable[[M, T], None]:
        method.__on_write__ = register  # type: ignore[attr-defined]
        return method

    return mark


def on_read(
    register: Declaration[Any, T],
) -> Callable[[Callable[[M], T]], Callable[[M], T]]:
    """Declare what the driver reads: the method returns it."""

    def mark(method: Callable[[M], T]) -> Callable[[M], T]:
        method.__on_read__ = register  # type: ignore[attr-defined]
        return method

    return mark


class DeviceModel:
    """What a model derives from. One instance is one device; `name` is for errors.

    Drivers in several threads reach it one at a time.
    """

    identity: ClassVar[PciIdentity]
    bars: ClassVar[Mapping[int, Bar]] = {}
    irqs: ClassVar[Mapping[IrqKind, int]] = {}

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).__name__
        sizes = {number: bar.size for number, bar in self.bars.items()}
        self.config = ModelConfig(self.identity, sizes, self.irqs)
        self.memory = Iommu(self.name, lambda: self.config.is_bus_master)
        self.interrupts = ModelIrqs(self.name, lambda: self.config.is_bus_master)
        self._lock = threading.RLock()
        self._values: dict[Declaration[Any, Any], int] = {}
        places = [
            ((number, register.offset, register.width // 8), register)
            for number, bar in self.bars.items()
            for register in bar.registers.registers()
        ]
        self._readable = {place: each for place, each in places if each.access.readable}
        self._writable = {place: each for place, each in places if each.access.writable}
        self._writers = self._methods("__on_write__")
        self._readers = self._methods("__on_read__")
        self.reset()

    def power_on(self) -> None:
        """Set what the registers hold after a reset, all others being 0."""

    def reset(self) -> None:
        """Forget everything and start again, as after a function-level reset."""
        with self._lock:
            self._values.clear()
            self.interrupts.set_level(False)
            self.power_on()

    def get(self, register: Declaration[Any, T]) -> T:
        """What the register holds."""
        return register.decode(self._values.get(register, 0))

    def set(
        self, register: Declaration[Any, T], value: T | int | None = None, /, **fields: Any
    ) -> None:
        """Make it hold a value, or these fields and 0 in all others; no method is called."""
        self._values[register] = register.encode(value, **fields)

    def read_memory(self, register: Declaration[Any, int], size: int) -> bytes:
        """Read `size` bytes of the driver's memory, from the IOVA that a register carries."""
        return self.memory.read(self.get(register), size, register.label)

    def write_memory(self, register: Declaration[Any, int], data: bytes) -> None:
        """Write to the driver's memory, at the IOVA that a register carries."""
        self.memory.write(self.get(register), data, register.label)

    def read_bar(self, bar: int, offset: int, width: int) -> int:
        """The driver reads `width` bytes: what it sees."""
        register = self._readable.get((bar, offset, width))
        if register is None:
            return ALL_ONES >> (64 - 8 * width)
        with self._lock:
            reader = self._readers.get(register)
            if reader is None:
                return self._values.get(register, 0)
            return register.encode(self._ask("read", register, reader))

    def write_bar(self, bar: int, offset: int, width: int, value: int) -> None:
        """The driver writes `width` bytes."""
        register = self._writable.get((bar, offset, width))
        if register is None:
            return
        with self._lock:
            writer = self._writers.get(register)
            if writer is not None:
                self._ask("write", register, writer, register.decode(value))
            elif register.access is Access.W1C:
                self._values[register] = self._values.get(register, 0) & ~value
            else:
                self._values[register] = value

    def _ask(
        self, verb: str, register: Declaration[Any, Any], method: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a method of the model; what goes wrong in it names the access that led there."""
        try:
            return method(*args)
        except UspaceError:
            raise
        except Exception as error:
            raise DeviceError(
                f"{self.name}: the model failed at a {verb} of {register.label}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _methods(self, mark: str) -> dict[Declaration[Any, Any], Callable[..., Any]]:
        names = (name for name in dir(type(self)) if hasattr(getattr(type(self), name), mark))
        methods = (getattr(self, name) for name in names)
        return {getattr(method, mark): method for method in methods}
