"""What a controller says of itself is checked before the driver builds on it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from uspace_drivers.nvme.control.events import Events
from uspace_drivers.nvme.control.identity import controller_identity, namespace_identity
from uspace_drivers.nvme.control.management import Management
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import CNS, AdminOpcode, CommitAction, LogPage
from uspace_drivers.nvme.spec.features import AsyncEventConfiguration
from uspace_drivers.nvme.spec.identify import IdentifyController, IdentifyNamespace
from uspace_drivers.nvme.spec.logs import AsyncEvent, EventType
from uspace_drivers.nvme.spec.status import DNR, Status
from uspace_drv import DeviceError, RegisterValueError, UnsupportedError
from uspace_drv.layout import Structures

WHERE = "0000:00:04.0"
FORMAT_512 = 9 << 16
FORMAT_4096 = 12 << 16


def a_controller(**changes: Any) -> Any:
    made = IdentifyController.array(1)
    made["sqes"], made["cqes"], made["nn"], made["mdts"] = 0x66, 0x44, 4, 7
    made["aerl"], made["acl"], made["elpe"], made["ver"] = 3, 3, 63, 0x10400
    made["rtd3e"], made["oacs"], made["frmw"] = 1_500_000, 0x0E, 0x06
    for name, value in changes.items():
        made[name] = value
    return made[0]


def a_namespace(**changes: Any) -> Any:
    made = IdentifyNamespace.array(1)
    made["nsze"], made["ncap"], made["nuse"] = 1000, 1000, 10
    made["lbaf"][0, :3] = FORMAT_512, FORMAT_4096, FORMAT_4096 | 8
    made["nlbaf"] = 2
    for name, value in changes.items():
        made[name] = value
    return made[0]


def test_controller() -> None:
    found = controller_identity(WHERE, a_controller(), 4096)
    assert found.version == "1.4.0"
    assert found.transfer_limit == 512 * 1024
    assert (found.event_limit, found.abort_limit, found.error_entries) == (4, 4, 64)
    assert found.shutdown_time == 1.5
    assert found.firmware_slots == 3
    assert found.admin_support.format
    assert not found.has_volatile_cache


@pytest.mark.parametrize("mdts", [0, 33, 255])
def test_no_limit_of_transfers(mdts: int) -> None:
    assert controller_identity(WHERE, a_controller(mdts=mdts), 4096).transfer_limit is None


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"sqes": 0x77}, UnsupportedError, r"1 << 7 to 1 << 7 bytes \(SQES\)"),
        ({"sqes": 0}, UnsupportedError, "SQES"),
        ({"cqes": 0x65}, UnsupportedError, "CQES"),
        ({"nn": 0}, DeviceError, "no namespace at all"),
        ({"cntrltype": 2}, UnsupportedError, "controller type 2"),
    ],
)
def test_controllers_that_are_refused(
    changes: dict[str, int], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        controller_identity(WHERE, a_controller(**changes), 4096)


def test_namespace() -> None:
    found = namespace_identity(WHERE, 3, a_namespace(flbas=1, noiob=8, nsattr=1))
    assert found is not None
    assert (found.id, found.block_size, found.shift, found.blocks) == (3, 4096, 12, 1000)
    assert (found.format, found.metadata, found.boundary, found.write_protected) == (1, 0, 8, True)
    assert found.size == 4_096_000
    assert (found.nguid, found.eui64) == ("", "")
    found.require_plain(WHERE)


def test_namespace_that_is_not_there() -> None:
    assert namespace_identity(WHERE, 3, a_namespace(nsze=0)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flbas": 3}, "has LBA format 3, but only 3 are declared"),
        ({"flbas": 15, "nlbaf": 14}, "has LBA format 15, but only 15"),
        ({"flbas": 3, "nlbaf": 3}, r"blocks of 1 << 0 bytes; expected 9 to 16"),
        ({"nsze": 1 << 55, "ncap": 0}, r"more than 2\*\*64"),
        ({"ncap": 1001}, "a capacity of 1001 of 1000 blocks"),
    ],
)
def test_namespaces_that_cannot_be(changes: dict[str, int], words: str) -> None:
    with pytest.raises(DeviceError, match=f"{WHERE} namespace 3: .*{words}"):
        namespace_identity(WHERE, 3, a_namespace(**changes))


@pytest.mark.parametrize("shift", [0, 8, 17, 255])
def test_impossible_block_sizes(shift: int) -> None:
    found = a_namespace()
    found["lbaf"][0] = shift << 16
    with pytest.raises(DeviceError, match=f"1 << {shift} bytes"):
        namespace_identity(WHERE, 1, found)


def test_metadata_is_refused_and_the_other_formats_are_named() -> None:
    found = namespace_identity(WHERE, 1, a_namespace(flbas=2))
    assert found is not None
    with pytest.raises(UnsupportedError, match=r"8 bytes of metadata.*without metadata: 0, 1$"):
        found.require_plain(WHERE)


def test_protection_information_is_refused() -> None:
    found = namespace_identity(WHERE, 1, a_namespace(dps=1))
    assert found is not None
    with pytest.raises(UnsupportedError, match="protection type 1"):
        found.require_plain(WHERE)


class Scripted(Management):
    """Answers Identify and log pages from what a test put down, and keeps what it was sent."""

    name = WHERE
    page_size = 4096

    def __init__(self, **identity: Any) -> None:
        self.pages: dict[tuple[int, int], NDArray[Any]] = {}
        self.sent: list[Structures] = []
        self.result = 0
        self.error = 0
        self.identity = controller_identity(WHERE, a_controller(**identity), 4096)

    def admin(
        self, command: Structures, data: NDArray[Any] | None = None, timeout: float = 1.0
    ) -> int:
        self.sent.append(command)
        opcode = int(command["opcode"][0])
        if self.error:
            raise CommandError(self.name, opcode, int(command["namespace"][0]), self.error)
        key = int(command["cdw10"][0]) & 0xFF, int(command["namespace"][0])
        if data is not None and opcode == AdminOpcode.IDENTIFY:
            content = self.pages.get(key, np.zeros(0, "u1"))
            data[: content.nbytes] = content.view("u1")
        return self.result


def test_namespace_list_goes_on_where_a_page_is_full() -> None:
    commands = Scripted()
    commands.pages[CNS.ACTIVE_NAMESPACES, 0] = np.arange(1, 1025, dtype="<u4")
    commands.pages[CNS.ACTIVE_NAMESPACES, 1024] = np.array([2000, 3000], "<u4")
    assert commands.active_namespaces() == [*range(1, 1025), 2000, 3000]


@pytest.mark.parametrize("page", [[3, 2], [1, 1], [5, 6, 6]])
def test_namespace_list_that_does_not_ascend(page: list[int]) -> None:
    commands = Scripted()
    commands.pages[CNS.ACTIVE_NAMESPACES, 0] = np.array(page, "<u4")
    with pytest.raises(DeviceError, match="do not ascend"):
        commands.active_namespaces()


def test_namespace_list_that_never_ends() -> None:
    commands = Scripted()
    page = np.arange(1, 1025, dtype="<u4")
    commands.pages[CNS.ACTIVE_NAMESPACES, 0] = page
    commands.pages[CNS.ACTIVE_NAMESPACES, 1024] = page
    with pytest.raises(DeviceError, match="do not ascend after 1024"):
        commands.active_namespaces()


def test_controller_list_that_says_more_than_it_holds() -> None:
    commands = Scripted()
    commands.pages[CNS.CONTROLLERS, 0] = np.array([2048], "<u2")
    with pytest.raises(DeviceError, match="says 2048"):
        commands.controllers()


@pytest.mark.parametrize(
    ("given", "wanted"), [(0x003F_003F, 64), (0x0001_0003, 2), (0x00FF_00FF, 64)]
)
def test_granted_queues(given: int, wanted: int) -> None:
    commands = Scripted()
    commands.result = given
    assert commands.request_queues(64) == wanted
    assert int(commands.sent[0]["cdw11"][0]) == 0x003F_003F


def test_impossible_grant_of_queues() -> None:
    commands = Scripted()
    commands.result = 0xFFFF_FFFF
    with pytest.raises(DeviceError, match="impossible number of queues"):
        commands.request_queues(64)


def test_long_log_is_read_in_pieces() -> None:
    commands = Scripted()
    assert commands.get_log(LogPage.ERRORS, 40_000, offset=64).nbytes == 40_000
    lengths = [int(each["cdw10"][0]) >> 16 for each in commands.sent]
    assert lengths == [4095, 4095, (40_000 - 32_768) // 4 - 1]
    assert [int(each["cdw12"][0]) for each in commands.sent] == [64, 64 + 16384, 64 + 32768]


def test_pieces_are_no_larger_than_the_controller_takes() -> None:
    commands = Scripted()
    commands.data_limit = 4096
    commands.get_log(LogPage.ERRORS, 10_000)
    assert [(int(each["cdw10"][0]) >> 16) * 4 + 4 for each in commands.sent] == [4096, 4096, 1808]


def test_command_error_says_what_and_where() -> None:
    error = CommandError(WHERE, AdminOpcode.FORMAT, 3, Status.INVALID_FORMAT | DNR)
    assert str(error).startswith(f"{WHERE}: format (0x80) of namespace 3 failed: invalid format")
    assert error.code == Status.INVALID_FORMAT
    assert not error.may_be_repeated


def test_what_the_controller_does_not_have_is_not_sent() -> None:
    commands = Scripted(oacs=0)
    for act in (
        lambda: commands.format(1, 0),
        lambda: commands.create_namespace(100),
        lambda: commands.delete_namespace(1),
        lambda: commands.attach_namespace(1),
        lambda: commands.download_firmware(bytes(4)),
        lambda: commands.commit_firmware(1, CommitAction.STORE),
    ):
        with pytest.raises(UnsupportedError, match="this controller cannot"):
            act()
    assert not commands.sent


def test_firmware_goes_in_pieces_of_its_granularity() -> None:
    commands = Scripted(fwug=3)
    commands.download_firmware(bytes(30_000))
    places = [(int(each["cdw11"][0]) * 4, int(each["cdw10"][0]) * 4 + 4) for each in commands.sent]
    assert places == [(0, 12288), (12288, 12288), (24576, 30_000 - 24576)]


def test_firmware_that_is_no_number_of_dwords() -> None:
    with pytest.raises(RegisterValueError, match="5 bytes is no number of dwords"):
        Scripted().download_firmware(bytes(5))


def test_firmware_pieces_that_do_not_fit() -> None:
    with pytest.raises(UnsupportedError, match="pieces of less than 20480 bytes"):
        Scripted(fwug=5).download_firmware(bytes(4))


def test_commit_that_wants_a_reset_is_done() -> None:
    commands = Scripted()
    commands.error = Status.FIRMWARE_NEEDS_CONTROLLER_RESET
    assert commands.commit_firmware(2, CommitAction.STORE_AND_ACTIVATE)
    commands.error = Status.INVALID_FIRMWARE_SLOT
    with pytest.raises(CommandError, match="firmware slot"):
        commands.commit_firmware(2, CommitAction.STORE_AND_ACTIVATE)


@given(st.dictionaries(st.integers(0, 600), st.integers(0, 255), max_size=40))
def test_any_bytes_are_an_identity_or_an_error(changes: dict[int, int]) -> None:
    """Bytes changed here and there, in what is right otherwise."""
    namespace = np.frombuffer(bytearray(a_namespace().tobytes()), "u1")
    controller = np.frombuffer(bytearray(a_controller().tobytes()), "u1")
    for place, value in changes.items():
        namespace[place] = controller[place] = value
    with suppress(DeviceError, UnsupportedError):
        found = namespace_identity(WHERE, 1, IdentifyNamespace.view(namespace)[0])
        assert found is None or 512 <= found.block_size <= 65536
    with suppress(DeviceError, UnsupportedError):
        limit = controller_identity(WHERE, IdentifyController.view(controller)[0], 4096)
        assert limit.transfer_limit is None or limit.transfer_limit >= 8192


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 0x7FFF))
def test_any_event_is_taken_and_its_page_read(result: int, status: int) -> None:
    commands = Scripted()
    posted: list[int] = []
    events = Events(commands, lambda command, _: posted.append(int(command["opcode"][0])))
    heard: list[AsyncEvent] = []
    events.listen(heard.append)
    events.take(status, result)
    events.serve()
    assert [each.raw for each in heard] == ([] if status else [result])
    assert posted == ([] if status else [AdminOpcode.ASYNC_EVENT_REQUEST])
    pages = [int(each["cdw10"][0]) & 0xFF for each in commands.sent]
    assert pages == ([] if status or not result >> 16 & 0xFF else [result >> 16 & 0xFF])


def test_event_whose_page_cannot_be_read_is_handed_on() -> None:
    commands = Scripted()
    commands.error = Status.INVALID_LOG_PAGE
    events = Events(commands, lambda *_: None)
    heard: list[AsyncEvent] = []
    end = events.listen(heard.append)
    events.take(0, AsyncEvent(type=EventType.VENDOR, log=LogPage.SMART).raw)
    events.serve()
    end()
    events.take(0, AsyncEvent(type=EventType.VENDOR).raw)
    events.serve()
    assert len(heard) == 1
    assert len(events.recent) == 2


def test_events_that_are_not_offered_are_not_asked_for() -> None:
    commands = Scripted(oaes=1 << 8, aerl=1)
    posted: list[int] = []
    events = Events(commands, lambda *_: posted.append(1))
    events.start(commands.identity)
    wanted = AsyncEventConfiguration(int(commands.sent[0]["cdw11"][0]))
    assert wanted.namespace_attributes
    assert not wanted.firmware_activation
    assert len(posted) == 2
