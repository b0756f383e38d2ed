"""What Linux shows of a PCI function in sysfs, for a driver to use: BARs, ROM, configuration space.

Linux Documentation/PCI/sysfs-pci.rst. Memory is mapped from `resourceN`, or write-combined from
`resourceN_wc`; I/O ports are read and written through `resourceN`.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from uspace_drv.backends.refusal import refused
from uspace_drv.errors import HostError, NoDevice, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.pci.config import HEADER_SIZE, ConfigHeader
from uspace_drv.pci.host import Host
from uspace_drv.pci.sysfs import DEVICES, PciFunction, Resource, ResourceFlag
from uspace_drv.teardown import Teardown

_BAR_COUNT = 6


class ResourceFiles:
    """The files of one function; `way_out` gets what is to be closed in the end.

    Windows are the caller's to close, before that; `config` is closed with the rest.
    """

    def __init__(self, function: PciFunction, host: Host, way_out: Teardown) -> None:
        self.address = str(function.address)
        self._function = function
        self._host = host
        self._folder = f"{DEVICES}/{self.address}"
        self._way_out = way_out
        self._ports: dict[int, int] = {}
        fd = self._open("config")
        way_out.push("close configuration space", lambda: os.close(fd))
        # The kernel shows an ordinary user the header alone (drivers/pci/pci-sysfs.c).
        size = os.fstat(fd).st_size if os.pread(fd, 1, HEADER_SIZE) else HEADER_SIZE
        self.config = Window.over_file(f"{self.address} config", fd, 0, size)
        way_out.push("close its window", self.config.close)

    def enable(self) -> None:
        """Let the function answer in every BAR that it has."""
        has_ports = any(bar.is_io for bar in self._bars.values())
        command = ConfigHeader(self.config).command
        if has_ports:
            command.update(memory_space_enable=True, io_space_enable=True)
        else:
            command.update(memory_space_enable=True)

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR, of memory and of I/O ports."""
        return {number: bar.size for number, bar in self._bars.items()}

    def bar(self, number: int) -> Window:
        """Map a BAR of memory; every access to I/O ports is a system call of its own."""
        bar = self._bar(number)
        name = f"{self.address} bar {number}"
        if bar.is_io:
            return Window.over_file(name, self._open_ports(number), 0, bar.size)
        return self._map(name, f"resource{number}", bar)

    def write_combined(self, number: int) -> Window:
        """Map a BAR where stores may be joined, and be late: for memory, never for registers.

        `UnsupportedError` where the kernel has no such mapping: the BAR has to be prefetchable.
        """
        bar = self._bar(number)
        file = f"resource{number}_wc"
        if not self._host.exists(f"{self._folder}/{file}"):
            prefetchable = ResourceFlag.PREFETCH in bar.flags
            kind = "on a machine without PAT" if prefetchable else "not prefetchable"
            raise UnsupportedError(
                f"{self.address} bar {number}: no write-combining: it is {kind}; use bar({number})"
            )
        return self._map(f"{self.address} bar {number} write-combined", file, bar)

    def rom(self) -> Window:
        """Read the expansion ROM, which is switched on for that; a copy, read-only."""
        if not any(each.number == _BAR_COUNT for each in self._function.resources):
            raise NoDevice(f"{self.address}: no expansion ROM")
        fd = self._open("rom")
        try:
            with self._rom_enabled(fd):
                content = _read_all(fd)
        except OSError as error:
            raise HostError(
                f"{self.address} rom: the kernel does not read it: {error.strerror}; the function "
                "may show no valid ROM (55h AAh, PCI Firmware Specification, section 5.1)",
                cause=error,
            ) from error
        finally:
            os.close(fd)
        return Window.over_buffer(f"{self.address} rom", memoryview(content).toreadonly())

    @property
    def can_reset(self) -> bool:
        """Whether the kernel knows a way to reset it, and lets this user do so."""
        return bool(self._function.reset_methods) and self._host.may_write(f"{self._folder}/reset")

    def reset(self) -> None:
        """Reset the function; the kernel saves and restores configuration space."""
        self._host.write(f"{self._folder}/reset", "1")

    @property
    def _bars(self) -> Mapping[int, Resource]:
        return {bar.number: bar for bar in self._function.resources if bar.number < _BAR_COUNT}

    def _bar(self, number: int) -> Resource:
        if number not in self._bars:
            known = ", ".join(map(str, self._bars)) or "none"
            raise NoDevice(f"{self.address}: no BAR {number}; it has {known}")
        return self._bars[number]

    def _map(self, name: str, file: str, bar: Resource) -> Window:
        """Map whole pages, and show what is the BAR's own of them."""
        fd = self._open(file)
        try:
            inside = bar.start % mmap.PAGESIZE
            if not inside:
                return Window.map(name, fd, 0, bar.size)
            pages = Window.map(name, fd, 0, inside + bar.size)
            return Window.over_buffer(name, pages.memory()[inside:])
        finally:
            os.close(fd)

    def _open_ports(self, number: int) -> int:
        """Open the file behind a window of ports once, as long as the backend is open."""
        if number not in self._ports:
            fd = self._ports[number] = self._open(f"resource{number}")
            self._way_out.push(f"close the ports of BAR {number}", lambda: os.close(fd))
        return self._ports[number]

    def _open(self, name: str) -> int:
        path = f"{self._folder}/{name}"
        try:
            return os.open(self._host.path(path), os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise refused(path, self.address, error) from error

    @contextmanager
    def _rom_enabled(self, fd: int) -> Iterator[None]:
        os.pwrite(fd, b"1", 0)
        try:
            yield
        finally:
            os.pwrite(fd, b"0\n", 0)  # two bytes, else it stays on (pci_write_rom() in Linux)


def _read_all(fd: int) -> bytes:
    pieces = []
    offset = 0
    while piece := os.pread(fd, mmap.PAGESIZE, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)
