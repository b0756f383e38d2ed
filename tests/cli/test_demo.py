"""The demo passes on the model, and fails when a step does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import pytest
from click.testing import Result

from uspace_drivers.edu import Edu
from uspace_drv import IrqKind, plugins
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.cli import demo_storage
from uspace_drv.cli.output import tick
from uspace_drv.errors import UnsupportedError

Uspace = Callable[..., Result]


class Machine(Protocol):
    def file(self, path: str, content: str | bytes) -> None: ...


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_storage, "SECONDS", 0.02)


def test_every_step_by_msi_and_by_intx(uspace: Uspace) -> None:
    result = uspace("demo")
    assert result.exit_code == 0
    assert "virtual:edu through virtual, signalling by MSI\n" in result.stdout
    assert "virtual:edu through virtual, signalling by INTx\n" in result.stdout
    assert result.stdout.count(" ✓ ") == 15
    assert "12! = 479001600, told by 1 interrupt" in result.stdout
    assert "64.0 MiB in blocks of 512 B" in result.stdout
    assert "4.0 MiB written, flushed, read back, all as they were" in result.stdout
    assert "15 steps passed, 0 failed" in result.stdout
    assert "uspace bind ADDR" in result.stdout


def test_one_way_to_signal(uspace: Uspace) -> None:
    assert "5 steps passed, 0 failed" in uspace("demo", "virtual:edu", "--irq", "intx").stdout


def test_a_step_that_fails(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Edu, "load", lambda *_: b"something else")
    result = uspace("demo")
    assert result.exit_code == 1
    assert " ✗ DMA from device virtual:edu: other bytes came back" in result.stdout
    assert "13 steps passed, 2 failed" in result.stdout
    assert "Go on" not in result.stdout


def test_what_cannot_be_done_is_left_out(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedError("no DMA here")

    def only_intx(_: VirtualDevice) -> Mapping[IrqKind, int]:
        return {IrqKind.INTX: 1}

    monkeypatch.setattr(Edu, "store", refuse)
    monkeypatch.setattr(Edu, "load", refuse)
    monkeypatch.setattr(VirtualDevice, "irq_counts", property(only_intx))
    result = uspace("demo")
    assert result.exit_code == 0
    assert "left out: no MSI through virtual\n" in result.stdout
    assert " - DMA to device   left out: no DMA here" in result.stdout
    assert "8 steps passed, 0 failed" in result.stdout


def test_without_the_plugin_it_says_so(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    plugins.installed_plugins.cache_clear()
    result = uspace("demo")
    plugins.installed_plugins.cache_clear()
    assert result.exit_code == 1
    assert result.stderr == "error: no driver is called 'edu'; installed: none\n"


def test_another_device_is_not_to_be_bound(uspace: Uspace, machine: Machine) -> None:
    machine.file("sys/bus/pci/devices/0000:00:04.1/device", "0x1041")
    result = uspace("demo", "00:04.1")
    expected = "error: 00:04.1: is 1234:1041, but the demo is for an edu device (1234:11e8)\n"
    assert (result.exit_code, result.stderr) == (1, expected)


def test_a_device_that_is_not_there(uspace: Uspace) -> None:
    result = uspace("demo", "ffff:ff:1f.7")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ffff:ff:1f.7: no such PCI function")


def test_marks_that_the_terminal_can_show() -> None:
    assert tick(True) in {"✓", "ok"}
