"""What Identify returns (NVM Express Base Specification 1.4, section 5.15).

Members have the specification's names in lower case, those with bits of their own a register:
`IdentifyController.oncs.decode(found["oncs"]).compare`. Texts go through `text_of`, 128-bit
numbers through `wide_of`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, SupportsInt

from uspace_drv import DeviceError, Layout, Register, bit, field
from uspace_drv.layout import u8, u16, u32, u64

SIZE = 4096
"""Bytes of every structure that Identify returns."""


class EntrySize(Register, width=8):
    """SQES and CQES: sizes of queue entries, as powers of two."""

    most = field(7, 4)
    least = field(3, 0)


class AdminSupport(Register, width=16):
    """OACS: optional admin commands."""

    lba_status = bit(9)
    doorbell_buffer = bit(8)
    virtualization = bit(7)
    management_interface = bit(6)
    directives = bit(5)
    self_test = bit(4)
    namespace_management = bit(3)
    firmware = bit(2)
    format = bit(1)
    security = bit(0)


class NvmSupport(Register, width=16):
    """ONCS: optional I/O commands and features."""

    verify = bit(7)
    timestamp = bit(6)
    reservations = bit(5)
    save = bit(4, "features can be saved and have defaults")
    write_zeroes = bit(3)
    dataset_management = bit(2)
    write_uncorrectable = bit(1)
    compare = bit(0)


class EventSupport(Register):
    """OAES: asynchronous events that there may be beside those of errors and health."""

    endurance_group = bit(14)
    lba_status = bit(13)
    predictable_latency = bit(12)
    ana = bit(11)
    firmware_activation = bit(9)
    namespace_attributes = bit(8)


class FirmwareSupport(Register, width=8):
    """FRMW: firmware slots."""

    without_reset = bit(4, "can be activated without a reset")
    slots = field(3, 1)
    first_read_only = bit(0)


class LogSupport(Register, width=8):
    """LPA: what Get Log Page can do."""

    persistent_events = bit(4)
    telemetry = bit(3)
    extended = bit(2, "32-bit lengths, and offsets")
    effects = bit(1, "has the page of command effects")
    smart_by_namespace = bit(0)


class FormatSupport(Register, width=8):
    """FNA: what Format NVM does."""

    cryptographic = bit(2, "can erase by forgetting the key")
    erase_all = bit(1, "secure erase hits all namespaces")
    format_all = bit(0, "a format hits all namespaces")


class WriteCache(Register, width=8):
    """VWC."""

    flush_all = field(2, 1, "3: Flush takes all namespaces at once, 2: it does not")
    present = bit(0, "there is a volatile write cache")


class SglSupport(Register):
    """SGLS."""

    offset_addresses = bit(20)
    metadata_segment = bit(19)
    longer_than_data = bit(18)
    metadata_anywhere = bit(17)
    bit_bucket = bit(16)
    keyed = bit(2)
    support = field(1, 0, "0: none, 1: any alignment, 2: dwords only")


class IdentifyController(Layout, size=SIZE):
    """CNS 01h, figure 247."""

    vid = u16(0, "PCI vendor")
    ssvid = u16(2, "PCI subsystem vendor")
    sn = u8(4, "serial number", count=20)
    mn = u8(24, "model number", count=40)
    fr = u8(64, "firmware revision", count=8)
    rab = u8(72, "recommended arbitration burst, power of two")
    ieee = u8(73, "vendor's OUI", count=3)
    cmic = u8(76, "multi-path, several controllers")
    mdts = u8(77, "most data of a command: smallest memory page << mdts bytes; 0: no limit")
    cntlid = u16(78, "controller id")
    ver = u32(80, "version, as in VS")
    rtd3r = u32(84, "µs to resume from D3")
    rtd3e = u32(88, "µs to enter D3: how long a shutdown may take")
    oaes = u32(92, EventSupport)
    ctratt = u32(96, "attributes")
    rrls = u16(100, "read recovery levels")
    cntrltype = u8(111, "1: I/O, 2: discovery, 3: administrative")
    fguid = u8(112, "of the FRU", count=16)
    crdt = u16(128, "retry delays 1 to 3, in 100 ms", count=3)
    oacs = u16(256, AdminSupport)
    acl = u8(258, "aborts at once, less one")
    aerl = u8(259, "asynchronous event requests at once, less one")
    frmw = u8(260, FirmwareSupport)
    lpa = u8(261, LogSupport)
    elpe = u8(262, "entries of the error log, less one")
    npss = u8(263, "power states, less one")
    avscc = u8(264)
    apsta = u8(265, "bit 0: changes power states by itself")
    wctemp = u16(266, "K, warning")
    cctemp = u16(268, "K, critical")
    mtfa = u16(270, "longest firmware activation, in 100 ms")
    hmpre = u32(272, "preferred host memory buffer, in 4 KiB")
    hmmin = u32(276, "smallest host memory buffer, in 4 KiB")
    tnvmcap = u64(280, "total bytes", count=2)
    unvmcap = u64(296, "bytes in no namespace", count=2)
    rpmbs = u32(312)
    edstt = u16(316, "minutes of an extended self-test")
    dsto = u8(318)
    fwug = u8(319, "firmware comes in pieces of 4 KiB times this; 0: unknown, 255: any")
    kas = u16(320, "granularity of keep alive, in 100 ms; 0: none")
    hctma = u16(322)
    mntmt = u16(324, "K")
    mxtmt = u16(326, "K")
    sanicap = u32(328)
    hmminds = u32(332)
    hmmaxd = u16(336)
    nsetidmax = u16(338)
    endgidmax = u16(340)
    anatt = u8(342)
    anacap = u8(343)
    anagrpmax = u32(344)
    nanagrpid = u32(348)
    pels = u32(352, "persistent event log, in 64 KiB")
    sqes = u8(512, EntrySize)
    cqes = u8(513, EntrySize)
    maxcmd = u16(514)
    nn = u32(516, "largest namespace id")
    oncs = u16(520, NvmSupport)
    fuses = u16(522, "bit 0: compare and write")
    fna = u8(524, FormatSupport)
    vwc = u8(525, WriteCache)
    awun = u16(526, "blocks written at once or not at all, less one")
    awupf = u16(528, "the same when the power fails")
    nvscc = u8(530)
    nwpc = u8(531, "write protection")
    acwu = u16(532)
    sgls = u32(536, SglSupport)
    mnan = u32(540, "most namespaces; 0: nn")
    subnqn = u8(768, "qualified name of the subsystem, UTF-8", count=256)
    psd = u8(2048, "32 of PowerState", count=1024)
    vs = u8(3072, "vendor specific", count=1024)


class PowerFlags(Register, width=8):
    """Byte 3 of a power state."""

    nops = bit(1, "takes no I/O")
    mxps = bit(0, "mp counts 0.1 mW, else 10 mW")


class PowerState(Layout, size=32):
    """A power state, figure 248: `PowerState.view(found["psd"])`."""

    mp = u16(0, "most power")
    flags = u8(3, PowerFlags)
    enlat = u32(4, "µs to enter")
    exlat = u32(8, "µs to leave")
    rrt = u8(12, "relative read throughput")
    rrl = u8(13, "relative read latency")
    rwt = u8(14, "relative write throughput")
    rwl = u8(15, "relative write latency")
    idlp = u16(16, "idle power")
    ips = u8(18, "its scale, bits 7:6")
    actp = u16(20, "active power")
    aps = u8(22, "its scale, bits 7:6, and workload, bits 2:0")


class Performance(IntEnum):
    """LbaFormat.rp."""

    BEST = 0
    BETTER = 1
    GOOD = 2
    DEGRADED = 3


class LbaFormat(Register):
    """An LBA format, figure 246."""

    rp = field(25, 24, Performance)
    lbads = field(23, 16, "a block has 1 << lbads bytes; 0: this format does not exist")
    ms = field(15, 0, "bytes of metadata to each block")


class FormattedSize(Register, width=8):
    """FLBAS: which format the namespace has."""

    high = field(6, 5, "bits 5:4 of the index (from 2.0 on)")
    extended = bit(4, "metadata comes with the data, at the end of each block")
    low = field(3, 0, "bits 3:0 of the index")


class NamespaceFeatures(Register, width=8):
    """NSFEAT."""

    optimal = bit(4, "npwg, npwa, npdg, npda, nows hold")
    uid_reuse = bit(3, "nguid and eui64 are never used again")
    deallocated_error = bit(2, "reads of deallocated blocks can fail on demand")
    atomic = bit(1, "nawun, nawupf, nacwu hold")
    thin = bit(0, "thin provisioning")


class Deallocation(Register, width=8):
    """DLFEAT: what deallocated blocks are."""

    guard = bit(4)
    write_zeroes = bit(3, "Write Zeroes deallocates on demand")
    reads = field(2, 0, "0: unknown, 1: all zeroes, 2: all ones")


class IdentifyNamespace(Layout, size=SIZE):
    """CNS 00h, figure 245; also what Namespace Management creates a namespace from."""

    nsze = u64(0, "size, in blocks")
    ncap = u64(8, "capacity: blocks that can be in use at once")
    nuse = u64(16, "blocks in use")
    nsfeat = u8(24, NamespaceFeatures)
    nlbaf = u8(25, "LBA formats, less one")
    flbas = u8(26, FormattedSize)
    mc = u8(27, "bit 0: metadata with the data, bit 1: apart")
    dpc = u8(28, "protection information: capabilities")
    dps = u8(29, "protection information: type in bits 2:0")
    nmic = u8(30, "bit 0: may be attached to several controllers")
    rescap = u8(31)
    fpi = u8(32, "bit 7: a format tells its progress, bits 6:0: percent left")
    dlfeat = u8(33, Deallocation)
    nawun = u16(34)
    nawupf = u16(36)
    nacwu = u16(38)
    nabsn = u16(40)
    nabo = u16(42)
    nabspf = u16(44)
    noiob = u16(46, "I/O boundary, in blocks")
    nvmcap = u64(48, "bytes", count=2)
    npwg = u16(64, "write granularity, in blocks less one")
    npwa = u16(66, "write alignment, in blocks less one")
    npdg = u16(68, "deallocate granularity, in blocks less one")
    npda = u16(70, "deallocate alignment, in blocks less one")
    nows = u16(72, "write size, in blocks less one")
    anagrpid = u32(92)
    nsattr = u8(99, "bit 0: write protected")
    nvmsetid = u16(100)
    endgid = u16(102)
    nguid = u8(104, "globally unique, big-endian", count=16)
    eui64 = u8(120, "IEEE extended unique identifier, big-endian", count=8)
    lbaf = u32(128, LbaFormat, "1.4 has 16 of them, 2.0 has 64", count=64)
    vs = u8(384, "vendor specific", count=3712)


class DescriptorType(IntEnum):
    """NIDT, figure 249: what a namespace is identified by."""

    EUI64 = 1
    NGUID = 2
    UUID = 3
    CSI = 4


class NamespaceDescriptor(Layout, size=4):
    """In front of each identifier of the list that CNS 03h returns."""

    nidt = u8(0, "DescriptorType")
    nidl = u8(1, "bytes of the identifier that follows")


def text_of(characters: Iterable[SupportsInt]) -> str:
    """Return an ASCII field as text, without the spaces or zeros that fill it up.

    A device may say anything: what is not printable comes back as `?`.
    """
    text = bytes(int(each) for each in characters).rstrip(b" \0")
    return "".join(chr(each) if 0x20 <= each < 0x7F else "?" for each in text)


def wide_of(halves: Iterable[SupportsInt]) -> int:
    """Return a 128-bit number from its lower and its upper half."""
    low, high = halves
    return int(high) << 64 | int(low)


def format_index(namespace: Any) -> int:
    """Return which LBA format a namespace has, from its FLBAS."""
    size = IdentifyNamespace.flbas.decode(namespace["flbas"])
    # The upper bits mean something only where there are more formats than 1.4 has.
    return size.low | (size.high << 4 if namespace["nlbaf"] >= 16 else 0)


def format_of(namespace: Any) -> LbaFormat:
    """Return the LBA format that a namespace (one of `IdentifyNamespace`) has."""
    return LbaFormat(int(namespace["lbaf"][format_index(namespace)]))


def ids_of(numbers: Iterable[SupportsInt]) -> list[int]:
    """Return a namespace list (u32, up to 1024 of them) as ints: it ends with the first zero."""
    found = []
    for number in numbers:
        if not int(number):
            break
        found.append(int(number))
    return found


def controllers_of(numbers: Iterable[SupportsInt]) -> list[int]:
    """Return a controller list (u16: how many, then their ids) as ints.

    Raises `DeviceError` where it says more than it holds.
    """
    count, *ids = (int(number) for number in numbers)
    if count > len(ids):
        raise DeviceError(f"controller list: says {count}, but has place for {len(ids)}")
    return ids[:count]


def descriptors_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each descriptor in what CNS 03h returned.

    Raises `DeviceError` for one that is longer than what is left.
    """
    place = 0
    while place + NamespaceDescriptor.SIZE <= len(data) and data[place]:
        start = place + NamespaceDescriptor.SIZE
        size = data[place + NamespaceDescriptor.nidl.offset]
        if not 0 < size <= len(data) - start:
            raise DeviceError(
                f"namespace descriptor at {place}: says {size} bytes, but has {len(data) - start}"
            )
        yield data[place], data[start : start + size]
        place = start + size
