"""What batches are made of: a request and its result, as numpy dtypes (the structures of hot.h).

Fields and limits follow the NVM Express Base Specification 1.4, section 6 (NVM command set).
"""

from enum import IntFlag

from uspace_drv.layout import Layout, u8, u16, u32, u64

IN_FLIGHT, NOT_SHOWN, FULL = -1, -2, -3
"""What the engine's `transfer` returns in place of a status: the controller has not answered yet,
the data lies in no DMA memory, the queue has no room."""


class RequestFlags(IntFlag):
    """How a request is to be done."""

    FORCE_UNIT_ACCESS = 1
    """It is on the medium before it completes."""
    LIMITED_RETRY = 2
    """The controller should give up early rather than retry."""
    DEALLOCATE = 4
    """Write zeroes, dataset management: the blocks may be taken back."""


class Request(Layout, size=40):
    """One I/O command for `Queue.submit` and `Queue.run`; members that are reserved stay 0."""

    opcode = u8(0, "an I/O Opcode")
    flags = u8(1, "RequestFlags")
    reserved = u16(2)
    namespace = u32(4, "its id")
    lba = u64(8, "the first block")
    data = u64(16, "IOVA, a multiple of 4; dataset management: of the ranges")
    tag = u64(24, "anything: it comes back in the result")
    blocks = u32(32, "how many, from 1; dataset management: how many ranges")
    attributes = u32(36, "dataset management: command dword 11, else 0")


class Result(Layout, size=24):
    """What `Queue.poll` and `Queue.run` fill in."""

    tag = u64(0, "the request's")
    result = u64(8, "dwords 0 and 1 of the completion")
    status = u16(16, "15 bits without the phase, 0 is good")
    reserved = u16(18)
    nanoseconds = u32(20, "how long it took, where the queue is `timed`; else 0")
