"""A PCI function in another process: its regions, interrupts, memory, reset and migration.

QEMU docs/interop/vfio-user.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from uspace_drv.backends.vfio_user.irqs import VfioUserIrqLine, VfioUserIrqs
from uspace_drv.backends.vfio_user.memory import SharedMemory
from uspace_drv.backends.vfio_user.regions import OpenIoFd, RemoteRegion
from uspace_drv.errors import NoDevice, PeerError, RegisterValueError, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.pci.config import CONFIG_SIZE, EXTENDED_CONFIG_SIZE
from uspace_drv.port import DmaSpace, IrqKind
from uspace_drv.teardown import Teardown
from uspace_drv.vfio_numbers import DeviceFlag, Region
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.client import Session
from uspace_drv.vfiouser.migration import Migration
from uspace_drv.vfiouser.numbers import Command

LONGEST_SPIN = 1.0


class VfioUserDevice:
    """Fills the port's `Backend` by messages, and by memory that the server shares.

    `path` is the server's socket. For the first `spin` seconds of a wait for a reply the processor
    is kept busy, which saves the wake-up. Opened when made.
    """

    via = "vfio-user"

    def __init__(self, path: str, *, spin: float = 0.0) -> None:
        self.address = f"vfio-user:{path}"
        self._way_out = Teardown()
        try:
            self._session = Session(self.address, path, spin=spin)
            self._way_out.push("close the connection", self._session.close)
            self._open()
        except BaseException as error:
            self._way_out.run(error)
            raise

    @classmethod
    def from_options(cls, path: str, options: Mapping[str, str]) -> VfioUserDevice:
        """Open it as an address says: 'vfio-user:PATH?spin=0.0001'."""
        if unknown := ", ".join(options.keys() - {"spin"}):
            raise NoDevice(
                f"vfio-user:{path}: no option is called {unknown}; there is spin=SECONDS"
            )
        text = options.get("spin", "0")
        try:
            spin = float(text)
        except ValueError:
            spin = -1.0
        if not 0 <= spin <= LONGEST_SPIN:
            raise NoDevice(
                f"vfio-user:{path}: spin={text}, expected 0 to {LONGEST_SPIN:.0f} seconds"
            )
        return cls(path, spin=spin)

    def _open(self) -> None:
        session = self._session
        size = wire.size_of(wire.DeviceInfo)
        self._info = session.request_body(Command.DEVICE_GET_INFO, wire.DeviceInfo(size, 0, 0, 0))
        if not self._info.flags & DeviceFlag.PCI:
            raise UnsupportedError(f"{self.address}: not a PCI device, and only those are known")
        if self._info.region_count <= Region.CONFIG:
            raise PeerError(
                f"{self.address}: a PCI device with {self._info.region_count} regions, "
                f"expected more than {int(Region.CONFIG)}"
            )
        self._regions = {n: self._region(n) for n in range(Region.BAR5 + 1)}
        self.config = self._open_config()
        self._way_out.push("close configuration space", self.config.close)
        self._irqs = VfioUserIrqs(session, self._info.irq_count)

    def _region(self, number: int) -> RemoteRegion:
        region = RemoteRegion(self._session, number)
        self._way_out.push(f"close region {number}", region.close)
        return region

    def _open_config(self) -> Window:
        region = self._region(Region.CONFIG)
        if region.size not in {CONFIG_SIZE, EXTENDED_CONFIG_SIZE}:
            raise PeerError(
                f"{self.address}: configuration space of {region.size:#x} bytes, "
                f"expected {CONFIG_SIZE:#x} or {EXTENDED_CONFIG_SIZE:#x}"
            )
        return region.by_messages(f"{self.address} config", posted=False)

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR that is implemented."""
        return {number: region.size for number, region in self._regions.items() if region.size}

    def bar(self, number: int) -> Window:
        """Map the BAR where the server shares it; elsewhere an access is a message.

        A write is posted (nobody waits for the reply) only on a device that shares no part of any
        BAR: so no store to shared memory can overtake a write that was made before it.
        """
        posted = not any(region.areas for region in self._regions.values())
        return self._regions[number].open(f"{self.address} bar {number}", posted=posted)

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """How many interrupts of each kind."""
        return self._irqs.counts

    def irq_line(self, kind: IrqKind, index: int) -> VfioUserIrqLine:
        """Switch on one interrupt."""
        return self._irqs.line(kind, index)

    @cached_property
    def _memory(self) -> SharedMemory:
        memory = SharedMemory(self._session)
        self._way_out.push("stop answering for memory", memory.close)
        return memory

    @property
    def dma(self) -> DmaSpace:
        """The memory that the server reaches."""
        return self._memory

    @property
    def can_reset(self) -> bool:
        """Whether the server knows how to."""
        return bool(self._info.flags & DeviceFlag.RESET)

    def reset(self) -> None:
        """Reset the function."""
        self._session.request(Command.DEVICE_RESET)

    @cached_property
    def migration(self) -> Migration:
        """Save, restore, and see which memory the device has written."""
        return Migration(self._session)

    def io_fds(self, number: int) -> list[OpenIoFd]:
        """Descriptors that stand for writes to a part of a BAR; the caller closes them.

        Made for a hypervisor's KVM_IOEVENTFD; writing one to an eventfd is the same as a store.
        """
        if number not in self.bar_sizes:
            raise RegisterValueError(f"{self.address}: no BAR {number}")
        return self._regions[number].io_fds()

    def close(self) -> None:
        """Close what the server shared, then the connection. Twice is fine."""
        self._way_out.run()
