"""A split virtqueue, the driver's side (OASIS Virtual I/O Device 1.2, section 2.7).

The driver keeps its own count of what it has offered. What the device writes is only compared
with that, so no index or length of its making leads anywhere else.
"""

from __future__ import annotations

from uspace_drivers.virtio_rng.registers import (
    NO_NOTICE,
    AvailableEntry,
    Descriptor,
    DescriptorFlags,
    RingHeader,
    UsedEntry,
)
from uspace_drv import Device, DeviceError, Direction, collect, publish


class Virtqueue:
    """A queue of `size` buffers (a power of two) of `buffer_size` bytes, which the device fills.

    `asked` is the number of bytes that the device was asked for and has not answered yet.
    """

    def __init__(self, device: Device, size: int, buffer_size: int) -> None:
        self.address = device.address
        self.size, self.buffer_size, self.asked = size, buffer_size, 0
        dma, header = device.dma, RingHeader.SIZE
        self.descriptors = dma.alloc(Descriptor.dtype, size, Direction.TO_DEVICE)
        driver_size = header + size * AvailableEntry.SIZE
        self.driver_area = dma.alloc("u1", driver_size, Direction.TO_DEVICE)
        # The device reads back what it has written there.
        self.device_area = dma.alloc("u1", header + size * UsedEntry.SIZE)
        self.buffers = dma.alloc("u1", (size, buffer_size), Direction.FROM_DEVICE)
        self.descriptors.array["address"] = [
            self.buffers.iova + number * buffer_size for number in range(size)
        ]
        self.descriptors.array["flags"] = DescriptorFlags.WRITE
        # Columns: one element of a column is read and written faster than a whole structure.
        self._wanted = self.descriptors.array["length"]
        available = RingHeader.view(self.driver_area.array[:header])
        self._flags, self._index = available["flags"], available["index"]
        self._offered = AvailableEntry.view(self.driver_area.array[header:])["id"]
        self._used_index = RingHeader.view(self.device_area.array[:header])["index"]
        returned = UsedEntry.view(self.device_area.array[header:])
        self._returned, self._written = returned["id"], returned["length"]
        self._free = list(range(size))
        self._lengths: dict[int, int] = {}  # of the buffers that the device has
        self._next_offered = self._next_used = 0

    def write(self, index: int) -> None:
        """Store the index of the available ring: the doorbell that `publish` rings."""
        self._index[0] = index

    def want_interrupts(self, wanted: bool) -> None:
        """Ask the device to interrupt, or not to: a hint, it may do either.

        Before it is waited for, `collect` once more with `after_stores`: the device may have been
        ahead of the wish (section 2.7.14).
        """
        self._flags[0] = 0 if wanted else NO_NOTICE

    def offer(self, length: int) -> bool:
        """Give the device a buffer to write up to `length` bytes to; False if none is free."""
        if not self._free:
            return False
        number = self._free.pop()
        length = min(length, self.buffer_size)
        self._wanted[number] = length
        self._lengths[number] = length
        self.asked += length
        self._offered[self._next_offered % self.size] = number
        self._next_offered = (self._next_offered + 1) & 0xFFFF
        publish(self, self._next_offered)
        return True

    def collect(self, *, after_stores: bool = False) -> bytes:
        """Take what the device has written, and its buffers back; empty if that is nothing.

        `after_stores`: look when it has seen all that was written before (`want_interrupts`).
        """
        index = collect(lambda: int(self._used_index[0]), after_stores=after_stores)
        count = (index - self._next_used) & 0xFFFF
        if count > len(self._lengths):
            raise DeviceError(
                f"{self.address}: the used ring went on from {self._next_used} to {index}, but the"
                f" device has {len(self._lengths)} buffers"
            )
        return b"".join(self._take() for _ in range(count))

    def _take(self) -> bytes:
        """Take one buffer back."""
        place = self._next_used % self.size
        number, length = int(self._returned[place]), int(self._written[place])
        if number not in self._lengths:
            raise DeviceError(f"{self.address}: gave back buffer {number}, which it does not have")
        given = self._lengths[number]
        if not 1 <= length <= given:
            raise DeviceError(
                f"{self.address}: {length} bytes in buffer {number}; expected 1 to {given}"
            )
        self._next_used = (self._next_used + 1) & 0xFFFF
        del self._lengths[number]
        self._free.append(number)
        self.asked -= given
        return self.buffers.array[number, :length].tobytes()

    def close(self) -> None:
        """Take the memory away from the device, which was reset before."""
        for memory in (self.buffers, self.device_area, self.driver_area, self.descriptors):
            memory.close()
