"""Models in a process of their own, as a suite uses them: on a processor, and to raise interrupts.

QEMU docs/interop/vfio-user.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from uspace_drv.backends.vfio_user import VfioUserDevice
from uspace_drv.bench.suites.processors import pin
from uspace_drv.bench.suites.socket_models import RING, STAMP_BAR
from uspace_drv.device import Device
from uspace_drv.models import DeviceModel
from uspace_drv.testing.served import ServedModel


@contextmanager
def serve(
    model: type[DeviceModel], processor: int, *, spin: float = 0.0
) -> Iterator[VfioUserDevice]:
    """Serve a model on one processor and open it; `spin` as for `VfioUserDevice`, for both."""
    served = ServedModel(model, quiet=True).start(*["--busy-poll"] * (spin > 0))
    try:
        pin(served.pid, processor)  # the thread that serves is started for each client
        with closing(VfioUserDevice(str(served.path), spin=spin)) as backend:
            yield backend
    finally:
        served.close()


class RingingModel:
    """The bell of a served model of the class `Shared`: it rings `delay` seconds after."""

    def __init__(self, device: Device, delay: float) -> None:
        self._registers, self._stamp = device.bar(0), device.bar(STAMP_BAR)
        self._delay = int(delay * 1e9)

    def ask(self) -> None:
        """Ask for one, and forget when the last one was."""
        self._stamp.write64(0, 0)
        self._registers.write32(RING, self._delay)

    def stamp(self) -> int:
        """When it was raised; 0 if it was not."""
        return self._stamp.read64(0)
