"""A hostile server: whatever it answers, the client raises an error in words and leaves nothing."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backends.vfio_user_device import PAGE, memory_file, sharing_device
from tests.vfiouser.scripted_server import Handler, Reply, ScriptedServer
from uspace_drv.backends.vfio_user import VfioUserDevice
from uspace_drv.device import Device
from uspace_drv.errors import DeviceTimeout, UspaceError
from uspace_drv.native import Message
from uspace_drv.port import IrqKind
from uspace_drv.testing.belongings import belongings
from uspace_drv.vfiouser import client
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.refusals import close_all

WAIT = 10.0


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(client, "TIMEOUT", 0.03)
    with memory_file(4 * PAGE) as fd, ScriptedServer(tmp_path / "s") as server:
        server.device = sharing_device(fd, [(PAGE, PAGE), (3 * PAGE, PAGE)])
        yield server


NUMBERS = st.one_of(
    st.integers(0, 64),
    st.sampled_from([0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, PAGE - 1, PAGE, 1 << 20]),
)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, int, int]:
    """What is done to a reply, where, and with which number."""
    kinds = ["byte", "u32", "u64", "cut", "grow", "fds", "id", "command", "error", "type", "raw"]
    kind = draw(st.sampled_from([*kinds, "silence", "end"]))
    return kind, draw(st.integers(0, 80)), draw(NUMBERS)


def mangled(reply: Reply, kind: str, place: int, number: int) -> Reply | None:
    body = bytearray(reply.payload)
    place = min(place, len(body))
    if kind in {"byte", "u32", "u64"}:
        size = {"byte": 1, "u32": 4, "u64": 8}[kind]
        start = place // size * size
        body[start : start + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
    changed: dict[str, Reply | None] = {
        "cut": replace(reply, payload=reply.payload[:place]),
        "grow": replace(reply, payload=reply.payload + bytes(number % 5000)),
        "fds": replace(reply, fds=[0] * (number % 20)),
        "id": replace(reply, id=number & 0xFFFF),
        "command": replace(reply, command=number & 0xFFFF),
        "error": replace(reply, error=number),
        "type": replace(reply, flags=number & 0x3F),
        "raw": replace(reply, raw=bytes(body)[:place] + b"\xff" * (number % 100)),
        "silence": None,
        "end": replace(reply, raw=b""),
    }
    return changed.get(kind, replace(reply, payload=bytes(body)))


def live(path: Path) -> None:
    """Open a device, use everything that it has, and close it."""
    with closing(VfioUserDevice(str(path))) as backend, closing(Device(backend)) as device:
        steps = [
            lambda: device.config.read32(0),
            lambda: device.config.write16(4, 6),
            lambda: device.bar(0).write32(0, 1),
            lambda: device.bar(0).read64(8),
            lambda: device.bar(2).read32(PAGE),
            lambda: device.bar(2).read32(2 * PAGE),
            lambda: device.bar(2).write32(3 * PAGE, 1),
            lambda: device.irq(1).poll(),
            lambda: device.irq(0).poll(),
            lambda: device.dma.alloc("u1", 100).close(),
            lambda: backend.io_fds(0),
            lambda: backend.migration.support,
            device.reset,
        ]
        for step in steps:
            with suppress(UspaceError):
                step()


def test_the_life_of_a_device_goes_well_without_mangling(server: ScriptedServer) -> None:
    with closing(VfioUserDevice(str(server.path))) as backend:
        assert backend.irq_counts[IrqKind.MSI] == 4
        assert backend.bar_sizes == {0: 256, 2: 4 * PAGE}
    live(server.path)


@given(which=st.integers(0, 40), mutation=mutations())
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_reply_may_be_anything(
    server: ScriptedServer, which: int, mutation: tuple[str, int, int]
) -> None:
    replies = 0

    def mangle(reply: Reply) -> Reply | None:
        nonlocal replies
        replies += 1
        return mangled(reply, *mutation) if replies == which + 1 else reply

    server.mangle = mangle
    server.served.clear()
    before = belongings()
    with suppress(UspaceError):
        live(server.path)
    assert server.served.wait(WAIT)
    assert belongings() == before


def answering(payload: bytes) -> Handler:
    def answer(message: Message) -> Reply:
        close_all(message.fds)
        return Reply(payload)

    return answer


@pytest.mark.parametrize("command", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 16])
def test_every_reply_with_every_length(server: ScriptedServer, command: int) -> None:
    before = belongings()
    for length in range(129):
        server.handlers[command] = answering((b"\0" if length % 2 else b"\xff") * length)
        server.served.clear()
        with suppress(UspaceError):
            live(server.path)
        assert server.served.wait(WAIT)
    assert belongings() == before


def test_flood_of_requests_ends_at_the_deadline(server: ScriptedServer) -> None:
    block = struct.pack("<HHIII", 7, 99, 16, Flag.NO_REPLY, 0) * 4096

    def flood(_: Message) -> None:
        assert server.channel is not None
        os.write(server.channel.fileno(), block)

    def answer(command: int, payload: bytes) -> bytes:
        time.sleep(0.005)  # 20 s for all of them
        return payload

    with closing(VfioUserDevice(str(server.path))) as backend:
        server.handlers[Command.DEVICE_RESET] = flood
        backend._session.answer = answer
        start = time.monotonic()
        with pytest.raises(DeviceTimeout, match="no reply to DEVICE_RESET"):
            backend.reset()
        assert time.monotonic() - start < 3.0
