"""`uspace broker` starts a broker and ends it; what a broker does is tested where it is done."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from uspace_drv.cli import broker
from uspace_drv.errors import BusyError
from uspace_drv.pci.address import PciAddress

Uspace = Callable[..., Result]


class FakeBus:
    """One function, which can be reset in these ways."""

    reset_methods: tuple[str, ...] = ("flr",)

    def function(self, address: PciAddress) -> Any:
        return self


class FakeBroker:
    made: list[Any] = []

    def __init__(self, *words: Any, notice: Callable[[str], None], **options: Any) -> None:
        self.made += [words, options]
        self._notice = notice

    def serve(self) -> None:
        self._notice("lent to process 1")
        signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        self.made.append("closed")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBroker, "made", [])
    monkeypatch.setattr(broker, "Broker", FakeBroker)
    monkeypatch.setattr(broker, "PciBus", FakeBus)


@pytest.mark.usefixtures("served")
def test_a_device_without_a_reset_is_said(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBus, "reset_methods", ())
    result = uspace("broker", "00:04.0", "/run/edu")
    assert "0000:00:04.0: no way to reset it: a client finds it as the one before" in result.stderr


@pytest.mark.usefixtures("served")
def test_it_serves_until_it_is_told_to_end(uspace: Uspace) -> None:
    result = uspace("broker", "00:04.0", "/run/edu", "--user", "1000", "--via", "vfio-type1")
    assert result.exit_code == 128 + signal.SIGTERM
    assert result.stdout == "lending 0000:00:04.0 at /run/edu; its address is broker:/run/edu\n"
    assert result.stderr == "lent to process 1\n"
    words, options, closed = FakeBroker.made
    assert (words[0], str(words[1])) == (PciAddress(0, 0, 4, 0), "/run/edu")
    assert (options, closed) == ({"user": 1000, "via": "vfio-type1"}, "closed")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_cannot_be_served_is_said(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BusyError("0000:00:04.0: process 1 (init) has it; close that driver first")

    monkeypatch.setattr(broker, "Broker", refuse)
    result = uspace("broker", "00:04.0", "/run/edu")
    assert result.exit_code == 1
    assert "process 1 (init) has it" in result.stderr
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
