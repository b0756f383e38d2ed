"""Who has the device: one of two equal ones for each side, or one that is handed to and fro."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from uspace_drivers.nvme.driver import Nvme
from uspace_drv import Deadline, HostError, attach
from uspace_drv.bench import Setting
from uspace_drv.bench.hand_over import HandOver, require_equal

FUNCTIONS, DEV = Path("/sys/bus/pci/devices"), Path("/dev")

PATIENCE = 10.0
"""Seconds that the kernel may take until a disk is there."""

LOOK = 0.01

_NAMESPACE = re.compile(r"(nvme\d+)(?:c\d+)?(n\d+)")


class Devices:
    """Gives a side what it needs, and takes it from the other one if there is one device only."""

    def __init__(self, setting: Setting, device: str, hand: HandOver) -> None:
        self._setting, self._device, self._hand = setting, device, hand
        self._attached = ExitStack()
        self._nvme: Nvme | None = None

    def disk(self) -> str:
        """Return the name of the kernel's disk ('nvme0n1'); `HostError` where it gets none."""
        if self._setting.beside is not None:
            return find_disk(self._setting.beside)
        self.close()
        self._hand.to_kernel()
        return find_disk(self._device)

    def driver(self) -> Nvme:
        """Return our driver, attached to the device."""
        if self._nvme is None:
            self._hand.to_user()
            setting = self._setting
            attachment = attach(
                self._device, Nvme, via=setting.via,
                unsafe_dma_without_iommu=setting.unsafe_dma_without_iommu,
            )  # fmt: skip
            self._nvme = self._attached.enter_context(attachment)
            setting.note_way(self._nvme.device.via)
        return self._nvme

    def close(self) -> None:
        """Leave the driver; the device stays where it is."""
        self._nvme = None
        self._attached.close()


@contextmanager
def devices_of(setting: Setting, device: str) -> Iterator[Devices]:
    """Hand out devices, and put them back where they were.

    Refuses as `HandOver` does, and as `require_equal` does if there are two.
    """
    if setting.beside is not None:
        require_equal(device, setting.beside)
    with HandOver(device, setting.via) as hand:
        devices = Devices(setting, device, hand)
        try:
            yield devices
        finally:
            devices.close()


def find_disk(address: str) -> str:
    """Wait for the first disk of a function: the kernel looks for it in the background."""
    deadline = Deadline(PATIENCE)
    while True:
        names = sorted(each.name for each in (FUNCTIONS / address).glob("nvme/nvme*/nvme*"))
        found = [match for match in map(_NAMESPACE.fullmatch, names) if match]
        if found:
            # With several paths, each has a name (nvme0c1n1), and the disk has one (nvme0n1).
            disk = "".join(found[0].groups())
            if (DEV / disk).exists():
                return disk
        if deadline.passed:
            raise HostError(
                f"{address}: the kernel has no disk of it; is it bound to nvme (lspci -k -s "
                f"{address}), and what does dmesg say?"
            )
        time.sleep(LOOK)
