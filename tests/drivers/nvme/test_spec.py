"""The tables of the nvme plugin against numbers typed from the NVMe Base Specification 1.4."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme.spec import commands, features, identify, logs, registers
from uspace_drivers.nvme.spec.status import Status, code_of, retry_delay_of, words_of
from uspace_drv import DeviceError, Layout, Register


def name_of(parameter: Any) -> str | None:
    """Name a case after its table."""
    return getattr(parameter, "name", None) or getattr(parameter, "__name__", None)


REGISTERS = {
    "cap": (0x00, 64, "ro"), "vs": (0x08, 32, "ro"), "intms": (0x0C, 32, "rw"),
    "intmc": (0x10, 32, "rw"), "cc": (0x14, 32, "rw"), "csts": (0x1C, 32, "w1c"),
    "nssr": (0x20, 32, "rw"), "aqa": (0x24, 32, "rw"), "asq": (0x28, 64, "rw"),
    "acq": (0x30, 64, "rw"), "cmbloc": (0x38, 32, "ro"), "cmbsz": (0x3C, 32, "ro"),
    "bpinfo": (0x40, 32, "ro"), "bprsel": (0x44, 32, "rw"), "bpmbl": (0x48, 64, "rw"),
    "cmbmsc": (0x50, 64, "rw"), "cmbsts": (0x58, 32, "ro"), "pmrcap": (0xE00, 32, "ro"),
    "pmrctl": (0xE04, 32, "rw"), "pmrsts": (0xE08, 32, "ro"), "pmrebs": (0xE0C, 32, "ro"),
    "pmrswtp": (0xE10, 32, "ro"), "pmrmscl": (0xE14, 32, "rw"), "pmrmscu": (0xE18, 32, "rw"),
}  # fmt: skip


def test_registers_lie_where_the_specification_has_them() -> None:
    found = {
        each.name: (each.offset, each.width, each.access.value)
        for each in registers.NvmeRegisters.registers()
    }
    assert found == REGISTERS


@pytest.mark.parametrize(
    ("queue", "completion", "stride", "offset"),
    [(0, False, 0, 0x1000), (0, True, 0, 0x1004), (1, False, 0, 0x1008), (1, True, 0, 0x100C),
     (64, True, 0, 0x1204), (1, False, 1, 0x1010), (2, True, 4, 0x1140)],
)  # fmt: skip
def test_doorbells(queue: int, completion: bool, stride: int, offset: int) -> None:
    assert registers.doorbell(queue, completion, stride) == offset


FIELDS: list[tuple[type[Register], int, dict[str, int]]] = [
    # What QEMU 7.2's nvme says of itself: hw/nvme/ctrl.c, nvme_init_ctrl.
    (registers.Capabilities, 0x0240_0820_0F01_07FF, {
        "mqes": 0x7FF, "cqr": 1, "ams": 0, "to": 15, "dstrd": 0, "nssrs": 0, "css": 0x41, "bps": 0,
        "mpsmin": 0, "mpsmax": 4, "pmrs": 0, "cmbs": 1}),
    (registers.Capabilities, 0x0140_2831_2001_0000 | 3 << 17, {
        "ams": 3, "to": 32, "dstrd": 1, "nssrs": 1, "css": 0x41, "bps": 1, "mpsmax": 4, "pmrs": 1}),
    (registers.Version, 0x0001_0400, {"mjr": 1, "mnr": 4, "ter": 0}),
    (registers.Configuration, 0x0046_4001, {
        "en": 1, "css": 0, "mps": 0, "ams": 0, "shn": 1, "iosqes": 6, "iocqes": 4}),
    (registers.Configuration, 0x0000_38E0 | 5 << 7, {"css": 6, "mps": 5, "ams": 7}),
    (registers.ControllerStatus, 0b11_10_1_1, {"rdy": 1, "cfs": 1, "shst": 2, "nssro": 1, "pp": 1}),
    (registers.AdminQueueAttributes, 0x00FF_001F, {"asqs": 31, "acqs": 255}),
    (registers.CmbLocation, 0x0000_1004, {"bir": 4, "ofst": 1}),
    (registers.CmbLocation, 0x0000_01A8, {
        "cqmms": 1, "cqpds": 0, "cdpmls": 1, "cdpcils": 0, "cdmmms": 1, "cqda": 1}),
    (registers.CmbSize, 0x0001_021D, {
        "sqs": 1, "cqs": 0, "lists": 1, "rds": 1, "wds": 1, "szu": 2, "sz": 16}),
    (registers.CmbMemorySpaceControl, 0xFE00_0003, {"cre": 1, "cmse": 1, "cba": 0xFE000}),
    (registers.PmrCapabilities, 0x010A_0490, {
        "wds": 1, "rds": 0, "bir": 4, "pmrtu": 0, "pmrwbm": 1, "pmrto": 10, "cmss": 1}),
    (registers.BootPartition, 0x8200_0008, {"abpid": 1, "brs": 2, "bpsz": 8}),
    (registers.BootPartitionRead, 0x8000_0C05, {"bpid": 1, "bprof": 3, "bprsz": 5}),
    (commands.CommandFlags, 0x42, {"psdt": 1, "fuse": 2}),
    (commands.SglIdentifier, 0x30, {"type": 3, "subtype": 0}),
    (commands.CreateQueue, 0x03FF_0001, {"qid": 1, "qsize": 1023}),
    (commands.CompletionQueueSetup, 0x0005_0003, {"pc": 1, "ien": 1, "iv": 5}),
    (commands.SubmissionQueueSetup, 0x0007_0005, {"pc": 1, "qprio": 2, "cqid": 7}),
    (commands.IdentifySelect, 0x0002_0012, {"cns": 0x12, "cntid": 2}),
    (commands.LogPageSelect, 0x007F_8102, {"lid": 2, "lsp": 1, "rae": 1, "numdl": 127}),
    (commands.FeatureSelect, 0x8000_0307, {"fid": 7, "sel": 3, "sv": 1}),
    (commands.AbortSelect, 0x0009_0003, {"sqid": 3, "cid": 9}),
    (commands.FirmwareCommit, 0x0000_000A, {"fs": 2, "ca": 1}),
    (commands.Format, 0x0000_0331, {"lbaf": 1, "mset": 1, "pi": 1, "pil": 1, "ses": 1}),
    (commands.Transfer, 0xC200_0007, {"nlb": 7, "deac": 1, "prinfo": 0, "fua": 1, "lr": 1}),
    (commands.DatasetAttributes, 0x4, {"ad": 1, "idw": 0, "idr": 0}),
    (features.ArbitrationValue, 0x0302_0107, {"hpw": 3, "mpw": 2, "lpw": 1, "ab": 7}),
    (features.PowerManagement, 0x24, {"ps": 4, "wh": 1}),
    (features.TemperatureThreshold, 0x0011_0157, {"tmpth": 0x157, "tmpsel": 1, "thsel": 1}),
    (features.ErrorRecovery, 0x0001_0005, {"tler": 5, "dulbe": 1}),
    (features.NumberOfQueues, 0x003F_001F, {"nsq": 31, "ncq": 63}),
    (features.InterruptCoalescing, 0x0A03, {"thr": 3, "time": 10}),
    (features.InterruptVector, 0x0001_0002, {"iv": 2, "cd": 1}),
    (features.AsyncEventConfiguration, 0x0000_0302, {
        "temperature": 1, "namespace_attributes": 1, "firmware_activation": 1, "telemetry": 0}),
    (features.Timestamp, 0x0002_0192_0000_0000, {"timestamp": 0x192_0000_0000, "origin": 1}),
    (identify.EntrySize, 0x66, {"most": 6, "least": 6}),
    (identify.AdminSupport, 0x010A, {
        "format": 1, "namespace_management": 1, "doorbell_buffer": 1, "security": 0}),
    (identify.NvmSupport, 0x015D | 1 << 7, {
        "compare": 1, "write_uncorrectable": 0, "dataset_management": 1, "write_zeroes": 1,
        "save": 1, "reservations": 0, "timestamp": 1, "verify": 1}),
    (identify.FirmwareSupport, 0x13, {"first_read_only": 1, "slots": 1, "without_reset": 1}),
    (identify.WriteCache, 0x7, {"present": 1, "flush_all": 3}),
    (identify.SglSupport, 0x0001_0001, {"support": 1, "bit_bucket": 1}),
    (identify.LbaFormat, 0x0209_0008, {"ms": 8, "lbads": 9, "rp": 2}),
    (identify.FormattedSize, 0x31, {"low": 1, "extended": 1, "high": 1}),
    (identify.Deallocation, 0x09, {"reads": 1, "write_zeroes": 1}),
    (logs.AsyncEvent, 0x0004_0002, {"type": 2, "info": 0, "log": 4}),
    (logs.ErrorLocation, 0x0328, {"byte": 40, "bit": 3}),
    (logs.CriticalWarning, 0x0B, {"spare": 1, "temperature": 1, "read_only": 1, "unreliable": 0}),
    (logs.ActiveFirmware, 0x21, {"active": 1, "next": 2}),
    (logs.CommandEffects, 0x0002_0003, {"csupp": 1, "lbcc": 1, "cse": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "raw", "fields"), FIELDS, ids=name_of)
def test_fields(kind: type[Register], raw: int, fields: dict[str, int]) -> None:
    value = kind(raw)
    assert {name: int(getattr(value, name)) for name in fields} == fields


# Names in order, each with its offset; the end is the size.
LAYOUTS: list[tuple[type[Layout], int, dict[str, int]]] = [
    (commands.Command, 64, {
        "opcode": 0, "flags": 1, "id": 2, "namespace": 4, "cdw2": 8, "cdw3": 12, "metadata": 16,
        "prp1": 24, "prp2": 32, "cdw10": 40, "cdw11": 44, "cdw12": 48, "cdw13": 52, "cdw14": 56,
        "cdw15": 60}),
    (commands.Completion, 16, {
        "result": 0, "result_high": 4, "head": 8, "queue": 10, "id": 12, "status": 14}),
    (commands.SglDescriptor, 16, {"address": 0, "length": 8, "identifier": 15}),
    (commands.DatasetRange, 16, {"attributes": 0, "blocks": 4, "lba": 8}),
    (identify.IdentifyController, 4096, {
        "vid": 0, "ssvid": 2, "sn": 4, "mn": 24, "fr": 64, "rab": 72, "ieee": 73, "cmic": 76,
        "mdts": 77, "cntlid": 78, "ver": 80, "rtd3r": 84, "rtd3e": 88, "oaes": 92, "ctratt": 96,
        "rrls": 100, "cntrltype": 111, "fguid": 112, "crdt": 128, "oacs": 256, "acl": 258,
        "aerl": 259, "frmw": 260, "lpa": 261, "elpe": 262, "npss": 263, "avscc": 264, "apsta": 265,
        "wctemp": 266, "cctemp": 268, "mtfa": 270, "hmpre": 272, "hmmin": 276, "tnvmcap": 280,
        "unvmcap": 296, "rpmbs": 312, "edstt": 316, "dsto": 318, "fwug": 319, "kas": 320,
        "hctma": 322, "mntmt": 324, "mxtmt": 326, "sanicap": 328, "hmminds": 332, "hmmaxd": 336,
        "nsetidmax": 338, "endgidmax": 340, "anatt": 342, "anacap": 343, "anagrpmax": 344,
        "nanagrpid": 348, "pels": 352, "sqes": 512, "cqes": 513, "maxcmd": 514, "nn": 516,
        "oncs": 520, "fuses": 522, "fna": 524, "vwc": 525, "awun": 526, "awupf": 528, "nvscc": 530,
        "nwpc": 531, "acwu": 532, "sgls": 536, "mnan": 540, "subnqn": 768, "psd": 2048,
        "vs": 3072}),
    (identify.PowerState, 32, {
        "mp": 0, "flags": 3, "enlat": 4, "exlat": 8, "rrt": 12, "rrl": 13, "rwt": 14, "rwl": 15,
        "idlp": 16, "ips": 18, "actp": 20, "aps": 22}),
    (identify.IdentifyNamespace, 4096, {
        "nsze": 0, "ncap": 8, "nuse": 16, "nsfeat": 24, "nlbaf": 25, "flbas": 26, "mc": 27,
        "dpc": 28, "dps": 29, "nmic": 30, "rescap": 31, "fpi": 32, "dlfeat": 33, "nawun": 34,
        "nawupf": 36, "nacwu": 38, "nabsn": 40, "nabo": 42, "nabspf": 44, "noiob": 46,
        "nvmcap": 48, "npwg": 64, "npwa": 66, "npdg": 68, "npda": 70, "nows": 72, "anagrpid": 92,
        "nsattr": 99, "nvmsetid": 100, "endgid": 102, "nguid": 104, "eui64": 120, "lbaf": 128,
        "vs": 384}),
    (identify.NamespaceDescriptor, 4, {"nidt": 0, "nidl": 1}),
    (logs.ErrorLogEntry, 64, {
        "error_count": 0, "sqid": 8, "cid": 10, "status": 12, "location": 14, "lba": 16, "nsid": 24,
        "vendor_page": 28, "transport": 29, "command_specific": 32, "transport_specific": 40}),
    (logs.SmartLog, 512, {
        "critical_warning": 0, "composite_temperature": 1, "available_spare": 3,
        "available_spare_threshold": 4, "percentage_used": 5, "endurance_group_warning": 6,
        "data_units_read": 32, "data_units_written": 48, "host_read_commands": 64,
        "host_write_commands": 80, "controller_busy_time": 96, "power_cycles": 112,
        "power_on_hours": 128, "unsafe_shutdowns": 144, "media_errors": 160,
        "error_log_entries": 176, "warning_temperature_time": 192,
        "critical_temperature_time": 196, "temperature_sensors": 200, "thermal_transitions": 216,
        "thermal_time": 224}),
    (logs.FirmwareSlotLog, 512, {"afi": 0, "frs": 8}),
    (logs.ChangedNamespaceLog, 4096, {"nsid": 0}),
    (logs.EffectsLog, 4096, {"acs": 0, "iocs": 1024}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "size", "offsets"), LAYOUTS, ids=name_of)
def test_layouts(kind: type[Layout], size: int, offsets: dict[str, int]) -> None:
    found = {name: member.offset for name, member in kind.MEMBERS.items()}
    assert (kind.dtype.itemsize, found) == (size, offsets)


# Arrays and wide members: the byte after their last.
ENDS: list[tuple[Any, int]] = [
    (identify.IdentifyController.sn, 24), (identify.IdentifyController.mn, 64),
    (identify.IdentifyController.fr, 72), (identify.IdentifyController.fguid, 128),
    (identify.IdentifyController.crdt, 134), (identify.IdentifyController.tnvmcap, 296),
    (identify.IdentifyController.subnqn, 1024), (identify.IdentifyController.psd, 3072),
    (identify.IdentifyController.vs, 4096), (identify.IdentifyNamespace.nvmcap, 64),
    (identify.IdentifyNamespace.nguid, 120), (identify.IdentifyNamespace.lbaf, 384),
    (identify.IdentifyNamespace.vs, 4096), (logs.SmartLog.composite_temperature, 3),
    (logs.SmartLog.error_log_entries, 192), (logs.SmartLog.temperature_sensors, 216),
    (logs.SmartLog.thermal_time, 232), (logs.FirmwareSlotLog.frs, 64),
    (logs.EffectsLog.iocs, 2048), (logs.ChangedNamespaceLog.nsid, 4096),
]  # fmt: skip


@pytest.mark.parametrize(("member", "end"), ENDS, ids=name_of)
def test_members_end(member: Any, end: int) -> None:
    assert member.offset + member.size == end


CODES: list[tuple[type[Any], dict[str, int]]] = [
    (commands.AdminOpcode, {
        "DELETE_SUBMISSION_QUEUE": 0, "CREATE_SUBMISSION_QUEUE": 1, "GET_LOG_PAGE": 2,
        "DELETE_COMPLETION_QUEUE": 4, "CREATE_COMPLETION_QUEUE": 5, "IDENTIFY": 6, "ABORT": 8,
        "SET_FEATURES": 9, "GET_FEATURES": 10, "ASYNC_EVENT_REQUEST": 12,
        "NAMESPACE_MANAGEMENT": 13, "FIRMWARE_COMMIT": 16, "FIRMWARE_DOWNLOAD": 17,
        "DEVICE_SELF_TEST": 20, "NAMESPACE_ATTACHMENT": 21, "KEEP_ALIVE": 24,
        "DOORBELL_BUFFER_CONFIG": 124, "FORMAT": 128, "SANITIZE": 132}),
    (commands.Opcode, {
        "FLUSH": 0, "WRITE": 1, "READ": 2, "WRITE_UNCORRECTABLE": 4, "COMPARE": 5,
        "WRITE_ZEROES": 8, "DATASET_MANAGEMENT": 9, "VERIFY": 12}),
    (commands.CNS, {
        "NAMESPACE": 0, "CONTROLLER": 1, "ACTIVE_NAMESPACES": 2, "NAMESPACE_DESCRIPTORS": 3,
        "ALLOCATED_NAMESPACES": 16, "ALLOCATED_NAMESPACE": 17, "ATTACHED_CONTROLLERS": 18,
        "CONTROLLERS": 19}),
    (commands.LogPage, {
        "ERRORS": 1, "SMART": 2, "FIRMWARE_SLOTS": 3, "CHANGED_NAMESPACES": 4,
        "COMMAND_EFFECTS": 5, "SELF_TEST": 6, "SANITIZE": 129}),
    (commands.FeatureId, {
        "ARBITRATION": 1, "POWER_MANAGEMENT": 2, "TEMPERATURE_THRESHOLD": 4, "ERROR_RECOVERY": 5,
        "VOLATILE_WRITE_CACHE": 6, "NUMBER_OF_QUEUES": 7, "INTERRUPT_COALESCING": 8,
        "INTERRUPT_VECTOR": 9, "WRITE_ATOMICITY": 10, "ASYNC_EVENTS": 11, "TIMESTAMP": 14,
        "KEEP_ALIVE": 15, "HOST_IDENTIFIER": 129}),
    (Status, {
        "SUCCESS": 0, "INVALID_OPCODE": 1, "INVALID_FIELD": 2, "COMMAND_ID_CONFLICT": 3,
        "DATA_TRANSFER_ERROR": 4, "INTERNAL_ERROR": 6, "ABORT_REQUESTED": 7,
        "ABORTED_BY_QUEUE_DELETION": 8, "INVALID_NAMESPACE_OR_FORMAT": 0xB,
        "COMMAND_SEQUENCE_ERROR": 0xC, "INVALID_PRP_OFFSET": 0x13, "LBA_OUT_OF_RANGE": 0x80,
        "CAPACITY_EXCEEDED": 0x81, "FORMAT_IN_PROGRESS": 0x84, "INVALID_COMPLETION_QUEUE": 0x100,
        "INVALID_QUEUE_ID": 0x101, "INVALID_QUEUE_SIZE": 0x102, "ABORT_LIMIT_EXCEEDED": 0x103,
        "ASYNC_EVENT_LIMIT_EXCEEDED": 0x105, "INVALID_INTERRUPT_VECTOR": 0x108,
        "INVALID_LOG_PAGE": 0x109, "INVALID_FORMAT": 0x10A, "INVALID_QUEUE_DELETION": 0x10C,
        "NAMESPACE_NOT_ATTACHED": 0x11A, "WRITE_FAULT": 0x280, "UNRECOVERED_READ_ERROR": 0x281,
        "COMPARE_FAILURE": 0x285, "DEALLOCATED_OR_UNWRITTEN_BLOCK": 0x287,
        "ABORTED_BY_HOST": 0x371}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "codes"), CODES, ids=name_of)
def test_codes(kind: type[Any], codes: dict[str, int]) -> None:
    assert {name: kind[name].value for name in codes} == codes


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0000, "success (status 0x000)"),
        (0x4080, "LBA out of range (status 0x080), do not retry"),
        (0x2281, "unrecovered read error (status 0x281), more in the error log"),
        (0x0013, "invalid PRP offset (status 0x013)"),
        (0x07C5, "vendor specific error 0xc5 (status 0x7c5)"),
        (0x0199, "command specific error 0x99 (status 0x199)"),
        (0x0400, "reserved error 0x00 (status 0x400)"),
    ],
)
def test_status_words(status: int, words: str) -> None:
    assert words_of(status) == words


def test_status_parts() -> None:
    assert code_of(0x4080) is Status.LBA_OUT_OF_RANGE
    assert code_of(0x47C5) == 0x7C5
    assert [retry_delay_of(status) for status in (0x0022, 0x0822, 0x1022, 0x7F22)] == [0, 1, 2, 3]


def test_texts_and_wide_numbers() -> None:
    text = np.frombuffer(b"QEMU NVMe\x07 Ctrl      \0\0", np.uint8)
    assert identify.text_of(text) == "QEMU NVMe? Ctrl"
    assert identify.wide_of(np.array([7, 1], np.uint64)) == 7 + (1 << 64)
    assert identify.ids_of(np.array([1, 3, 0, 9], np.uint32)) == [1, 3]
    assert identify.ids_of(np.array([1, 3], np.uint32)) == [1, 3]


def test_controller_list() -> None:
    assert identify.controllers_of(np.array([2, 5, 6, 0], np.uint16)) == [5, 6]
    with pytest.raises(DeviceError, match="says 4, but has place for 3"):
        identify.controllers_of(np.array([4, 5, 6, 0], np.uint16))


def test_descriptors() -> None:
    uuid = bytes(range(16))
    data = b"\x03\x10\0\0" + uuid + b"\x04\x01\0\0\x00" + bytes(20)
    assert list(identify.descriptors_of(data)) == [(3, uuid), (4, b"\0")]
    assert list(identify.descriptors_of(bytes(4096))) == []


@pytest.mark.parametrize("data", [b"\x01\x08\0\0" + bytes(7), b"\x01\0\0\0" + bytes(7)])
def test_a_descriptor_with_a_wrong_length_is_refused(data: bytes) -> None:
    with pytest.raises(DeviceError, match=r"namespace descriptor at 0: says \d bytes, but has 7"):
        list(identify.descriptors_of(data))


def test_the_lba_format_of_a_namespace() -> None:
    namespace = identify.IdentifyNamespace.array(1)[0]
    namespace["nlbaf"], namespace["flbas"] = 1, 0x21  # bits 6:5 mean nothing with two formats
    namespace["lbaf"][1], namespace["lbaf"][17] = 9 << 16, 12 << 16
    assert identify.format_of(namespace).lbads == 9
    namespace["nlbaf"] = 17
    assert identify.format_of(namespace).lbads == 12


def test_firmware_revisions() -> None:
    log = logs.FirmwareSlotLog.array(1)[0]
    log["frs"][8:13] = list(b"1.0.2")
    assert logs.revisions_of(log) == {2: "1.0.2"}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (0x040002, "notice: namespace changed"),
        (0x020101, "smart: temperature"),
        (0x010300, "error: persistent internal error"),
        (0x010007, "vendor: 0x00"),
        (0x000903, "type 3: 0x09"),
    ],
)
def test_event_words(event: int, words: str) -> None:
    assert logs.AsyncEvent(event).words == words
