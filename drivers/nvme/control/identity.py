"""What a controller and its namespaces say of themselves, checked before anything is built on it.

NVM Express Base Specification 1.4, section 5.15.2. A device may say anything: what this driver
divides by, shifts by, or bounds transfers with is looked at here, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from uspace_drivers.nvme.spec.identify import (
    AdminSupport,
    EventSupport,
    IdentifyController,
    IdentifyNamespace,
    LbaFormat,
    NvmSupport,
    SglSupport,
    WriteCache,
    format_index,
    text_of,
    wide_of,
)
from uspace_drv import DeviceError, UnsupportedError

LEAST_SHIFT, MOST_SHIFT = 9, 16
"""Blocks of 512 bytes to 64 KiB."""

MOST_MDTS = 32
"""Powers of two pages that are believed of MDTS; more is as good as no limit."""

COMMAND_SHIFT, COMPLETION_SHIFT = 6, 4
"""Queue entries of 64 and of 16 bytes."""


@dataclass(frozen=True)
class ControllerIdentity:
    """A controller, from CNS 01h. `transfer_limit` is in bytes, None where there is none."""

    serial: str
    model: str
    firmware: str
    subsystem: str
    vendor: int
    controller: int
    version: str
    namespaces: int
    """The largest id that a namespace may have."""
    transfer_limit: int | None
    capacity: int
    """Bytes of all namespaces and what is free, 0 where it does not say."""
    event_limit: int
    """Async Event Requests that may be in flight."""
    abort_limit: int
    shutdown_time: float
    """Seconds that a shutdown may take, 0 where it does not say."""
    error_entries: int
    firmware_slots: int
    firmware_granularity: int
    """Bytes that every piece of a firmware image has, 0 where any dword will do."""
    admin_support: AdminSupport
    io_support: NvmSupport
    event_support: EventSupport
    sgl_support: SglSupport
    write_cache: WriteCache

    @property
    def has_volatile_cache(self) -> bool:
        """Whether data may be lost with the power until it is flushed."""
        return self.write_cache.present


@dataclass(frozen=True)
class NamespaceIdentity:
    """A namespace, from CNS 00h; sizes in blocks of `block_size` bytes."""

    id: int
    block_size: int
    blocks: int
    capacity: int
    used: int
    format: int
    formats: tuple[LbaFormat, ...]
    """Those that it can be formatted with, by index; `lbads` 0 where there is none."""
    metadata: int
    """Bytes to each block; this driver moves none."""
    protection: int
    """Type of the protection information, 0 for none."""
    boundary: int
    """Blocks that no command should cross a multiple of, 0 where that is all the same."""
    nguid: str
    eui64: str
    write_protected: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blocks * self.block_size

    @property
    def shift(self) -> int:
        """A block has 1 << shift bytes."""
        return self.block_size.bit_length() - 1

    def require_plain(self, where: str) -> None:
        """Raise `UnsupportedError` where blocks carry metadata, which this driver does not move."""
        if self.metadata or self.protection:
            plain = [
                str(index) for index, each in enumerate(self.formats) if each.lbads and not each.ms
            ]
            raise UnsupportedError(
                f"{where} namespace {self.id}: its blocks have {self.metadata} bytes of metadata "
                f"(protection type {self.protection}), which this driver does not move; formatting "
                f"it loses its data; LBA formats without metadata: {', '.join(plain) or 'none'}"
            )


def controller_identity(where: str, found: Any, page_size: int) -> ControllerIdentity:
    """Check what CNS 01h returned; `page_size` is that of CAP.MPSMIN in bytes.

    Raises `DeviceError` for what cannot be, `UnsupportedError` for what this driver cannot do.
    """
    _check_entries(where, "SQES", int(found["sqes"]), COMMAND_SHIFT)
    _check_entries(where, "CQES", int(found["cqes"]), COMPLETION_SHIFT)
    if int(found["cntrltype"]) > 1:
        raise UnsupportedError(
            f"{where}: controller type {int(found['cntrltype'])}: it has no I/O queues"
        )
    if not int(found["nn"]):
        raise DeviceError(f"{where}: says that it can have no namespace at all (NN=0)")
    mdts, members = int(found["mdts"]), IdentifyController
    return ControllerIdentity(
        serial=text_of(found["sn"]),
        model=text_of(found["mn"]),
        firmware=text_of(found["fr"]),
        subsystem=text_of(found["subnqn"]),
        vendor=int(found["vid"]),
        controller=int(found["cntlid"]),
        version=_version(int(found["ver"])),
        namespaces=int(found["nn"]),
        transfer_limit=page_size << mdts if 0 < mdts <= MOST_MDTS else None,
        capacity=wide_of(found["tnvmcap"]),
        event_limit=int(found["aerl"]) + 1,
        abort_limit=int(found["acl"]) + 1,
        shutdown_time=int(found["rtd3e"]) * 1e-6,
        error_entries=int(found["elpe"]) + 1,
        firmware_slots=members.frmw.decode(found["frmw"]).slots,
        firmware_granularity=0 if int(found["fwug"]) in {0, 255} else int(found["fwug"]) * 4096,
        admin_support=members.oacs.decode(found["oacs"]),
        io_support=members.oncs.decode(found["oncs"]),
        event_support=members.oaes.decode(found["oaes"]),
        sgl_support=members.sgls.decode(found["sgls"]),
        write_cache=members.vwc.decode(found["vwc"]),
    )


def namespace_identity(where: str, number: int, found: Any) -> NamespaceIdentity | None:
    """Check what CNS 00h returned; None where there is no such namespace.

    Raises `DeviceError` where it contradicts itself.
    """
    if not int(found["nsze"]):
        return None
    name = f"{where} namespace {number}"
    index, count = format_index(found), int(found["nlbaf"]) + 1
    formats = tuple(LbaFormat(int(each)) for each in found["lbaf"][: min(count, 64)])
    if index >= len(formats):
        raise DeviceError(f"{name}: has LBA format {index}, but only {count} are declared")
    shift, blocks = formats[index].lbads, int(found["nsze"])
    if not LEAST_SHIFT <= shift <= MOST_SHIFT:
        raise DeviceError(
            f"{name}: blocks of 1 << {shift} bytes; expected {LEAST_SHIFT} to {MOST_SHIFT}"
        )
    if blocks << shift >= 1 << 64:
        raise DeviceError(f"{name}: {blocks} blocks of {1 << shift} bytes are more than 2**64")
    if int(found["ncap"]) > blocks:
        raise DeviceError(f"{name}: a capacity of {int(found['ncap'])} of {blocks} blocks")
    return NamespaceIdentity(
        id=number,
        block_size=1 << shift,
        blocks=blocks,
        capacity=int(found["ncap"]),
        used=int(found["nuse"]),
        format=index,
        formats=formats,
        metadata=formats[index].ms,
        protection=int(IdentifyNamespace.dps.decode(found["dps"])) & 7,
        boundary=int(found["noiob"]),
        nguid=_hexadecimal(found["nguid"]),
        eui64=_hexadecimal(found["eui64"]),
        write_protected=bool(int(found["nsattr"]) & 1),
    )


def _check_entries(where: str, name: str, sizes: int, wanted: int) -> None:
    if not sizes & 0xF <= wanted <= sizes >> 4:
        raise UnsupportedError(
            f"{where}: queue entries of 1 << {sizes & 0xF} to 1 << {sizes >> 4} bytes ({name}); "
            f"this driver has 1 << {wanted}"
        )


def _version(number: int) -> str:
    return f"{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"


def _hexadecimal(identifier: Any) -> str:
    """Return an identifier as digits, nothing where it is all zeroes."""
    digits = bytes(identifier)
    return digits.hex() if any(digits) else ""
