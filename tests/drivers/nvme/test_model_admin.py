"""The NVMe model: admin commands (NVM Express Base Specification 1.4, section 5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.drivers.nvme.model_bench import BASE, CC, CSTS, DATA, FATAL, Bench, ready
from uspace_drivers.nvme.model.commands.firmware import MAGIC
from uspace_drivers.nvme.spec.commands import (
    ALL_NAMESPACES,
    CNS,
    AdminOpcode,
    FeatureId,
    LogPage,
    Opcode,
)
from uspace_drivers.nvme.spec.identify import IdentifyNamespace, descriptors_of, ids_of, text_of
from uspace_drivers.nvme.spec.logs import EffectsLog, ErrorLogEntry, FirmwareSlotLog, SmartLog
from uspace_drivers.nvme.spec.status import DNR, MORE, Status

pytestmark = pytest.mark.usefixtures("nothing_left")

SIZE = 1 << 20


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = ready(size=SIZE, namespaces=2)
    yield made
    made.model.close()


def feature(bench: Bench, number: int, select: int = 0, **fields: int) -> Any:
    return bench.admin(AdminOpcode.GET_FEATURES, cdw10=number | select << 8, prp1=DATA, **fields)


def set_feature(bench: Bench, number: int, value: int, **fields: int) -> Any:
    command = {"cdw10": number, "cdw11": value, "prp1": DATA, **fields}
    return bench.admin(AdminOpcode.SET_FEATURES, **command)


def smart(bench: Bench) -> Any:
    return np.frombuffer(bench.log(LogPage.SMART), SmartLog.dtype)[0]


def test_identify_controller(bench: Bench) -> None:
    raw = bench.identify(CNS.CONTROLLER)
    found = bench.controller()
    assert (text_of(found["sn"]), text_of(found["fr"])) == ("USPACE0001", "1.0")
    assert raw[4:24] == b"USPACE0001          "
    assert (raw[77], raw[512], raw[513]) == (7, 0x66, 0x44)
    assert struct.unpack_from("<I", raw, 80)[0] == 0x0001_0400
    assert raw[111] == 1
    assert text_of(found["subnqn"]).startswith("nqn.")
    assert found["tnvmcap"][0] == 4 * SIZE
    assert found["unvmcap"][0] == 2 * SIZE


def test_identify_namespaces(bench: Bench) -> None:
    found = bench.namespace()
    assert found["nsze"] == found["ncap"] == SIZE // 512
    assert [int(each) >> 16 & 0xFF for each in found["lbaf"][:3]] == [9, 12, 0]
    assert not any(bench.identify(CNS.NAMESPACE, 3))
    assert ids_of(np.frombuffer(bench.identify(CNS.ACTIVE_NAMESPACES), "<u4")) == [1, 2]
    assert ids_of(np.frombuffer(bench.identify(CNS.ACTIVE_NAMESPACES, 1), "<u4")) == [2]
    shared = np.frombuffer(bench.identify(CNS.NAMESPACE, ALL_NAMESPACES), IdentifyNamespace.dtype)
    assert (shared[0]["nsze"], shared[0]["nlbaf"]) == (0, 1)
    listed = dict(descriptors_of(bench.identify(CNS.NAMESPACE_DESCRIPTORS, 1)))
    assert listed == {1: bytes(found["eui64"]), 2: bytes(found["nguid"])}
    assert any(listed[1])
    assert bytes(bench.namespace(2)["eui64"]) != listed[1]


def test_identifiers_depend_on_the_serial_number_alone() -> None:
    first, again, other = (
        ready(serial=serial).namespace()["nguid"].tobytes() for serial in ("A", "A", "B")
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("cns", "namespace", "expected"),
    [
        (CNS.NAMESPACE, 0, Status.INVALID_NAMESPACE_OR_FORMAT),
        (CNS.NAMESPACE, 33, Status.INVALID_NAMESPACE_OR_FORMAT),
        (CNS.ACTIVE_NAMESPACES, 0xFFFF_FFFE, Status.INVALID_NAMESPACE_OR_FORMAT),
        (CNS.NAMESPACE_DESCRIPTORS, 3, Status.INVALID_FIELD),
        (CNS.COMMAND_SET_NAMESPACE, 1, Status.INVALID_FIELD),
        (CNS.COMMAND_SET_CONTROLLER, 0, Status.INVALID_FIELD),
        (0xFE, 0, Status.INVALID_FIELD),
    ],
)
def test_what_identify_refuses(bench: Bench, cns: int, namespace: int, expected: int) -> None:
    answer = bench.admin(AdminOpcode.IDENTIFY, cdw10=cns, namespace=namespace, prp1=DATA)
    assert answer.status == expected | DNR | MORE


def test_unknown_commands_and_flags_are_refused(bench: Bench) -> None:
    assert bench.admin(0x7F).code == Status.INVALID_OPCODE
    for flags in (1, 0x40, 0x80):
        assert bench.admin(AdminOpcode.KEEP_ALIVE, flags=flags).code == Status.INVALID_FIELD


def test_data_outside_of_memory_is_a_transfer_error(bench: Bench) -> None:
    answer = bench.admin(AdminOpcode.IDENTIFY, cdw10=1, prp1=0x7000_0000)
    assert answer.code == Status.DATA_TRANSFER_ERROR
    assert not answer.status & DNR


def test_number_of_queues(bench: Bench) -> None:
    assert feature(bench, FeatureId.NUMBER_OF_QUEUES).result == 63 << 16 | 63
    assert set_feature(bench, FeatureId.NUMBER_OF_QUEUES, 0).code == Status.COMMAND_SEQUENCE_ERROR
    bench.set(CC, 0)
    bench.enable()
    assert set_feature(bench, FeatureId.NUMBER_OF_QUEUES, 0xFFFF).code == Status.INVALID_FIELD
    assert set_feature(bench, FeatureId.NUMBER_OF_QUEUES, 500 << 16 | 500).result == 63 << 16 | 63
    assert set_feature(bench, FeatureId.NUMBER_OF_QUEUES, 1 << 16).result == 1 << 16 | 1
    answer = bench.admin(
        AdminOpcode.CREATE_COMPLETION_QUEUE, prp1=BASE + 0x4000, cdw10=15 << 16 | 3, cdw11=1
    )
    assert answer.code == Status.INVALID_QUEUE_ID


@pytest.mark.parametrize(
    ("number", "value", "seen"),
    [
        (FeatureId.ARBITRATION, 0x0102_0303, 0x0102_0303),
        (FeatureId.INTERRUPT_COALESCING, 0x0504, 0x0504),
        (FeatureId.WRITE_ATOMICITY, 1, 1),
        (FeatureId.VOLATILE_WRITE_CACHE, 0, 0),
        (FeatureId.ASYNC_EVENTS, 0x100, 0x100),
    ],
)
def test_features_keep_values(bench: Bench, number: int, value: int, seen: int) -> None:
    default = feature(bench, number).result
    assert set_feature(bench, number, value).status == 0
    assert feature(bench, number).result == seen
    assert feature(bench, number, 1).result == default
    bench.set(CC, 0)
    bench.enable()
    assert feature(bench, number).result == default


def test_a_saved_feature_survives_a_reset(bench: Bench) -> None:
    save = 1 << 31
    number = FeatureId.INTERRUPT_COALESCING
    assert set_feature(bench, number, 0x0504, cdw10=number | save).status == 0
    bench.set(CC, 0)
    bench.enable()
    assert feature(bench, number).result == feature(bench, number, 2).result == 0x0504
    assert feature(bench, number, 3).result == 5
    refused = set_feature(bench, FeatureId.KEEP_ALIVE, 1, cdw10=FeatureId.KEEP_ALIVE | save)
    assert refused.code == Status.FEATURE_NOT_SAVEABLE


def test_what_features_refuse(bench: Bench) -> None:
    assert feature(bench, 0x50).code == Status.INVALID_FIELD
    assert feature(bench, FeatureId.ARBITRATION, 5).code == Status.INVALID_FIELD
    assert feature(bench, FeatureId.HOST_MEMORY_BUFFER).code == Status.INVALID_FIELD
    assert set_feature(bench, FeatureId.POWER_MANAGEMENT, 1).code == Status.INVALID_FIELD
    assert set_feature(bench, FeatureId.INTERRUPT_VECTOR, 5).code == Status.INVALID_FIELD
    refused = set_feature(bench, FeatureId.ARBITRATION, 0, namespace=1)
    assert refused.code == Status.FEATURE_NOT_NAMESPACE_SPECIFIC
    assert set_feature(bench, FeatureId.ERROR_RECOVERY, 5, namespace=1).status == 0
    assert feature(bench, FeatureId.ERROR_RECOVERY, namespace=1).result == 5
    assert feature(bench, FeatureId.ERROR_RECOVERY, namespace=2).result == 0
    assert set_feature(bench, FeatureId.ERROR_RECOVERY, 1 << 16, namespace=1).code == (
        Status.INVALID_FIELD
    )


def test_the_timestamp_goes_on(bench: Bench) -> None:
    bench.store(DATA, struct.pack("<Q", 1_700_000_000_000))
    assert set_feature(bench, FeatureId.TIMESTAMP, 0).status == 0
    assert feature(bench, FeatureId.TIMESTAMP).status == 0
    found = struct.unpack("<Q", bench.load(DATA, 8))[0]
    assert found >> 49 & 7 == 1
    assert 0 <= (found & (1 << 48) - 1) - 1_700_000_000_000 < 60_000


def test_keep_alive_that_is_not_kept_is_fatal(bench: Bench) -> None:
    assert set_feature(bench, FeatureId.KEEP_ALIVE, 1000).status == 0
    bench.pass_time(0.9)
    bench.admin(AdminOpcode.KEEP_ALIVE)
    bench.pass_time(0.9)
    assert not bench.get(CSTS) & FATAL
    bench.pass_time(0.2)
    assert bench.get(CSTS) & FATAL
    bench.set(CC, 0)
    bench.enable()
    bench.pass_time(5.0)
    assert not bench.get(CSTS) & FATAL


def test_smart_counts_real_work(bench: Bench) -> None:
    before = smart(bench)
    assert before["power_cycles"][0] == 1
    for lba in range(3):
        bench.write_blocks(lba, bytes(4096))
    bench.read_blocks(0, 16)
    after = smart(bench)
    assert after["host_write_commands"][0] == 3
    assert after["host_read_commands"][0] == 1
    assert after["data_units_written"][0] == after["data_units_read"][0] == 1
    assert after["composite_temperature"] == 311
    assert bench.admin(AdminOpcode.GET_LOG_PAGE, namespace=1, prp1=DATA, cdw10=0x7F_0002).code == (
        Status.INVALID_FIELD
    )


def test_switching_off_without_a_shutdown_is_unsafe(bench: Bench) -> None:
    bench.model.close()
    bench.model.reset()
    bench.model.clock.freeze()
    bench.enable()
    assert (smart(bench)["power_cycles"][0], smart(bench)["unsafe_shutdowns"][0]) == (2, 1)
    bench.set(CC, bench.get(CC) | 1 << 14)
    bench.model.close()
    bench.model.reset()
    bench.model.clock.freeze()
    bench.enable()
    assert (smart(bench)["power_cycles"][0], smart(bench)["unsafe_shutdowns"][0]) == (3, 1)


def test_the_error_log_says_where(bench: Bench) -> None:
    answer = bench.io(Opcode.READ, 1 << 40)
    assert answer.status == Status.LBA_OUT_OF_RANGE | DNR | MORE
    newest, older = np.frombuffer(bench.log(LogPage.ERRORS, 128), ErrorLogEntry.dtype)
    assert (newest["sqid"], newest["cid"], newest["nsid"]) == (1, answer.id, 1)
    assert newest["status"] >> 1 == answer.status
    assert (newest["lba"], newest["location"], newest["error_count"]) == (1 << 40, 40, 1)
    assert older["error_count"] == 0
    assert smart(bench)["error_log_entries"][0] == 1


def test_log_pages_can_be_read_in_parts(bench: Bench) -> None:
    bench.io(Opcode.READ, 1 << 40)
    whole = bench.log(LogPage.ERRORS, 64)
    part = bench.admin(AdminOpcode.GET_LOG_PAGE, prp1=DATA, cdw10=3 << 16 | 1, cdw12=8)
    assert part.status == 0
    assert bench.load(DATA, 16) == whole[8:24]
    for fields in ({"cdw12": 2}, {"cdw12": 4096 + 4}, {"cdw11": 0xFF}):
        refused = bench.admin(AdminOpcode.GET_LOG_PAGE, prp1=DATA, **{"cdw10": 1} | fields)
        assert refused.code == Status.INVALID_FIELD
    refused = bench.admin(AdminOpcode.GET_LOG_PAGE, prp1=DATA, cdw10=0x40)
    assert refused.code == Status.INVALID_LOG_PAGE


def test_the_effects_log_lists_what_there_is(bench: Bench) -> None:
    answer = bench.admin(
        AdminOpcode.GET_LOG_PAGE, prp1=DATA, cdw10=0x03FF_0000 | LogPage.COMMAND_EFFECTS
    )
    assert answer.status == 0
    log = np.frombuffer(bench.load(DATA, 4096), EffectsLog.dtype)[0]
    assert log["acs"][AdminOpcode.IDENTIFY] == log["iocs"][Opcode.READ] == 1
    assert log["iocs"][Opcode.WRITE] == 3
    assert log["acs"][AdminOpcode.DOORBELL_BUFFER_CONFIG] == log["acs"][0xFF] == 0


def test_critical_warnings_are_told_once(bench: Bench) -> None:
    asked = [bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST) for _ in range(2)]
    bench.ring(0)
    bench.model.warn(spare=True)
    assert [(each.id, each.result) for each in bench.take(0)] == [(asked[0], 0x02_0201)]
    bench.model.set_temperature(400)
    assert bench.take(0) == []
    assert smart(bench)["critical_warning"] == 3
    assert [(each.id, each.result) for each in bench.others] == [(asked[1], 0x02_0101)]
    set_feature(bench, FeatureId.TEMPERATURE_THRESHOLD, 401)
    assert smart(bench)["critical_warning"] == 1
    set_feature(bench, FeatureId.TEMPERATURE_THRESHOLD, 1 << 20 | 400)
    assert smart(bench)["critical_warning"] == 3


def test_events_can_be_kept_when_their_page_is_read(bench: Bench) -> None:
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.ring(0)
    bench.model.warn(spare=True)
    assert len(bench.take(0)) == 1
    bench.log(LogPage.SMART, keeps_event=True)
    bench.model.warn(unreliable=True)
    assert bench.take(0) == []
    bench.log(LogPage.SMART)
    assert len(bench.others) == 1


def test_events_nobody_wants_are_not_told(bench: Bench) -> None:
    set_feature(bench, FeatureId.ASYNC_EVENTS, 0)
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.ring(0)
    bench.model.warn(spare=True)
    assert bench.take(0) == []


def test_event_requests_are_limited_and_can_be_aborted(bench: Bench) -> None:
    asked = [bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST) for _ in range(9)]
    bench.ring(0)
    assert [(each.id, each.code) for each in bench.take(0)] == [
        (asked[8], Status.ASYNC_EVENT_LIMIT_EXCEEDED)
    ]
    assert bench.admin(AdminOpcode.ABORT, cdw10=asked[0] << 16).result == 0
    assert [(each.id, each.code) for each in bench.others] == [(asked[0], Status.ABORT_REQUESTED)]
    bench.model.warn(spare=True)
    assert [each.id for each in bench.take(0)] == [asked[1]]


def test_abort_of_what_is_not_there(bench: Bench) -> None:
    assert bench.admin(AdminOpcode.ABORT, cdw10=5 << 16 | 1).result == 1
    assert bench.admin(AdminOpcode.ABORT, cdw10=5 << 16 | 9).code == Status.INVALID_FIELD
    assert bench.admin(AdminOpcode.ABORT, id=77, cdw10=77 << 16).result == 1  # itself


def test_format_changes_the_block_size_and_forgets(bench: Bench) -> None:
    bench.write_blocks(0, b"x" * 512)
    assert bench.admin(AdminOpcode.FORMAT, namespace=1, cdw10=1 | 1 << 9).status == 0
    assert bench.namespace()["nsze"] == SIZE // 4096
    assert bench.namespace()["flbas"] == 1
    assert bench.namespace(2)["flbas"] == 0
    bench.store(DATA, b"\xee" * 4096)
    assert bench.io(Opcode.READ).status == 0
    assert bench.load(DATA, 4096) == bytes(4096)
    assert bench.admin(AdminOpcode.FORMAT, namespace=ALL_NAMESPACES).status == 0
    assert bench.namespace()["flbas"] == bench.namespace(2)["flbas"] == 0


@pytest.mark.parametrize(
    ("cdw10", "expected"),
    [
        (5, Status.INVALID_FORMAT),
        (1 << 5, Status.INVALID_FORMAT),
        (2 << 9, Status.INVALID_FIELD),
    ],
)
def test_what_format_refuses(bench: Bench, cdw10: int, expected: int) -> None:
    assert bench.admin(AdminOpcode.FORMAT, namespace=1, cdw10=cdw10).code == expected


def create(bench: Bench, size: int, capacity: int | None = None, flbas: int = 0) -> Any:
    wish = IdentifyNamespace.array(1)
    wish["nsze"], wish["ncap"], wish["flbas"] = size, capacity or size, flbas
    bench.store(DATA, wish.tobytes())
    return bench.admin(AdminOpcode.NAMESPACE_MANAGEMENT, prp1=DATA, cdw10=0)


def attach(bench: Bench, number: int, action: int = 0, *controllers: int) -> Any:
    listed = np.zeros(2048, "<u2")
    listed[: len(controllers) + 1] = [len(controllers), *controllers]
    bench.store(DATA, listed.tobytes())
    return bench.admin(AdminOpcode.NAMESPACE_ATTACHMENT, namespace=number, prp1=DATA, cdw10=action)


def test_namespaces_come_and_go(bench: Bench) -> None:
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.ring(0)
    made = create(bench, 100, flbas=1)
    assert (made.status, made.result) == (0, 3)
    assert not any(bench.identify(CNS.NAMESPACE, 3))
    assert np.frombuffer(bench.identify(CNS.ALLOCATED_NAMESPACE, 3), "<u8")[0] == 100
    assert attach(bench, 3, 0, 7).code == Status.INVALID_CONTROLLER_LIST
    assert attach(bench, 3, 0, 0).status == 0
    assert [each.result for each in bench.others] == [0x04_0002]
    assert attach(bench, 3, 0, 0).code == Status.NAMESPACE_ALREADY_ATTACHED
    changed = np.frombuffer(bench.log(LogPage.CHANGED_NAMESPACES), "<u4")
    assert ids_of(changed) == [3]
    assert not any(bench.log(LogPage.CHANGED_NAMESPACES))
    assert bench.io(Opcode.READ, 99, namespace=3).status == 0
    assert bench.io(Opcode.READ, 100, namespace=3).code == Status.LBA_OUT_OF_RANGE
    assert attach(bench, 3, 1, 0).status == 0
    assert attach(bench, 3, 1, 0).code == Status.NAMESPACE_NOT_ATTACHED
    assert bench.io(Opcode.READ, namespace=3).code == Status.INVALID_FIELD
    assert bench.admin(AdminOpcode.NAMESPACE_MANAGEMENT, namespace=3, cdw10=1).status == 0
    assert ids_of(np.frombuffer(bench.identify(CNS.ALLOCATED_NAMESPACES), "<u4")) == [1, 2]


def test_deleting_an_attached_namespace_is_told(bench: Bench) -> None:
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.ring(0)
    delete = {"namespace": ALL_NAMESPACES, "cdw10": 1}
    assert bench.admin(AdminOpcode.NAMESPACE_MANAGEMENT, **delete).status == 0
    assert [each.result for each in bench.others] == [0x04_0002]
    assert ids_of(np.frombuffer(bench.log(LogPage.CHANGED_NAMESPACES), "<u4")) == [1, 2]
    assert bench.controller()["unvmcap"][0] == 4 * SIZE


def test_what_namespace_management_refuses(bench: Bench) -> None:
    assert create(bench, 0).code == Status.INVALID_FIELD
    assert create(bench, 8, 4).code == Status.THIN_PROVISIONING_UNSUPPORTED
    assert create(bench, 8, flbas=9).code == Status.INVALID_FORMAT
    assert create(bench, 2 * SIZE // 512 + 8).code == Status.INSUFFICIENT_CAPACITY
    gone = bench.admin(AdminOpcode.NAMESPACE_MANAGEMENT, namespace=9, cdw10=1)
    assert gone.code == Status.INVALID_FIELD
    assert bench.admin(AdminOpcode.NAMESPACE_MANAGEMENT, cdw10=7).code == Status.INVALID_FIELD


def download(bench: Bench, image: bytes, at: int = 0) -> Any:
    bench.store(DATA, image)
    return bench.admin(
        AdminOpcode.FIRMWARE_DOWNLOAD, prp1=DATA, cdw10=len(image) // 4 - 1, cdw11=at // 4
    )


def commit(bench: Bench, action: int, slot: int) -> Any:
    return bench.admin(AdminOpcode.FIRMWARE_COMMIT, cdw10=action << 3 | slot)


def test_firmware_is_activated_by_a_reset(bench: Bench) -> None:
    image = MAGIC + b"2.0     " + bytes(16)
    assert download(bench, image[16:], 16).status == 0
    assert download(bench, image[:16]).status == 0
    assert commit(bench, 1, 2).status == 0
    log = np.frombuffer(bench.log(LogPage.FIRMWARE_SLOTS), FirmwareSlotLog.dtype)[0]
    assert log["afi"] == 2 << 4 | 1
    assert bytes(log["frs"][:16]) == b"1.0     2.0     "
    bench.set(CC, 0)
    bench.enable()
    assert text_of(bench.controller()["fr"]) == "2.0"


def test_firmware_is_activated_at_once(bench: Bench) -> None:
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.ring(0)
    download(bench, MAGIC + b"3.0     ")
    assert commit(bench, 3, 0).status == 0
    assert [each.result for each in bench.others] == [0x03_0102]
    assert text_of(bench.controller()["fr"]) == "3.0"
    assert commit(bench, 3, 1).status == 0
    assert text_of(bench.controller()["fr"]) == "1.0"


def test_what_firmware_commands_refuse(bench: Bench) -> None:
    assert commit(bench, 0, 2).code == Status.INVALID_FIRMWARE_IMAGE
    download(bench, b"not an image of this model......")
    assert commit(bench, 0, 2).code == Status.INVALID_FIRMWARE_IMAGE
    for start in (16, 4096):  # without its beginning, and with a hole
        download(bench, MAGIC + b"4.0     ", start)
        assert commit(bench, 0, 2).code == Status.INVALID_FIRMWARE_IMAGE
        download(bench, MAGIC + b"4.0     ")
    assert commit(bench, 0, 2).status == 0
    assert commit(bench, 2, 3).code == Status.INVALID_FIRMWARE_SLOT
    assert commit(bench, 0, 7).code == Status.INVALID_FIRMWARE_SLOT
    assert commit(bench, 6, 1).code == Status.INVALID_FIELD
    download(bench, bytes(64))
    assert download(bench, bytes(64), 32).code == Status.OVERLAPPING_RANGE
