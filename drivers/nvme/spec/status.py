"""What a completion says about its command (NVM Express Base Specification 1.4, section 4.6.1).

A status is the completion's status field without its phase bit: 15 bits, 0 when all is well. The
lower 11 are the code: its type (SCT) in bits 10:8, the code within that type (SC) in bits 7:0.
"""

from enum import IntEnum


class Status(IntEnum):
    """The codes, `sct << 8 | sc`; the names are the specification's words."""

    SUCCESS = 0x000
    INVALID_OPCODE = 0x001
    INVALID_FIELD = 0x002
    COMMAND_ID_CONFLICT = 0x003
    DATA_TRANSFER_ERROR = 0x004
    ABORTED_BY_POWER_LOSS = 0x005
    INTERNAL_ERROR = 0x006
    ABORT_REQUESTED = 0x007
    ABORTED_BY_QUEUE_DELETION = 0x008
    ABORTED_BY_FAILED_FUSED_COMMAND = 0x009
    ABORTED_BY_MISSING_FUSED_COMMAND = 0x00A
    INVALID_NAMESPACE_OR_FORMAT = 0x00B
    COMMAND_SEQUENCE_ERROR = 0x00C
    INVALID_SGL_SEGMENT_DESCRIPTOR = 0x00D
    INVALID_NUMBER_OF_SGL_DESCRIPTORS = 0x00E
    INVALID_DATA_SGL_LENGTH = 0x00F
    INVALID_METADATA_SGL_LENGTH = 0x010
    INVALID_SGL_DESCRIPTOR_TYPE = 0x011
    INVALID_USE_OF_CMB = 0x012
    INVALID_PRP_OFFSET = 0x013
    ATOMIC_WRITE_UNIT_EXCEEDED = 0x014
    OPERATION_DENIED = 0x015
    INVALID_SGL_OFFSET = 0x016
    INVALID_HOST_ID_FORMAT = 0x018
    KEEP_ALIVE_EXPIRED = 0x019
    INVALID_KEEP_ALIVE_TIMEOUT = 0x01A
    ABORTED_BY_PREEMPTION = 0x01B
    SANITIZE_FAILED = 0x01C
    SANITIZE_IN_PROGRESS = 0x01D
    INVALID_SGL_GRANULARITY = 0x01E
    UNSUPPORTED_IN_CMB_QUEUE = 0x01F
    NAMESPACE_WRITE_PROTECTED = 0x020
    COMMAND_INTERRUPTED = 0x021
    TRANSIENT_TRANSPORT_ERROR = 0x022
    LBA_OUT_OF_RANGE = 0x080
    CAPACITY_EXCEEDED = 0x081
    NAMESPACE_NOT_READY = 0x082
    RESERVATION_CONFLICT = 0x083
    FORMAT_IN_PROGRESS = 0x084

    INVALID_COMPLETION_QUEUE = 0x100
    INVALID_QUEUE_ID = 0x101
    INVALID_QUEUE_SIZE = 0x102
    ABORT_LIMIT_EXCEEDED = 0x103
    ASYNC_EVENT_LIMIT_EXCEEDED = 0x105
    INVALID_FIRMWARE_SLOT = 0x106
    INVALID_FIRMWARE_IMAGE = 0x107
    INVALID_INTERRUPT_VECTOR = 0x108
    INVALID_LOG_PAGE = 0x109
    INVALID_FORMAT = 0x10A
    FIRMWARE_NEEDS_CONVENTIONAL_RESET = 0x10B
    INVALID_QUEUE_DELETION = 0x10C
    FEATURE_NOT_SAVEABLE = 0x10D
    FEATURE_NOT_CHANGEABLE = 0x10E
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10F
    FIRMWARE_NEEDS_SUBSYSTEM_RESET = 0x110
    FIRMWARE_NEEDS_CONTROLLER_RESET = 0x111
    FIRMWARE_NEEDS_MORE_TIME = 0x112
    FIRMWARE_ACTIVATION_PROHIBITED = 0x113
    OVERLAPPING_RANGE = 0x114
    INSUFFICIENT_CAPACITY = 0x115
    NAMESPACE_ID_UNAVAILABLE = 0x116
    NAMESPACE_ALREADY_ATTACHED = 0x118
    NAMESPACE_IS_PRIVATE = 0x119
    NAMESPACE_NOT_ATTACHED = 0x11A
    THIN_PROVISIONING_UNSUPPORTED = 0x11B
    INVALID_CONTROLLER_LIST = 0x11C
    SELF_TEST_IN_PROGRESS = 0x11D
    BOOT_PARTITION_WRITE_PROHIBITED = 0x11E
    INVALID_CONTROLLER_ID = 0x11F
    INVALID_SECONDARY_CONTROLLER_STATE = 0x120
    INVALID_NUMBER_OF_CONTROLLER_RESOURCES = 0x121
    INVALID_RESOURCE_ID = 0x122
    SANITIZE_PROHIBITED_BY_PMR = 0x123
    INVALID_ANA_GROUP = 0x124
    ANA_ATTACH_FAILED = 0x125
    CONFLICTING_ATTRIBUTES = 0x180
    INVALID_PROTECTION_INFORMATION = 0x181
    WRITE_TO_READ_ONLY_RANGE = 0x182
    COMMAND_SIZE_LIMIT_EXCEEDED = 0x183

    WRITE_FAULT = 0x280
    UNRECOVERED_READ_ERROR = 0x281
    GUARD_CHECK_ERROR = 0x282
    APPLICATION_TAG_CHECK_ERROR = 0x283
    REFERENCE_TAG_CHECK_ERROR = 0x284
    COMPARE_FAILURE = 0x285
    ACCESS_DENIED = 0x286
    DEALLOCATED_OR_UNWRITTEN_BLOCK = 0x287

    INTERNAL_PATH_ERROR = 0x300
    ANA_PERSISTENT_LOSS = 0x301
    ANA_INACCESSIBLE = 0x302
    ANA_TRANSITION = 0x303
    CONTROLLER_PATHING_ERROR = 0x360
    HOST_PATHING_ERROR = 0x370
    ABORTED_BY_HOST = 0x371


MORE = 1 << 13
"""The error log has more about it."""

DNR = 1 << 14
"""Do not retry: the same command would fail again."""

CODE = 0x7FF
"""The bits of a status that are its code."""

_CODES = {code.value: code for code in Status}

_ACRONYMS = {"ana", "cmb", "id", "lba", "pmr", "prp", "sgl"}

_TYPES = {0: "generic", 1: "command specific", 2: "media", 3: "path", 7: "vendor specific"}


def code_of(status: int) -> Status | int:
    """Return the code of a status; one that the table does not know comes back as a number."""
    code = status & CODE
    return _CODES.get(code, code)


def retry_delay_of(status: int) -> int:
    """Return CRD: 0 for no delay, else which of the controller's CRDT1 to CRDT3 to wait."""
    return status >> 11 & 3


def words_of(status: int) -> str:
    """Return a status in words: `LBA out of range (status 0x080), do not retry`."""
    code = status & CODE
    notes = "".join(
        note
        for flag, note in ((MORE, ", more in the error log"), (DNR, ", do not retry"))
        if status & flag
    )
    return f"{_name_of(code)} (status {code:#05x}){notes}"


def _name_of(code: int) -> str:
    """Return the words of a code; those of an unknown one say its type at least."""
    known = _CODES.get(code)
    if known is None:
        return f"{_TYPES.get(code >> 8, 'reserved')} error {code & 0xFF:#04x}"
    words = known.name.lower().split("_")
    return " ".join(word.upper() if word in _ACRONYMS else word for word in words)
