"""A device model: a class that declares what the device has and reacts to reads and writes.

class EduModel(DeviceModel):
    identity = PciIdentity(0x1234, 0x11E8)
    bars = {0: Bar(EduRegisters, size=1 << 20)}

    @on_write(EduRegisters.liveness)
    def invert(self, value: int) -> None:
        self.set(EduRegisters.liveness, value ^ 0xFFFF_FFFF)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from uspace_drv.errors import DeviceError, PeerError, UspaceError
from uspace_drv.models.bars import Bar, BarView
from uspace_drv.models.capabilities import Capability, Msix
from uspace_drv.models.clock import Clock, Timer
from uspace_drv.models.config import ModelConfig, PciIdentity
from uspace_drv.models.interrupts import ModelIrqs
from uspace_drv.models.iommu import Iommu
from uspace_drv.models.msix import MsixTable, place_msix
from uspace_drv.models.parameters import convert
from uspace_drv.models.power import D0, D3_HOT, follow_config
from uspace_drv.models.register_file import RegisterFile
from uspace_drv.models.space import ALL_ONES
from uspace_drv.port import IrqKind, Notice
from uspace_drv.registers import Declaration

T = TypeVar("T")


class DeviceModel:
    """What a model derives from. One instance is one device; `name` is for errors.

    Parameters are keyword-only arguments of an `__init__` that keeps them and then calls this one.
    Accesses, timers and results of background work come one at a time, whatever thread they are in.
    """

    identity: PciIdentity
    bars: Mapping[int, Bar] = {}
    irqs: Mapping[IrqKind, int] = {}
    capabilities: Sequence[Capability] = ()
    """What it has beyond MSI and MSI-X, which `irqs` declares."""

    doorbells: Mapping[Declaration[Any, Any], int | None] = {}
    """Writable registers that a client in another process may ring without a message: the only
    value that is ever written, or None for any. Where several writes meet, the last one counts."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).__name__
        self.power_state = D0
        """0 to 3; in D3hot only configuration space answers."""
        self._turn = threading.RLock()
        self._failure: UspaceError | None = None
        self._listeners: list[Callable[[Notice], None]] = []
        self._msix, bars, capabilities = self._lay_out()
        self.bar_list = {
            number: BarView(bar, f"{self.name} bar {number}") for number, bar in bars.items()
        }
        self.config = ModelConfig(self.identity, bars, self.irqs, capabilities, self._turn)
        self.memory = Iommu(self.name, self._is_bus_master)
        self.interrupts = ModelIrqs(self.name, self.config, self._msix, self._turn)
        self.clock = Clock(f"{self.name} clock", self._turn, self._keep_failure)
        self._registers = RegisterFile(self.name, self, bars)
        follow_config(self)
        if self._msix is not None:
            self._msix.on_change(self.interrupts.refresh)
        self.reset()

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        """A model whose parameters are given as text; `NoDevice` lists those that there are."""
        return cls(name, **convert(cls, options, name))

    def power_on(self) -> None:
        """Set what the registers hold after a reset, all others being 0."""

    def reset(self) -> None:
        """Forget everything and start again, as after a reset of the function through VFIO.

        Timers end, what waits is forgotten; configuration space and the client's lines stay, as
        the kernel restores them too.
        """
        with self._turn:
            self._failure = None
            self.clock.clear()
            self._registers.clear()
            if self._msix is not None and not self.interrupts.is_on(IrqKind.MSIX):
                self._msix.reset()
            self.interrupts.reset()
            self.power_on()

    def reset_function(self) -> None:
        """Reset by the function's own hand: configuration space too (FLR, or out of D3hot)."""
        with self._turn:
            self.config.reset()
            self.power_state = D0
            self.reset()

    def close(self) -> None:
        """End timers, background work and interrupts, and give BAR memory back. Twice is fine.

        After a `reset` it can be used again. Raises what a timer raised and nobody has seen.
        """
        self.clock.close()
        self.interrupts.close()
        for view in self.bar_list.values():
            view.close()
        self._raise_failure()

    def disown(self, report: Callable[[UspaceError], None]) -> None:
        """The client has left: what it began may go on, and the next one is not to suffer from it.

        What has failed in the background and nobody has seen is told to `report`, and so is what
        fails later of it. Otherwise the next access would raise it.
        """
        with self._turn:
            self.clock.disown(lambda error: report(self._background_failure(error)))
            failure, self._failure = self._failure, None
        if failure is not None:
            report(failure)

    @contextmanager
    def quiesce(self) -> Iterator[None]:
        """Inside, the device stands still: no access, no timer, no DMA of another thread."""
        with self._turn, self.memory.turn:
            yield

    def get(self, register: Declaration[Any, T]) -> T:
        """What the register holds."""
        return register.decode(self._registers.values.get(register, 0))

    def set(
        self, register: Declaration[Any, T], value: T | int | None = None, /, **fields: Any
    ) -> None:
        """Make it hold a value, or these fields and 0 in all others; no method is called."""
        self._registers.values[register] = register.encode(value, **fields)

    def read_memory(self, register: Declaration[Any, int], size: int) -> bytes:
        """Read `size` bytes of the driver's memory, from the IOVA that a register carries."""
        return self.memory.read(self.get(register), size, register.label)

    def write_memory(self, register: Declaration[Any, int], data: bytes) -> None:
        """Write to the driver's memory, at the IOVA that a register carries."""
        self.memory.write(self.get(register), data, register.label)

    def bar_memory(self, number: int) -> memoryview:
        """A whole BAR as bytes, of which the areas that it declares are there; until `close`."""
        return self.bar_list[number].window.memory()

    def watch(self, tell: Callable[[Notice], None]) -> Callable[[], None]:
        """Call `tell` for `fail_bus` and `request_back`, until the result is called."""
        self._listeners.append(tell)
        return lambda: self._listeners.remove(tell) if tell in self._listeners else None

    def fail_bus(self) -> None:
        """Let the bus report an error of this device, as it would through VFIO: for tests.

        Not from within a reaction of the model: who listens may want to use it.
        """
        self._tell(Notice.ERROR)

    def request_back(self) -> None:
        """Let the host ask for the device back, as it would through VFIO: for tests of drivers.

        Returns when it was left. Not from within a reaction of the model.
        """
        self._tell(Notice.REQUEST)

    def after(self, seconds: float, method: Callable[[], None]) -> Timer:
        """Call a method in that many seconds; 0 is at once, before this returns.

        What it raises is raised at the driver's next access.
        """
        return self.clock.after(seconds, method)

    def work(self, function: Callable[[], T], then: Callable[[T], None]) -> None:
        """Run `function` in the background, where it may not touch the model; then `then(result)`.

        A reset drops the result.
        """
        self.clock.work(function, then)

    def read_other(self, bar: int, offset: int, width: int) -> int:
        """What the driver reads where neither a register nor memory is: all ones."""
        return ALL_ONES >> (64 - 8 * width)

    def write_other(self, bar: int, offset: int, width: int, value: int) -> None:
        """Take what the driver writes where neither a register nor memory is: nothing happens."""

    def read_bar(self, bar: int, offset: int, width: int) -> int:
        """The driver reads `width` bytes: what it sees."""
        with self._turn:
            if self._failure is not None:
                self._raise_failure()
            if self.power_state == D3_HOT:
                return ALL_ONES >> (64 - 8 * width)
            value = self._registers.read((bar, offset, width))
            return self._read_elsewhere(bar, offset, width) if value is None else value

    def write_bar(self, bar: int, offset: int, width: int, value: int) -> None:
        """The driver writes `width` bytes."""
        with self._turn:
            if self._failure is not None:
                self._raise_failure()
            if self.power_state == D3_HOT:
                return
            if not self._registers.write((bar, offset, width), value):
                self._write_elsewhere(bar, offset, width, value)

    def _is_bus_master(self) -> bool:
        return self.config.is_bus_master and self.power_state != D3_HOT

    def _tell(self, notice: Notice) -> None:
        for tell in tuple(self._listeners):
            tell(notice)

    def _lay_out(self) -> tuple[MsixTable | None, Mapping[int, Bar], Sequence[Capability]]:
        """Find a place for the MSI-X table, if there is to be one."""
        if IrqKind.MSIX not in self.irqs:
            return None, self.bars, self.capabilities
        count = self.irqs[IrqKind.MSIX]
        declared = next((each for each in self.capabilities if isinstance(each, Msix)), Msix())
        place, bars = place_msix(declared, count, self.bars)
        others = [each for each in self.capabilities if not isinstance(each, Msix)]
        return MsixTable(place, count, self._turn), bars, [*others, place]

    def _read_elsewhere(self, bar: int, offset: int, width: int) -> int:
        view = self.bar_list[bar]
        if view.bar.holds(offset, width):
            return view.read(offset, width)
        if self._msix is not None and (found := self._msix.space_at(bar, offset)):
            return found[0].read(found[1], width)
        return self.read_other(bar, offset, width)

    def _write_elsewhere(self, bar: int, offset: int, width: int, value: int) -> None:
        view = self.bar_list[bar]
        if view.bar.holds(offset, width):
            view.write(offset, width, value)
        elif self._msix is not None and (found := self._msix.space_at(bar, offset)):
            found[0].write(found[1], width, value)
        else:
            self.write_other(bar, offset, width, value)

    def _keep_failure(self, error: Exception) -> None:
        """Keep what a timer raised for the next access: the thread that it was in has no caller."""
        self._failure = self._failure or self._background_failure(error)

    def _background_failure(self, error: Exception) -> UspaceError:
        """A peer's fault must not look like that of the peer who makes the next access."""
        if isinstance(error, UspaceError) and not isinstance(error, PeerError):
            return error
        failure = DeviceError(
            f"{self.name}: the model failed in the background: {type(error).__name__}: {error}"
        )
        failure.__cause__ = error
        return failure

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
