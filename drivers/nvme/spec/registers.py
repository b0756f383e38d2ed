"""The registers of an NVMe controller (NVM Express Base Specification 1.4, section 3.1).

Fields have the specification's names in lower case. The doorbells follow at `DOORBELLS`; how far
they lie apart is known only once CAP has been read, so they are places (`doorbell`), no registers.
"""

from enum import IntEnum

from uspace_drv import Register, RegisterBlock, bit, field, ro, rw, w1c


class CommandSet(IntEnum):
    """CC.CSS: which commands the I/O queues take."""

    NVM = 0
    ALL = 6
    """Every I/O command set that the controller has (from 2.0 on)."""
    ADMIN_ONLY = 7


class Arbitration(IntEnum):
    """CC.AMS: how the controller chooses among submission queues."""

    ROUND_ROBIN = 0
    WEIGHTED = 1
    """Weighted round robin with an urgent class."""
    VENDOR = 7


class Shutdown(IntEnum):
    """CC.SHN: that the power is about to go."""

    NONE = 0
    NORMAL = 1
    ABRUPT = 2


class ShutdownStatus(IntEnum):
    """CSTS.SHST: how far a shutdown is."""

    NONE = 0
    OCCURRING = 1
    COMPLETE = 2


class Capabilities(Register, width=64):
    """CAP, section 3.1.1: what the controller can do."""

    cmbs = bit(57, "has a controller memory buffer behind CMBMSC")
    pmrs = bit(56, "has a persistent memory region")
    mpsmax = field(55, 52, "largest memory page: 4096 << mpsmax bytes")
    mpsmin = field(51, 48, "smallest memory page: 4096 << mpsmin bytes")
    bps = bit(45, "has boot partitions")
    css = field(44, 37, "command sets, one bit each: 0 NVM, 6 several, 7 admin only")
    nssrs = bit(36, "NSSR resets the subsystem")
    dstrd = field(35, 32, "doorbells lie 4 << dstrd bytes apart")
    to = field(31, 24, "longest time for CSTS.RDY to follow CC.EN, in 500 ms")
    ams = field(18, 17, "arbitration beside round robin, one bit each: 0 weighted, 1 vendor's")
    cqr = bit(16, "queues must be contiguous in memory")
    mqes = field(15, 0, "entries of the largest I/O queue, less one")


class Version(Register):
    """VS, section 3.1.2: the version of the specification that is followed."""

    mjr = field(31, 16, "major")
    mnr = field(15, 8, "minor")
    ter = field(7, 0, "tertiary")


class Configuration(Register):
    """CC, section 3.1.5: how the controller works; all but `en` and `shn` only while disabled."""

    iocqes = field(23, 20, "an I/O completion has 1 << iocqes bytes: 4")
    iosqes = field(19, 16, "an I/O command has 1 << iosqes bytes: 6")
    shn = field(15, 14, Shutdown)
    ams = field(13, 11, Arbitration)
    mps = field(10, 7, "memory pages of 4096 << mps bytes")
    css = field(6, 4, CommandSet)
    en = bit(0, "1 to enable, 0 to reset")


class ControllerStatus(Register):
    """CSTS, section 3.1.6."""

    pp = bit(5, "processing paused")
    nssro = bit(4, "a subsystem reset occurred; write 1 to clear")
    shst = field(3, 2, ShutdownStatus)
    cfs = bit(1, "fatal: the controller needs a reset")
    rdy = bit(0, "ready for commands; follows CC.EN")


class AdminQueueAttributes(Register):
    """AQA, section 3.1.8: sizes of the admin queues, in entries less one."""

    acqs = field(27, 16, "completion queue")
    asqs = field(11, 0, "submission queue")


class CmbLocation(Register):
    """CMBLOC, section 3.1.11: where the controller memory buffer lies, and what may lie in it."""

    ofst = field(31, 12, "offset in the BAR, in units of CMBSZ.SZU")
    cqda = bit(8, "a contiguous queue inside needs dword alignment only")
    cdmmms = bit(7, "data and metadata of a command may lie partly inside")
    cdpcils = bit(6, "a command may lie inside and its lists outside")
    cdpmls = bit(5, "lists of a command may lie partly inside")
    cqpds = bit(4, "a queue inside need not be contiguous")
    cqmms = bit(3, "a queue may lie partly inside")
    bir = field(2, 0, "BAR")


class CmbSizeUnit(IntEnum):
    """CMBSZ.SZU: 4 KiB << 4 * unit."""

    KIB_4 = 0
    KIB_64 = 1
    MIB_1 = 2
    MIB_16 = 3
    MIB_256 = 4
    GIB_4 = 5
    GIB_64 = 6


class CmbSize(Register):
    """CMBSZ, section 3.1.12: how large the controller memory buffer is, and what it is for."""

    sz = field(31, 12, "size, in units of szu; 0: there is none")
    szu = field(11, 8, CmbSizeUnit)
    wds = bit(4, "data that the controller reads (writes)")
    rds = bit(3, "data that the controller writes (reads)")
    lists = bit(2, "PRP lists and SGL segments")
    cqs = bit(1, "completion queues")
    sqs = bit(0, "submission queues")


class BootPartition(Register):
    """BPINFO, section 3.1.13."""

    abpid = bit(31, "the active one")
    brs = field(25, 24, "status of a read")
    bpsz = field(14, 0, "size of each, in 128 KiB")


class BootPartitionRead(Register):
    """BPRSEL, section 3.1.14: read this part into BPMBL."""

    bpid = bit(31, "which one")
    bprof = field(29, 10, "offset, in 4 KiB")
    bprsz = field(9, 0, "size, in 4 KiB")


class CmbMemorySpaceControl(Register, width=64):
    """CMBMSC, section 3.1.16: the addresses by which commands find the controller memory buffer."""

    cba = field(63, 12, "base address, in 4 KiB")
    cmse = bit(1, "cba holds: addresses in it mean the buffer")
    cre = bit(0, "show CMBLOC and CMBSZ")


class CmbStatus(Register):
    """CMBSTS, section 3.1.17."""

    cbai = bit(0, "CMBMSC.CBA is invalid")


class PmrCapabilities(Register):
    """PMRCAP, section 3.1.18."""

    cmss = bit(24, "PMRMSCL and PMRMSCU exist")
    pmrto = field(23, 16, "longest time until it is ready, in units of pmrtu")
    pmrwbm = field(13, 10, "what makes writes persistent, one bit each")
    pmrtu = field(9, 8, "0: 500 ms, 1: minutes")
    bir = field(7, 5, "BAR")
    wds = bit(4, "data that the controller reads (writes)")
    rds = bit(3, "data that the controller writes (reads)")


class PmrControl(Register):
    """PMRCTL, section 3.1.19."""

    en = bit(0, "enable")


class PmrStatus(Register):
    """PMRSTS, section 3.1.20."""

    cbai = bit(12, "its base address is invalid")
    hsts = field(11, 9, "health")
    nrdy = bit(8, "not ready")
    err = field(7, 0, "0: the last write is persistent")


class PmrElasticity(Register):
    """PMREBS, section 3.1.21: the buffer in front of the persistent memory."""

    pmrwbz = field(31, 8, "size, in units of pmrszu")
    rbb = bit(4, "reads do not stall behind it")
    pmrszu = field(3, 0, "0: bytes, 1: KiB, 2: MiB, 3: GiB")


class PmrThroughput(Register):
    """PMRSWTP, section 3.1.22: what sustained writes reach."""

    pmrswtv = field(31, 8, "throughput, in units of pmrswtu")
    pmrswtu = field(3, 0, "0: bytes, 1: KiB, 2: MiB, 3: GiB a second")


class PmrMemorySpaceControl(Register):
    """PMRMSCL, section 3.1.23: the lower half; the upper one is the rest of the address."""

    cba = field(31, 12, "base address, bits 31:12")
    cmse = bit(1, "the address holds")


class NvmeRegisters(RegisterBlock, size=0x1000):
    """BAR 0 in front of the doorbells."""

    cap = ro(0x00, Capabilities)
    vs = ro(0x08, Version)
    intms = rw(0x0C, "write ones to mask interrupts; not with MSI-X")
    intmc = rw(0x10, "write ones to unmask them")
    cc = rw(0x14, Configuration)
    csts = w1c(0x1C, ControllerStatus)
    nssr = rw(0x20, "SUBSYSTEM_RESET resets the whole subsystem")
    aqa = rw(0x24, AdminQueueAttributes)
    asq = rw(0x28, "address of the admin submission queue, a multiple of 4096", width=64)
    acq = rw(0x30, "address of the admin completion queue, a multiple of 4096", width=64)
    cmbloc = ro(0x38, CmbLocation)
    cmbsz = ro(0x3C, CmbSize)
    bpinfo = ro(0x40, BootPartition)
    bprsel = rw(0x44, BootPartitionRead)
    bpmbl = rw(0x48, "where a boot partition is read to", width=64)
    cmbmsc = rw(0x50, CmbMemorySpaceControl)
    cmbsts = ro(0x58, CmbStatus)
    pmrcap = ro(0xE00, PmrCapabilities)
    pmrctl = rw(0xE04, PmrControl)
    pmrsts = ro(0xE08, PmrStatus)
    pmrebs = ro(0xE0C, PmrElasticity)
    pmrswtp = ro(0xE10, PmrThroughput)
    pmrmscl = rw(0xE14, PmrMemorySpaceControl)
    pmrmscu = rw(0xE18, "base address, bits 63:32")


SUBSYSTEM_RESET = 0x4E564D65
"""What is written to NSSR: "NVMe" (section 3.1.7)."""

DOORBELLS = 0x1000
"""Where the doorbells start in BAR 0 (section 3.1.24)."""


def doorbell(queue: int, completion: bool, stride: int) -> int:
    """Return the offset in BAR 0 of a queue's doorbell: SQyTDBL, or CQyHDBL if `completion`.

    `stride` is CAP.DSTRD. Doorbells are written by one 32-bit store and cannot be read.
    """
    return DOORBELLS + (2 * queue + completion) * (4 << stride)
