"""A driver for the virtio entropy device (OASIS Virtual I/O Device 1.2, 3.1, 4.1 and 5.4)."""

from __future__ import annotations

from threading import Lock

from uspace_drivers.virtio_rng.registers import NO_VECTOR, DeviceStatus, Feature
from uspace_drivers.virtio_rng.transport import Transport
from uspace_drivers.virtio_rng.virtqueue import Virtqueue
from uspace_drv import (
    Deadline,
    DeviceGone,
    DeviceTimeout,
    Driver,
    IrqKind,
    PciId,
    RegisterValueError,
    UspaceError,
    publish,
)
from uspace_drv.verbs import Size

BUFFERS, BUFFER_SIZE = 8, 4096
NEEDED = Feature.VERSION_1 | Feature.ACCESS_PLATFORM
UNDERSTOOD = NEEDED | Feature.ORDER_PLATFORM
POLLS = 256
"""So often the used ring, which is memory, is read before the device is asked how it is."""


class VirtioRng(Driver):
    """A device that gives random bytes (virtio's entropy device)."""

    id_table = [PciId(0x1AF4, 0x1044)]

    def probe(self) -> None:
        """Reset it, agree on features, and set its one queue up (section 3.1.1)."""
        self._lock = Lock()
        self.transport = Transport(self.device)
        self.common = self.transport.common
        self._reset_device()
        try:
            self._bring_up()
        except BaseException as error:  # whatever it is, and a signal's handler may raise, too
            self._say_failed(error)
            raise

    def remove(self) -> None:
        """Reset it, which ends all that it does, and take its memory back."""
        self._reset_device()
        self.queue.close()

    def reset(self) -> None:
        """Start again after a reset of the function."""
        self.queue.close()
        self.probe()

    def read(self, count: Size, timeout: float = 10.0, *, polled: bool = False) -> bytes:
        """Read so many random bytes; `polled` keeps the processor busy instead of sleeping.

        Raises `DeviceTimeout` when they have not come within `timeout` seconds.
        """
        if count < 0:
            raise RegisterValueError(f"{self.device.address}: {count} bytes cannot be read")
        deadline, found = Deadline(timeout), bytearray()
        polled = polled or not self.device.irq_count
        with self._lock:
            self.queue.want_interrupts(not polled)
            while len(found) < count:
                if found:  # a device may give one byte at a time
                    self._check_time(deadline)
                self._ask_for(count - len(found))
                found += self.queue.collect(after_stores=True) or self._wait(deadline, polled)
        return bytes(found[:count])

    def self_test(self) -> None:
        """Read twice as much as all buffers hold, by interrupt and polled."""
        size = 2 * BUFFERS * BUFFER_SIZE
        by_interrupt, polled = self.read(size, 1.0), self.read(size, 1.0, polled=True)
        self.require(by_interrupt != polled, "it gave the same bytes twice")
        for data in (by_interrupt, polled):
            seen = len(set(data))
            self.require(seen == 256, f"{size} bytes had only {seen} different values")

    def _ask_for(self, count: int) -> None:
        """Have as many bytes on their way as are wanted, or as there are buffers for."""
        wanted = count - self.queue.asked
        offered = False
        while wanted > 0 and self.queue.offer(wanted):
            offered, wanted = True, count - self.queue.asked
        if offered:
            publish(self.doorbell.queue, 0)

    def _wait(self, deadline: Deadline, polled: bool) -> bytes:
        """Wait for bytes; `DeviceError` if the device has given up meanwhile."""
        while not (data := self._poll() if polled else self._sleep(deadline)):
            self._check_status()
            self._check_time(deadline)  # a device may interrupt for nothing, and again
        return data

    def _poll(self) -> bytes:
        for _ in range(POLLS):
            data = self.queue.collect()
            if data:
                return data
        return b""

    def _sleep(self, deadline: Deadline) -> bytes:
        try:
            self.done.wait(deadline)
        except DeviceTimeout:
            self._check_status()  # there may be a better reason
            raise
        if self.done.kind is IrqKind.INTX:
            self.transport.isr.status.read()
        return self.queue.collect()

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed:
            raise DeviceTimeout(
                f"{self.device.address}: too few random bytes within {deadline.timeout:.3f} s"
            )

    def _check_status(self) -> None:
        status = self.common.device_status.read()
        self.require(
            status.driver_ok and not status.device_needs_reset, f"it has given up: {status}"
        )

    def _reset_device(self) -> None:
        """Reset it: it holds no memory of ours any more once it reads 0 (section 4.1.4.3.1)."""
        self.common.device_status.write(DeviceStatus())
        self.common.device_status.wait(DeviceStatus(), timeout=1.0)

    def _bring_up(self) -> None:
        self.common.device_status.write(acknowledge=True)
        self.common.device_status.update(driver=True)
        self._agree_on_features()
        self._set_up_queue()
        self.common.device_status.update(driver_ok=True)

    def _say_failed(self, error: BaseException) -> None:
        """Let the device know that there is no going on before a reset (section 3.1.1)."""
        if isinstance(error, DeviceGone):
            return
        try:
            self.common.device_status.update(failed=True)
        except UspaceError as failure:
            error.add_note(f"and it could not be told so: {failure}")

    def _agree_on_features(self) -> None:
        offered = 0
        for half in (0, 1):
            self.common.device_feature_select.write(half)
            offered |= self.common.device_feature.read() << 32 * half
        # Without the second one the device would take our addresses for those of memory itself,
        # behind the back of an IOMMU (section 6.1).
        missing = NEEDED & ~offered
        self.require(
            not missing, f"no {missing.name}; QEMU wants disable-legacy=on,iommu_platform=on"
        )
        for half in (0, 1):
            self.common.driver_feature_select.write(half)
            self.common.driver_feature.write((offered & UNDERSTOOD) >> 32 * half & 0xFFFF_FFFF)
        self.common.device_status.update(features_ok=True)
        status = self.common.device_status.read()
        self.require(status.features_ok, f"it does not agree on features: {status}")

    def _set_up_queue(self) -> None:
        """Set queue 0 up (section 4.1.5.1.3), with the interrupt that there is."""
        common = self.common
        common.queue_select.write(0)
        most = common.queue_size.read()
        self.require(
            most > 0 and most & most - 1 == 0, f"its queue has {most} entries: no power of two"
        )
        self.doorbell = self.transport.doorbell(common.queue_notify_off.read())
        self._set_up_interrupt()
        self.queue = Virtqueue(self.device, min(most, BUFFERS), BUFFER_SIZE)
        common.queue_size.write(self.queue.size)
        common.queue_desc.write(self.queue.descriptors.iova)
        common.queue_driver.write(self.queue.driver_area.iova)
        common.queue_device.write(self.queue.device_area.iova)
        common.queue_enable.write(1)

    def _set_up_interrupt(self) -> None:
        """Let the queue use vector 0, for changes too; INTx needs no word (section 4.1.5.1.2)."""
        if not self.device.irq_count:
            return
        self.done = self.device.irq(0)
        if self.done.kind is IrqKind.MSIX:
            for vector in (self.common.config_msix_vector, self.common.queue_msix_vector):
                vector.write(0)
                found = vector.read()
                self.require(found != NO_VECTOR, "it has no resources for an interrupt")
                self.require(found == 0, f"it was told vector 0 and says {found}")
