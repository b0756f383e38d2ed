"""A loan resets the device first, and gives everything back where it cannot be made."""

from __future__ import annotations

import ctypes
import os
import socket

import pytest

from tests.broker.test_broker import FakeOpening
from uspace_drv.backends.vfio import uapi
from uspace_drv.broker import loan
from uspace_drv.broker.wire import Peer
from uspace_drv.errors import HostError
from uspace_drv.vfio_numbers import DeviceFlag


@pytest.mark.parametrize("can_reset", [True, False])
def test_reset_where_the_kernel_can(monkeypatch: pytest.MonkeyPatch, can_reset: bool) -> None:
    asked: list[uapi.Request] = []

    def call(_where: str, _fd: int, request: uapi.Request, argument: object) -> int:
        asked.append(request)
        if isinstance(argument, ctypes.Structure) and can_reset:
            setattr(argument, "flags", DeviceFlag.RESET)  # noqa: B010 - it is any structure
        return 0

    monkeypatch.setattr(loan, "call", call)
    opening = FakeOpening()
    loan.reset("0000:00:04.0", opening)
    assert (uapi.Request.DEVICE_RESET in asked) is can_reset
    opening.close()
    assert os.read(opening.read_end, 1) == b""  # the device's descriptor is closed too
    os.close(opening.read_end)


def test_a_peer_that_has_left_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loan, "reset", lambda *_: None)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there.close()
    opening = FakeOpening()
    with here, pytest.raises(HostError, match=r"0000:00:04\.0: not handed over: .*Broken pipe"):
        loan.Loan("0000:00:04.0", opening, here, Peer(1, 0))
    assert opening.closed
    os.close(opening.read_end)
