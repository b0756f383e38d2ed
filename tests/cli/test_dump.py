"""Registers are shown, decoded; nothing is written, and what a read would change is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import pytest
from click.testing import Result

from uspace_drivers.edu import Edu, EduModel
from uspace_drv import Plugin, RegisterBlock, array, plugins, ro, rw
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.cli import dump, output

Uspace = Callable[..., Result]


class Machine(Protocol):
    def file(self, path: str, content: str | bytes) -> None: ...


def rows(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0
    return {row["name"]: row for row in json.loads(result.stdout)["registers"]}


def test_registers_decoded(uspace: Uspace) -> None:
    found = rows(uspace("dump", "virtual:edu", "--json"))
    assert found["ident"] == {
        "bar": 0,
        "offset": "0x0",
        "name": "ident",
        "access": "ro",
        "description": "",
        "value": "0x010000ed",
        "fields": {"major": 1, "minor": 0, "magic": 0xED},
        "text": "major=1 minor=0 magic=0xed",
        "skipped": None,
    }
    assert found["dma_count"]["value"] == "0x0000000000000000"
    assert found["irq_raise"]["value"] is None
    assert found["irq_raise"]["skipped"] == "write-only"


def test_for_people(uspace: Uspace) -> None:
    lines = uspace("dump", "virtual:edu", "--bar", "0").stdout.splitlines()
    assert lines[1].split() == [
        *("0", "0x0", "ident", "ro", "0x010000ed", "major=1", "minor=0", "magic=0xed")
    ]
    assert lines[6].endswith("-                   skipped: write-only")


class Untouchable(EduModel):
    """Whoever writes to it fails the test."""

    is_finished = False

    def reset(self) -> None:
        assert not self.is_finished
        super().reset()
        self.is_finished = True

    def write_bar(self, bar: int, offset: int, width: int, value: int) -> NoReturn:
        raise AssertionError(f"write of {value:#x} at {offset:#x}")


def test_the_device_is_not_changed(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Untouchable("virtual:edu")
    before = [model.config.read(offset, 1) for offset in range(256)]
    monkeypatch.setattr(dump, "open_backend", lambda *_, **__: VirtualDevice(model))
    assert rows(uspace("dump", "virtual:edu", "--json"))
    assert [model.config.read(offset, 1) for offset in range(256)] == before


class Fifo(RegisterBlock, size=0x20):
    level = rw(0x00)
    head = ro(0x04, "takes a word out", side_effects=True)
    slots = array(ro(0x10), count=2, stride=4)


def test_a_read_with_side_effects_is_skipped(
    uspace: Uspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "plugin_named", lambda _: Plugin(Edu, {0: Fifo}))
    found = rows(uspace("dump", "virtual:edu", "--driver", "fifo", "--json"))
    assert found["head"]["skipped"] == "a read changes the device"
    assert found["head"]["value"] is None
    assert list(found) == ["level", "head", "slots[0]", "slots[1]"]


def test_a_bar_without_a_table(uspace: Uspace) -> None:
    result = uspace("dump", "virtual:edu", "--bar", "2")
    assert result.exit_code == 2
    assert "Edu has no register table for BAR 2; it has 0" in result.stderr


def test_a_device_that_nobody_knows(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "plugins_for", lambda _: [])
    result = uspace("dump", "virtual:edu")
    assert result.exit_code == 1
    assert "no driver for 1234:11e8; tried " in result.stderr
    assert "; to use the tables of another: --driver NAME" in result.stderr


def test_a_function_that_nobody_knows_is_not_to_be_bound(uspace: Uspace, machine: Machine) -> None:
    machine.file("sys/bus/pci/devices/0000:00:04.1/device", "0x1041")
    result = uspace("dump", "00:04.1")
    assert result.exit_code == 1
    assert "00:04.1: no driver for 1234:1041; tried edu" in result.stderr
    assert "uspace bind" not in result.stderr
    assert "uspace bind" in uspace("dump", "00:04.1", "--driver", "edu").stderr


def test_a_model_has_no_other_way_in(uspace: Uspace) -> None:
    result = uspace("dump", "virtual:edu", "--via", "vfio")
    assert result.exit_code == 1
    assert result.stderr == "error: virtual:edu: is not opened via vfio; leave that out\n"


def test_a_narrow_terminal_cuts_nothing(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    for width in ("60", "20"):
        monkeypatch.setenv("COLUMNS", width)
        lines = uspace("dump", "virtual:edu").stdout.splitlines()
        assert max(map(len, lines)) == 61  # what it needs at least
        (row,) = (number for number, line in enumerate(lines) if " 0x98 " in line)
        assert lines[row].split()[2:5] == ["dma_comm", "rw", "0x0000000000000000"]
        assert lines[row + 1].split()[0] == "and"


def test_a_device_that_is_gone(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(EduModel):
        def __init__(self, name: str | None = None) -> None:
            super().__init__(name)
            self.config.read = lambda offset, width: (1 << 8 * width) - 1  # type: ignore[method-assign]

    monkeypatch.setattr(dump, "open_backend", lambda *_, **__: VirtualDevice(Gone("virtual:edu")))
    result = uspace("dump", "virtual:edu", "--driver", "edu")
    assert result.exit_code == 1
    assert "reads all ones" in result.stderr
