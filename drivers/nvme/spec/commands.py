"""Commands and completions as they lie in the queues (NVM Express Base Specification 1.4).

A command is 64 bytes (section 4.2), a completion 16 (section 4.6). Dwords 10 to 15 differ from
command to command; those that have fields are registers here: `int(IdentifySelect(cns=CNS.X))`.
"""

from enum import IntEnum

from uspace_drv import Layout, Register, bit, field
from uspace_drv.layout import u8, u16, u32, u64


class AdminOpcode(IntEnum):
    """Commands of queue 0, section 5."""

    DELETE_SUBMISSION_QUEUE = 0x00
    CREATE_SUBMISSION_QUEUE = 0x01
    GET_LOG_PAGE = 0x02
    DELETE_COMPLETION_QUEUE = 0x04
    CREATE_COMPLETION_QUEUE = 0x05
    IDENTIFY = 0x06
    ABORT = 0x08
    SET_FEATURES = 0x09
    GET_FEATURES = 0x0A
    ASYNC_EVENT_REQUEST = 0x0C
    NAMESPACE_MANAGEMENT = 0x0D
    FIRMWARE_COMMIT = 0x10
    FIRMWARE_DOWNLOAD = 0x11
    DEVICE_SELF_TEST = 0x14
    NAMESPACE_ATTACHMENT = 0x15
    KEEP_ALIVE = 0x18
    DIRECTIVE_SEND = 0x19
    DIRECTIVE_RECEIVE = 0x1A
    VIRTUALIZATION_MANAGEMENT = 0x1C
    MANAGEMENT_INTERFACE_SEND = 0x1D
    MANAGEMENT_INTERFACE_RECEIVE = 0x1E
    DOORBELL_BUFFER_CONFIG = 0x7C
    FORMAT = 0x80
    SECURITY_SEND = 0x81
    SECURITY_RECEIVE = 0x82
    SANITIZE = 0x84
    GET_LBA_STATUS = 0x86


class Opcode(IntEnum):
    """Commands of the I/O queues, section 6."""

    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    WRITE_UNCORRECTABLE = 0x04
    COMPARE = 0x05
    WRITE_ZEROES = 0x08
    DATASET_MANAGEMENT = 0x09
    VERIFY = 0x0C
    RESERVATION_REGISTER = 0x0D
    RESERVATION_REPORT = 0x0E
    RESERVATION_ACQUIRE = 0x11
    RESERVATION_RELEASE = 0x15


class DataPointer(IntEnum):
    """CommandFlags.psdt: what the data pointer of a command is."""

    PRP = 0
    SGL = 1
    """An SGL; metadata in one piece."""
    SGL_FOR_METADATA = 2


class CommandFlags(Register, width=8):
    """Byte 1 of a command, section 4.2."""

    psdt = field(7, 6, DataPointer)
    fuse = field(1, 0, "0: not fused, 1: first of two, 2: second")


class Command(Layout, size=64):
    """A submission queue entry, section 4.2 (figures 104 and 105)."""

    opcode = u8(0)
    flags = u8(1, CommandFlags)
    id = u16(2, "comes back in the completion; unique among those in flight in its queue")
    namespace = u32(4, "0: none, ALL_NAMESPACES: all of them")
    cdw2 = u32(8)
    cdw3 = u32(12)
    metadata = u64(16, "address of the metadata")
    prp1 = u64(24, "address of the data; an SGL descriptor takes prp1 and prp2")
    prp2 = u64(32, "its second page, or the address of a list of pages")
    cdw10 = u32(40)
    cdw11 = u32(44)
    cdw12 = u32(48)
    cdw13 = u32(52)
    cdw14 = u32(56)
    cdw15 = u32(60)


class Completion(Layout, size=16):
    """A completion queue entry, section 4.6."""

    result = u32(0, "DW0, the command's own result")
    result_high = u32(4, "DW1")
    head = u16(8, "how far the controller has taken from the submission queue")
    queue = u16(10, "number of the submission queue")
    id = u16(12, "of the command")
    status = u16(14, "bit 0 is the phase, the rest the status (status.py)")


ALL_NAMESPACES = 0xFFFF_FFFF
"""As a namespace: every one of them."""


class SglType(IntEnum):
    """What an SGL descriptor means, section 4.4."""

    DATA_BLOCK = 0
    BIT_BUCKET = 1
    SEGMENT = 2
    LAST_SEGMENT = 3
    KEYED_DATA_BLOCK = 4
    TRANSPORT_DATA_BLOCK = 5
    VENDOR = 15


class SglIdentifier(Register, width=8):
    """The last byte of an SGL descriptor."""

    type = field(7, 4, SglType)
    subtype = field(3, 0, "0: by address, 1: by offset")


class SglDescriptor(Layout, size=16):
    """A piece of memory, or more of the list, section 4.4."""

    address = u64(0)
    length = u32(8, "bytes; of a segment: of its descriptors")
    identifier = u8(15, SglIdentifier)


class DatasetRange(Layout, size=16):
    """A range of Dataset Management, section 6.7; a command has 1 to 256 of them."""

    attributes = u32(0, "context attributes, hints about the use")
    blocks = u32(4)
    lba = u64(8)


MOST_RANGES = 256
"""Ranges of one Dataset Management command."""


class CreateQueue(Register):
    """Dword 10 of Create and Delete I/O Queue, sections 5.3 to 5.6; deleting takes `qid` alone."""

    qsize = field(31, 16, "entries, less one")
    qid = field(15, 0)


class CompletionQueueSetup(Register):
    """Dword 11 of Create I/O Completion Queue, section 5.3."""

    iv = field(31, 16, "interrupt vector")
    ien = bit(1, "interrupts enabled")
    pc = bit(0, "contiguous in memory")


class SubmissionQueueSetup(Register):
    """Dword 11 of Create I/O Submission Queue, section 5.4."""

    cqid = field(31, 16, "the completion queue")
    qprio = field(2, 1, "0 urgent, 1 high, 2 medium, 3 low")
    pc = bit(0, "contiguous in memory")


class CNS(IntEnum):
    """What Identify tells, section 5.15."""

    NAMESPACE = 0x00
    CONTROLLER = 0x01
    ACTIVE_NAMESPACES = 0x02
    NAMESPACE_DESCRIPTORS = 0x03
    NVM_SETS = 0x04
    COMMAND_SET_NAMESPACE = 0x05
    COMMAND_SET_CONTROLLER = 0x06
    ALLOCATED_NAMESPACES = 0x10
    ALLOCATED_NAMESPACE = 0x11
    ATTACHED_CONTROLLERS = 0x12
    CONTROLLERS = 0x13
    PRIMARY_CONTROLLER = 0x14
    SECONDARY_CONTROLLERS = 0x15
    NAMESPACE_GRANULARITY = 0x16
    UUIDS = 0x17


class IdentifySelect(Register):
    """Dword 10 of Identify."""

    cntid = field(31, 16, "controller")
    cns = field(7, 0, CNS)


class LogPage(IntEnum):
    """What Get Log Page reads, section 5.14."""

    ERRORS = 0x01
    SMART = 0x02
    FIRMWARE_SLOTS = 0x03
    CHANGED_NAMESPACES = 0x04
    COMMAND_EFFECTS = 0x05
    SELF_TEST = 0x06
    TELEMETRY_HOST = 0x07
    TELEMETRY_CONTROLLER = 0x08
    ENDURANCE_GROUP = 0x09
    PREDICTABLE_LATENCY = 0x0A
    PREDICTABLE_LATENCY_EVENTS = 0x0B
    ANA = 0x0C
    PERSISTENT_EVENTS = 0x0D
    LBA_STATUS = 0x0E
    ENDURANCE_GROUP_EVENTS = 0x0F
    RESERVATIONS = 0x80
    SANITIZE = 0x81


class LogPageSelect(Register):
    """Dword 10 of Get Log Page; dword 11 has the upper half of `numd`, 12 and 13 the offset."""

    numdl = field(31, 16, "dwords less one, lower half")
    rae = bit(15, "retain the asynchronous event that told of this page")
    lsp = field(11, 8, "the page's own")
    lid = field(7, 0, LogPage)


class FeatureId(IntEnum):
    """What Get and Set Features are about, section 5.21.1; their values are in features.py."""

    ARBITRATION = 0x01
    POWER_MANAGEMENT = 0x02
    LBA_RANGE_TYPE = 0x03
    TEMPERATURE_THRESHOLD = 0x04
    ERROR_RECOVERY = 0x05
    VOLATILE_WRITE_CACHE = 0x06
    NUMBER_OF_QUEUES = 0x07
    INTERRUPT_COALESCING = 0x08
    INTERRUPT_VECTOR = 0x09
    WRITE_ATOMICITY = 0x0A
    ASYNC_EVENTS = 0x0B
    AUTONOMOUS_POWER = 0x0C
    HOST_MEMORY_BUFFER = 0x0D
    TIMESTAMP = 0x0E
    KEEP_ALIVE = 0x0F
    THERMAL_MANAGEMENT = 0x10
    NON_OPERATIONAL_POWER = 0x11
    READ_RECOVERY_LEVEL = 0x12
    PREDICTABLE_LATENCY_CONFIG = 0x13
    PREDICTABLE_LATENCY_WINDOW = 0x14
    LBA_STATUS_ATTRIBUTES = 0x15
    HOST_BEHAVIOR = 0x16
    SANITIZE = 0x17
    ENDURANCE_GROUP_EVENTS = 0x18
    SOFTWARE_PROGRESS = 0x80
    HOST_IDENTIFIER = 0x81
    RESERVATION_NOTICES = 0x82
    RESERVATION_PERSISTENCE = 0x83
    WRITE_PROTECTION = 0x84


class FeatureValue(IntEnum):
    """Which value of a feature Get Features returns, section 5.13."""

    CURRENT = 0
    DEFAULT = 1
    SAVED = 2
    CAPABILITIES = 3
    """bit 0 saveable, bit 1 of a namespace, bit 2 changeable."""


class FeatureSelect(Register):
    """Dword 10 of Get Features (`sel`) and Set Features (`sv`)."""

    sv = bit(31, "save it beyond resets and power cycles")
    sel = field(10, 8, FeatureValue)
    fid = field(7, 0, FeatureId)


class AbortSelect(Register):
    """Dword 10 of Abort, section 5.1; bit 0 of the result is 1 if it was not aborted."""

    cid = field(31, 16, "id of the command")
    sqid = field(15, 0, "its queue")


class NamespaceAction(IntEnum):
    """Dword 10 of Namespace Management, section 5.20."""

    CREATE = 0
    DELETE = 1


class AttachmentAction(IntEnum):
    """Dword 10 of Namespace Attachment, section 5.19."""

    ATTACH = 0
    DETACH = 1


class CommitAction(IntEnum):
    """What Firmware Commit does, section 5.11."""

    STORE = 0
    STORE_AND_ACTIVATE = 1
    ACTIVATE = 2
    STORE_AND_ACTIVATE_NOW = 3
    STORE_BOOT_PARTITION = 6
    ACTIVATE_BOOT_PARTITION = 7


class FirmwareCommit(Register):
    """Dword 10 of Firmware Commit."""

    bpid = bit(31, "boot partition")
    ca = field(5, 3, CommitAction)
    fs = field(2, 0, "slot; 0: the controller chooses")


class SecureErase(IntEnum):
    """How Format makes old data unreadable, section 5.23."""

    NONE = 0
    USER_DATA = 1
    CRYPTOGRAPHIC = 2


class Format(Register):
    """Dword 10 of Format NVM, section 5.23."""

    ses = field(11, 9, SecureErase)
    pil = bit(8, "protection information first, else last in the metadata")
    pi = field(7, 5, "protection information type, 0: none")
    mset = bit(4, "metadata with the data, else apart")
    lbaf = field(3, 0, "index of the LBA format")


class Transfer(Register):
    """Dword 12 of Read, Write, Compare, Write Zeroes and Verify, section 6.9."""

    lr = bit(31, "limited retry: fail rather than try long")
    fua = bit(30, "not before it is on the medium")
    prinfo = field(29, 26, "protection information")
    deac = bit(25, "Write Zeroes: deallocate")
    nlb = field(15, 0, "blocks, less one")


class DatasetAttributes(Register):
    """Dword 11 of Dataset Management, section 6.7; dword 10 has the number of ranges, less one."""

    ad = bit(2, "deallocate (trim)")
    idw = bit(1, "will be written")
    idr = bit(0, "will be read")
