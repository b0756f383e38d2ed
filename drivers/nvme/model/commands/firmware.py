"""Firmware slots (NVM Express Base Specification 1.4, sections 5.11, 5.12 and 5.14.1.3).

An image for this model is MAGIC, eight characters of revision, and whatever follows.
"""

from __future__ import annotations

from uspace_drivers.nvme.model.task import DWORD_10, Refused, Sent, invalid_field
from uspace_drivers.nvme.spec.commands import CommitAction, FirmwareCommit
from uspace_drivers.nvme.spec.logs import ActiveFirmware, FirmwareSlotLog
from uspace_drivers.nvme.spec.status import Status

MAGIC = b"USPACEFW"
REVISION_SIZE = 8
SLOTS = 3
FIRST = b"1.0     "
LARGEST = 1 << 22
"""Bytes of an image."""


class Firmware:
    """Three slots, of which the first one is in use when the model is made."""

    def __init__(self) -> None:
        self.slots: dict[int, bytes] = {1: FIRST}
        self.active = 1
        self._next = 0
        self._image = bytearray()
        self._ranges: list[tuple[int, int]] = []

    @property
    def revision(self) -> bytes:
        """Of the slot in use: 8 characters."""
        return self.slots[self.active]

    def download(self, sent: Sent, data: bytes) -> None:
        """Take a piece of an image; pieces come in any order and may not overlap."""
        start, end = 4 * sent.cdw11, 4 * sent.cdw11 + len(data)
        if end > LARGEST:
            raise invalid_field(f"an image ends at {LARGEST:#x}", DWORD_10 + 4)
        if any(start < other_end and other < end for other, other_end in self._ranges):
            self.forget()
            raise Refused(Status.OVERLAPPING_RANGE, f"{start:#x} to {end:#x}", byte=DWORD_10)
        self._ranges.append((start, end))
        self._image.extend(bytes(max(0, end - len(self._image))))
        self._image[start:end] = data

    def commit(self, sent: Sent) -> None:
        """Put the image into a slot, or choose the slot that a reset activates, or both."""
        command = FirmwareCommit(sent.cdw10)
        if command.ca not in {
            CommitAction.STORE,
            CommitAction.STORE_AND_ACTIVATE,
            CommitAction.ACTIVATE,
            CommitAction.STORE_AND_ACTIVATE_NOW,
        }:
            raise invalid_field(f"commit action {command.ca!r}", DWORD_10, 3)
        has_image = bool(self._ranges)
        stores = command.ca in {CommitAction.STORE, CommitAction.STORE_AND_ACTIVATE} or (
            command.ca is CommitAction.STORE_AND_ACTIVATE_NOW and has_image
        )
        slot = command.fs or self._free_slot(stores)
        if slot > SLOTS or (not stores and slot not in self.slots):
            raise Refused(Status.INVALID_FIRMWARE_SLOT, f"slot {slot}", byte=DWORD_10)
        if stores:
            self.slots[slot] = self._take_image()
        if command.ca is CommitAction.STORE_AND_ACTIVATE_NOW:
            self.active, self._next = slot, 0
        elif command.ca is not CommitAction.STORE:
            self._next = slot

    def activate(self) -> None:
        """A reset: the slot that was chosen is in use from now on."""
        if self._next:
            self.active, self._next = self._next, 0
        self.forget()

    def forget(self) -> None:
        """Drop what was downloaded."""
        self._image.clear()
        self._ranges.clear()

    def log(self) -> bytes:
        """Page 03h."""
        log = FirmwareSlotLog.array(1)[0]
        log["afi"] = int(ActiveFirmware(active=self.active, next=self._next))
        for slot, revision in self.slots.items():
            start = (slot - 1) * REVISION_SIZE
            log["frs"][start : start + REVISION_SIZE] = list(revision)
        return bytes(log.tobytes())

    def _free_slot(self, stores: bool) -> int:
        """The controller chooses: an empty one, else the next that is not in use."""
        if not stores:
            return self.active
        empty = [slot for slot in range(1, SLOTS + 1) if slot not in self.slots]
        return empty[0] if empty else self.active % SLOTS + 1

    def _take_image(self) -> bytes:
        """The revision of the image that was downloaded."""
        image = bytes(self._image)
        whole = sum(end - start for start, end in self._ranges) == len(image)
        self.forget()
        revision = image[len(MAGIC) : len(MAGIC) + REVISION_SIZE]
        if not whole or not image.startswith(MAGIC) or len(revision) != REVISION_SIZE:
            raise Refused(Status.INVALID_FIRMWARE_IMAGE, f"it has no {MAGIC!r} and revision")
        return revision
