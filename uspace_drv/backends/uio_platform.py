"""A device of the board, no PCI function, through its UIO node: named maps and an event counter.

Linux Documentation/driver-api/uio-howto.rst, "Using uio_pdrv_genirq for platform devices". Other
drivers of the kernel that make a UIO node serve as well: what is here is what all nodes have.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from periphery import MMIO, MMIOError

from uspace_drv.backends.refusal import refused
from uspace_drv.backends.uio_node import (
    EventCounter,
    PortRange,
    UioMap,
    UioNode,
    gone,
    open_node,
)
from uspace_drv.errors import DeviceGone, NoDevice, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.pci.host import Host
from uspace_drv.pci.ids import UioName
from uspace_drv.pci.lock import lock_folder
from uspace_drv.port import DmaSpace, IrqKind
from uspace_drv.teardown import Teardown

_ALIGNMENT = 8


class UioPlatformDevice:
    """Fills the port's `Backend`; opened when made. A map's index is the number of its BAR.

    There is no configuration space, no reset and no DMA. `maps` and `ports` say what the device
    has; I/O ports are listed only.
    """

    via = "uio"
    can_reset = False
    config: Window | None = None

    def __init__(
        self, node: UioNode, host: Host | None = None, *, address: str | None = None
    ) -> None:
        self.address = address or f"uio:{node.node}"
        self.identity = UioName(node.name)
        self._host = host or Host()
        self._uio = node
        self._way_out = Teardown()
        try:
            lock = lock_folder(node.folder, self.address, self._host)
            self._way_out.push("give the lock back", lock.close)
            self._open()
        except BaseException as error:
            self._way_out.run(error)
            raise

    def _open(self) -> None:
        self._node = open_node(self._host, self._uio.path, self.address)
        self._way_out.push("close the UIO node", lambda: os.close(self._node))
        self._has_interrupt = _has_interrupt(self._node)
        self.maps: Mapping[int, UioMap] = self._uio.maps(self._host)
        self.ports: Mapping[int, PortRange] = self._uio.ports(self._host)

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Size of every map in bytes, from where the device's own memory begins in it."""
        return {number: each.size - each.offset for number, each in self.maps.items()}

    def bar(self, number: int) -> Window:
        """Map it. `UnsupportedError` where it begins at no multiple of 8 bytes."""
        if number not in self.maps:
            raise NoDevice(f"{self.address}: no map {number}; it has {self._listed()}")
        found = self.maps[number]
        if found.offset % _ALIGNMENT:
            raise UnsupportedError(
                f"{self.address} map {number}: begins {found.offset:#x} bytes into its page; "
                f"registers are reached from multiples of {_ALIGNMENT} on"
            )
        memory = memoryview(self._mapping(number, found.size))
        return Window.over_buffer(f"{self.address} map {number}", memory[found.offset :])

    def _mapping(self, number: int, size: int) -> mmap.mmap:
        """Let python-periphery map it: UIO takes the map's index where /dev/mem takes an address.

        Its own accessors are not used, because they read registers that they write. What the kernel
        refuses to map costs a descriptor, which python-periphery (2.4.1) then forgets to close.
        """
        path = str(self._host.path(self._uio.path))
        try:
            memory: Any = MMIO(
                number * mmap.PAGESIZE, size, path=path
            )  # `mapping` is not in its stub
        except MMIOError as error:
            raise refused(self._uio.path, f"{self.address} map {number}", error) from error
        # Taken out of it: it would unmap registers that a window still shows.
        mapping: mmap.mmap = memory.mapping
        memory.mapping = None
        return mapping

    def _listed(self) -> str:
        return ", ".join(f"{n} ({each.name})" for n, each in sorted(self.maps.items())) or "none"

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """One, which counts as INTx because the kernel masks it when it fires; or none."""
        return {IrqKind.INTX: 1} if self._has_interrupt else {}

    def irq_line(self, kind: IrqKind, index: int) -> PlatformIrqLine:
        """Switch it on."""
        if kind is not IrqKind.INTX or index:
            raise UnsupportedError(f"{self.address}: a UIO device has one interrupt and no more")
        return PlatformIrqLine(self.address, self._node, self._uio.events(self._host))

    @property
    def dma(self) -> DmaSpace:
        """Always `UnsupportedError`."""
        raise UnsupportedError(
            f"{self.address}: UIO maps no memory for the DMA of a platform device; a driver of the "
            "kernel can offer memory that the device reaches as a map (uio_dmem_genirq)"
        )

    def reset(self) -> None:
        """Always `UnsupportedError`: nobody but its driver knows how."""
        raise UnsupportedError(f"{self.address}: UIO knows no reset of a platform device")

    def close(self) -> None:
        """Close everything. Twice is fine."""
        self._way_out.run()


class PlatformIrqLine:
    """Fills the port's `IrqLine` from a UIO node; `total` is what the kernel counted so far.

    Where the kernel's driver has a handler of its own that quiets the device, nothing can be
    masked and nothing needs to be armed again.
    """

    kind = IrqKind.INTX

    def __init__(self, name: str, node: int, total: int) -> None:
        self._name = name
        self._node = node
        self._counter = EventCounter(name, node)
        self.take = self._counter.take
        self._control(False)
        self._counter.start(total)
        self.unmask()

    def fileno(self) -> int:
        """The node."""
        return self._node

    def mask(self) -> None:
        """Switch it off in the interrupt controller, or `UnsupportedError`."""
        if not self._control(False):
            raise UnsupportedError(
                f"{self._name}: the kernel's driver behind this UIO device masks no interrupts"
            )

    def unmask(self) -> None:
        """Switch it on again; the device's level, if it is still up, fires at once."""
        self._control(True)

    def close(self) -> None:
        """Mask it where that can be; the node belongs to the backend."""
        with suppress(DeviceGone):  # then nothing interrupts any more
            self._control(False)

    def _control(self, on: bool) -> bool:
        """Call the driver's `irqcontrol` in the kernel, if it has one."""
        try:
            os.write(self._node, struct.pack("=i", on))
        except OSError as error:
            if error.errno == errno.ENOSYS:
                return False
            if error.errno in {errno.EIO, errno.EINVAL, errno.ENODEV}:  # uio_write() in Linux
                raise gone(self._name) from error
            raise
        return True


def _has_interrupt(node: int) -> bool:
    """Whether a read can ever succeed; what it takes is nobody's yet."""
    try:
        os.read(node, struct.calcsize("=i"))
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    return True
