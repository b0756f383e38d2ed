"""What one hostile client can do to the server and to the clients after it: nothing."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tests.vfiouser.raw_client import PAGE, Copier, RawClient
from uspace_drivers.edu import EduModel
from uspace_drv.errors import DeviceTimeout, UspaceError
from uspace_drv.eventfd import SharedEventFd
from uspace_drv.models.iommu import Mapping
from uspace_drv.native import Message
from uspace_drv.testing.served import ServedModel
from uspace_drv.vfio_numbers import IrqAction
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.server import Server
from uspace_drv.vfiouser.server.guest_memory import FileMemory
from uspace_drv.vfiouser.wire import RegionAccess, pack

INTX, MSI, MSIX = 0, 1, 2
SIGNAL = IrqAction.DATA_EVENTFD | IrqAction.TRIGGER
FIRE = IrqAction.DATA_NONE | IrqAction.TRIGGER
MASK = IrqAction.DATA_NONE | IrqAction.MASK
UNMASK = IrqAction.DATA_NONE | IrqAction.UNMASK


def check_alive(path: Path) -> None:
    with RawClient(path) as sane:
        sane.greet()
        assert not sane.write(0, 0x600D).error
        assert sane.read(0) == 0x600D


def guest_file(pages: int = 1) -> int:
    file = os.memfd_create("guest")
    os.ftruncate(file, pages * PAGE)
    return file


def test_files_of_a_client_are_bounded(client: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspace_drv.vfiouser.server.guest_memory.MOST_FILES", 4)
    answers = []
    for number in range(6):
        file = guest_file()
        answers.append(client.map(number * PAGE, PAGE, file).error)
        os.close(file)
    assert answers == [0] * 4 + [errno.ENOSPC] * 2
    assert not client.unmap(0, PAGE).error
    file = guest_file()
    assert not client.map(0, PAGE, file).error
    os.close(file)


def test_memory_is_given_back_whatever_fails(
    server: Server, model: Copier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model still reaches stays mapped; all else goes."""
    real = model.memory.detach

    def fail(iova: int, size: int) -> Sequence[Mapping]:
        if iova == PAGE:
            raise MemoryError("on purpose")
        return real(iova, size)

    files = [guest_file() for _ in range(3)]
    with RawClient(server.path) as client, monkeypatch.context() as broken:
        client.greet()
        for number, file in enumerate(files):
            client.map(number * PAGE, PAGE, file)
        broken.setattr(model.memory, "detach", fail)
        client.channel.close()
        with RawClient(server.path) as after:
            after.greet()
    for file in files:
        os.close(file)
    assert "on purpose" in str(server.complaints[0])
    (left,) = model.memory.mappings
    assert left.iova == PAGE
    assert isinstance(left.memory, FileMemory)
    assert Path("/proc/self/maps").read_text().count("memfd:guest") == 1
    model.memory.unmap_all()
    left.memory.close()
    assert "memfd:guest" not in Path("/proc/self/maps").read_text()


def test_no_descriptor_for_a_twin_socket(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> NoReturn:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as broken, RawClient(server.path) as client:
        broken.setattr("uspace_drv.vfiouser.server.session.socket.socketpair", fail)
        with pytest.raises(UspaceError):
            client.greet(twin=True)
    check_alive(server.path)
    assert "twin socket" in str(server.complaints[0])


def test_a_server_out_of_descriptors_lives_on(tmp_path: Path) -> None:
    with ServedModel(EduModel) as served:
        open_now = len([*Path(f"/proc/{served.pid}/fd").iterdir()])
        few = open_now + 2
        before = resource.prlimit(served.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (few, before[1]))
        with RawClient(served.path) as client, pytest.raises(UspaceError):
            client.greet(twin=True)
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, before)
        with RawClient(served.path) as client:
            client.greet(twin=True)


def test_who_listens_may_fail(model: Copier, tmp_path: Path) -> None:
    def fail(what: object) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, "nobody reads this")

    with Server(model, tmp_path / "socket", complain=fail, notice=fail) as server:
        with RawClient(server.path) as client:
            client.greet()
            assert client.command(99).error == errno.ENOSYS
        check_alive(server.path)
        assert "BrokenPipeError" in str(server.complaints[-1])


def test_who_comes_and_goes_is_told(model: Copier, tmp_path: Path) -> None:
    told: list[str] = []
    with Server(model, tmp_path / "socket", notice=told.append) as server:
        for _ in range(2):
            with RawClient(server.path) as client:
                client.greet()
    who = f"client of process {os.getpid()}"
    assert told[:3] == [f"{who} came", f"{who} left", f"{who} came"]


def fill(event: int) -> None:
    """Make the next write block, if writes of this description may."""
    os.set_blocking(event, True)
    os.eventfd_write(event, (1 << 64) - 2)


def test_an_eventfd_that_was_made_to_block(server: Server, model: Copier) -> None:
    with RawClient(server.path) as client:
        client.greet()
        client.be_bus_master()
        full = os.eventfd(0, os.EFD_CLOEXEC)
        client.set_irqs(SIGNAL, MSI, 0, 1, [full])
        fill(full)
        assert not client.set_irqs(FIRE, MSI).error
        model.interrupts.send()
        os.eventfd_read(full)
        model.interrupts.send()
        assert os.eventfd_read(full) == 1
        os.close(full)


def test_taking_from_a_shared_eventfd_never_blocks() -> None:
    event = SharedEventFd()
    os.set_blocking(event.fileno(), True)
    assert event.take() == 0
    event.signal()
    event.signal()
    assert event.take() == 2
    event.close()


def test_the_socket_goes_even_where_the_model_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    go_on = threading.Event()

    class Stuck(Copier):
        def write_other(self, bar: int, offset: int, width: int, value: int) -> None:
            go_on.wait(10.0)

    model = Stuck()
    monkeypatch.setattr("uspace_drv.vfiouser.server.listening.LEAVE_TIMEOUT", 0.1)
    server = Server(model, tmp_path / "socket").start()
    with RawClient(server.path) as client:
        client.greet()
        client.send(Command.REGION_WRITE, pack(RegionAccess(0x800, 0, 4), bytes(4)))
        while client.channel.receive(0.05) is not None:
            pass
        with pytest.raises(DeviceTimeout):
            server.close()
        assert not server.path.exists()
        go_on.set()
    server.close()
    model.close()


def test_masks_need_a_line_and_go_with_the_client(server: Server, model: Copier) -> None:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    with RawClient(server.path) as client:
        client.greet()
        for index in (INTX, MSI, MSIX):
            expected = errno.EINVAL if index == INTX else errno.ENOTSUP
            assert client.set_irqs(MASK, index).error == expected
            assert client.set_irqs(UNMASK, index).error == expected
        client.set_irqs(SIGNAL, INTX, 0, 1, [event])
        assert not client.set_irqs(MASK, INTX).error
    with RawClient(server.path) as client:
        client.greet()
        client.set_irqs(SIGNAL, INTX, 0, 1, [event])
        model.interrupts.set_level(True)
        assert os.eventfd_read(event) == 1
    os.close(event)


def leave(client: RawClient, request: Message) -> None:
    """Say nothing more."""


def lie(client: RawClient, request: Message) -> None:
    client.channel.send(request.id, request.command, Flag.REPLY, 0, b"junk")


@pytest.mark.parametrize("end", [leave, lie])
def test_a_failure_in_the_background_stays_with_its_client(
    server: Server, model: Copier, end: Callable[[RawClient, Message], None]
) -> None:
    with RawClient(server.path) as client:
        client.greet()
        client.be_bus_master()
        client.map(0, PAGE)
        client.copy(0, 0x100, 8, how=2)
        request = client.channel.receive(10.0)
        assert request is not None
        assert request.command == Command.DMA_READ
        end(client, request)
    check_alive(server.path)
    assert len(server.complaints) == 1
    model.close()


def test_a_lie_in_the_background_is_a_failure_of_the_model(client: RawClient) -> None:
    client.be_bus_master()
    client.map(0, PAGE)
    client.copy(0, 0x100, 8, how=2)
    request = client.channel.receive(10.0)
    assert request is not None
    lie(client, request)
    answers = [client.write(0, 5).error for _ in range(2)]
    assert answers == [errno.EIO, 0]


def test_what_fails_later_stays_with_its_client(server: Server, model: Copier) -> None:
    model.clock.freeze()
    with RawClient(server.path) as client:
        client.greet()
        client.be_bus_master()
        client.map(0, PAGE)
        client.copy(0, 0x100, 8, how=2)
    with RawClient(server.path) as client:
        client.greet()
        model.clock.advance(1.0)
        assert client.read(0) == 0
    assert "was unmapped before" in str(server.complaints[0])


def test_what_crosses_a_request_is_bounded_in_bytes(server: Server) -> None:
    big = pack(RegionAccess(0, 2, 1 << 20), bytes(1 << 20))
    with RawClient(server.path) as client:
        client.greet()
        client.be_bus_master()
        client.map(0, PAGE)
        client.copy_posted(0, 0x100, 8)
        with suppress(UspaceError):  # it hangs up in the middle
            for _ in range(8):
                client.send(Command.REGION_WRITE, big, flags=Flag.NO_REPLY)
        assert client.is_dropped()
    check_alive(server.path)
    assert "too many commands" in str(server.complaints[0])


def test_the_twin_socket_takes_replies_only(server: Server) -> None:
    with RawClient(server.path) as client:
        client.greet(twin=True)
        client.be_bus_master()
        client.map(0, PAGE)
        client.copy_posted(0, 0x100, 8)
        assert client.twin is not None
        assert client.twin.receive(10.0) is not None
        client.twin.send(5, Command.DEVICE_RESET, 0, 0, b"")
        assert client.is_dropped()
    check_alive(server.path)
    assert "expected replies only" in str(server.complaints[0])


def test_a_served_model_that_does_not_start_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspace_drv.testing.served.START_TIMEOUT", 0.0)
    served = ServedModel(EduModel)
    with pytest.raises(DeviceTimeout, match="does not listen"):
        served.start()
    assert served.pid == 0
    assert not served.path.parent.exists()
