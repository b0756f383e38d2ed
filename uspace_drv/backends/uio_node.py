"""A UIO device as sysfs shows it, and its event counter; whatever driver of the kernel made it.

Linux Documentation/driver-api/uio-howto.rst, "sysfs files" and "mmap() device memory"; the calls on
the node are those of drivers/uio/uio.c.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from uspace_drv.backends.refusal import refused
from uspace_drv.deadline import Deadline
from uspace_drv.errors import DeviceGone, NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.nodes import UIO

UIO_CLASS = "/sys/class/uio"

EVENT_BYTES = 4
"""A read of the node gives the number of interrupts since boot, as one 32-bit integer."""

APPEARS_WITHIN = 2.0
"""Seconds that udev gets to make a node after the device is there."""

_NODE = re.compile(r"uio[0-9]+", re.ASCII)
_NO_ADDRESS = {(1 << 32) - 1, (1 << 64) - 1}
_LOOK_AGAIN = 0.01


@dataclass(frozen=True)
class UioMap:
    """A piece of memory that the node maps: `size` bytes from a page's start, at `address`.

    The device's own registers begin at `offset` in it. `address` is None for memory that the kernel
    allocates when the node is opened (uio_dmem_genirq), and has not allocated yet.
    """

    name: str
    address: int | None
    size: int
    offset: int


@dataclass(frozen=True)
class PortRange:
    """I/O ports of the device; `kind` is 'port_x86', 'port_gpio', 'port_other' or 'port_none'."""

    name: str
    start: int
    size: int
    kind: str


@dataclass(frozen=True)
class UioNode:
    """One of /sys/class/uio: `node` is 'uio0', `name` and `version` are those of its driver.

    `device` is the kernel's name of what is behind it ('0000:00:04.0', 'a0000000.regs').
    """

    node: str
    name: str
    version: str
    device: str
    driver: str | None

    @property
    def path(self) -> str:
        """The character device."""
        return f"/dev/{self.node}"

    @property
    def folder(self) -> str:
        """What sysfs says of it."""
        return f"{UIO_CLASS}/{self.node}"

    @property
    def function(self) -> PciAddress | None:
        """The PCI function that uio_pci_generic has; None for any other kind of device."""
        return PciAddress.parse(self.device) if self.driver == UIO else None

    def events(self, host: Host) -> int:
        """How often it interrupted since the kernel has it."""
        return host.read_int(f"{self.folder}/event") or 0

    def maps(self, host: Host) -> Mapping[int, UioMap]:
        """Read its memory, by index: the device's own are complete once the node is open."""
        folders = _numbered(host, f"{self.folder}/maps", "map")
        return {number: _read_map(host, folder) for number, folder in folders.items()}

    def ports(self, host: Host) -> Mapping[int, PortRange]:
        """Read its I/O ports, by index."""
        folders = _numbered(host, f"{self.folder}/portio", "port")
        return {number: _read_ports(host, folder) for number, folder in folders.items()}

    def __str__(self) -> str:
        return f"{self.node} ({self.name}, {self.device})"


def uio_nodes(host: Host) -> list[UioNode]:
    """All of them, by number."""
    names = filter(_NODE.fullmatch, host.names(UIO_CLASS))
    return [_read_node(host, name) for name in sorted(names, key=lambda name: int(name[3:]))]


def find_node(text: str, host: Host) -> UioNode:
    """Return the UIO device called `text`: by its node, 'uio0', or by its driver's name for it.

    Raises `NoDevice` with all that there are, or with those that share the name.
    """
    nodes = uio_nodes(host)
    found = [node for node in nodes if node.node == text]
    found = found or [node for node in nodes if node.name == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise NoDevice(
            f"uio:{text}: {len(found)} UIO devices have this name: {_listed(found)}; "
            f"choose one by its node: uio:{found[0].node}"
        )
    raise NoDevice(
        f"uio:{text}: no UIO device has this node or name; there are {_listed(nodes) or 'none'}"
    )


def open_node(host: Host, path: str, address: str) -> int:
    """Open it with reads that do not block; waits until it is there. The caller closes it."""
    deadline = Deadline(APPEARS_WITHIN)
    while True:
        try:
            return os.open(host.path(path), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENOENT or deadline.passed:
                raise refused(path, address, error) from error
        time.sleep(_LOOK_AGAIN)  # udev says when it is there to its own clients only


class EventCounter:
    """How often the device interrupted since `start()`. The node is borrowed.

    `name` is the device's, for errors. The kernel counts in 32 bits, which wrap.
    """

    def __init__(self, name: str, node: int) -> None:
        self._name = name
        self._node = node
        self._last = 0

    def start(self, total: int) -> None:
        """Count from now on, when the kernel has counted `total` (the file `event` in sysfs)."""
        newest = self._drain()  # of an interrupt since `total` was read
        self._last = total if newest is None else newest

    def take(self) -> int:
        """Interrupts since the last call, 0 if none."""
        counter = self._drain()
        if counter is None:
            return 0
        last, self._last = self._last, counter
        return (counter - last) & 0xFFFF_FFFF

    def _drain(self) -> int | None:
        """The event counter, or None where it has not moved since it was read last."""
        try:
            return int.from_bytes(os.read(self._node, EVENT_BYTES), "little")
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise gone(self._name) from error  # uio_read() in Linux


def gone(name: str) -> DeviceGone:
    """Return the error of a node whose device went away while it was open."""
    return DeviceGone(f"{name}: the UIO node answers no more: unbound or unplugged")


def _numbered(host: Host, folder: str, prefix: str) -> dict[int, str]:
    names = (name for name in host.names(folder) if name.removeprefix(prefix).isdecimal())
    return {int(name.removeprefix(prefix)): f"{folder}/{name}" for name in names}


def _read_node(host: Host, node: str) -> UioNode:
    folder = f"{UIO_CLASS}/{node}"
    return UioNode(
        node=node,
        name=host.read(f"{folder}/name") or "",
        version=host.read(f"{folder}/version") or "",
        device=host.link(f"{folder}/device") or "no parent",
        driver=host.link(f"{folder}/device/driver"),
    )


def _read_map(host: Host, folder: str) -> UioMap:
    address = host.read_int(f"{folder}/addr")
    return UioMap(
        name=host.read(f"{folder}/name") or "",
        address=None if address in _NO_ADDRESS else address,
        size=host.read_int(f"{folder}/size") or 0,
        offset=host.read_int(f"{folder}/offset") or 0,
    )


def _read_ports(host: Host, folder: str) -> PortRange:
    return PortRange(
        name=host.read(f"{folder}/name") or "",
        start=host.read_int(f"{folder}/start") or 0,
        size=host.read_int(f"{folder}/size") or 0,
        kind=host.read(f"{folder}/porttype") or "port_none",
    )


def _listed(nodes: list[UioNode]) -> str:
    return ", ".join(map(str, nodes))
