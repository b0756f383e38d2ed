"""`bind` and `restore` say what they did; the work itself is tested where it is done."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from uspace_drv.cli import binding
from uspace_drv.errors import BusyError, HostError, UspaceError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import VFIO, Binding, Terms
from uspace_drv.pci.rehearsal import Rehearsal
from uspace_drv.pci.sysfs import PciBus

Uspace = Callable[..., Result]
EDU = PciAddress(0, 0, 4, 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []

    def bind(address: PciAddress, driver: str | None, terms: Terms, *, bus: PciBus) -> Binding:
        made.append((address, driver, terms))
        bus.host.write("/sys/a", "1") if isinstance(bus.host, Rehearsal) else None
        notes = ("IOMMU group 7 is shared with 0000:00:04.1 (e1000e); bind that one too",)
        return Binding(address, "vfio-pci", "e1000e", "/dev/vfio/7", notes)

    def bind_group(*words: Any, bus: PciBus) -> list[Binding]:
        return [bind(*words, bus=bus)] * 2

    def restore(address: PciAddress, *, bus: PciBus) -> Binding:
        made.append(address)
        return Binding(address, None, "vfio-pci", None)

    def restore_all(*, bus: PciBus) -> list[Binding | UspaceError]:
        return [HostError("first"), restore(EDU, bus=bus), HostError("second")]

    for stub in (bind, bind_group, restore, restore_all):
        monkeypatch.setattr(binding, stub.__name__, stub)
    return made


def test_bind_prints_driver_node_and_notes(uspace: Uspace, calls: list[Any]) -> None:
    result = uspace("bind", "00:04.0")
    assert result.stdout.splitlines() == [
        "0000:00:04.0: bound to vfio-pci, /dev/vfio/7, before it was e1000e",
        "  IOMMU group 7 is shared with 0000:00:04.1 (e1000e); bind that one too",
    ]
    assert calls == [(EDU, None, Terms())]


def test_bind_passes_on_what_was_asked_for(uspace: Uspace, calls: list[Any]) -> None:
    words = ["--driver", "uio_pci_generic", "--unsafe-even-if-the-machine-lives-on-it"]
    words += ["--user", "nobody", "--persist"]
    assert uspace("bind", "0000:00:04.0", *words).exit_code == 0
    assert calls == [(EDU, "uio_pci_generic", Terms("nobody", True, True))]


def test_bind_of_a_group_shows_each(uspace: Uspace, calls: list[Any]) -> None:
    result = uspace("bind", "00:04.0", "--group")
    assert result.stdout.count("bound to vfio-pci") == 2


def test_a_dry_run_prints_what_would_be_written(uspace: Uspace, calls: list[Any]) -> None:
    assert uspace("bind", "00:04.0", "--dry-run").stdout == "write '1' to /sys/a\n"
    assert uspace("restore", "00:04.0", "--dry-run").stdout == "nothing would be changed\n"


def test_restore_all_shows_what_it_did_and_what_it_could_not(
    uspace: Uspace, calls: list[Any]
) -> None:
    result = uspace("restore", "--all")
    assert result.exit_code == 1
    assert result.stdout == "0000:00:04.0: bound to no driver, before it was vfio-pci\n"
    assert result.stderr == "error: first\n  second\n"


@pytest.mark.parametrize("words", [[], ["00:04.0", "--all"]])
def test_restore_takes_one_or_all(uspace: Uspace, calls: list[Any], words: list[str]) -> None:
    result = uspace("restore", *words)
    assert (result.exit_code, calls) == (2, [])
    assert "give either ADDR or --all" in result.stderr


def test_nothing_to_restore(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "restore_all", lambda bus: [])
    assert uspace("restore", "--all").stdout == "nothing is bound or changed\n"


def test_vfs_prints_where_they_are(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [PciAddress(0, 1, 16, 0), PciAddress(0, 1, 16, 2)]
    monkeypatch.setattr(binding, "set_virtual_functions", lambda *_, bus: made)
    assert uspace("vfs", "01:00.0", "2").stdout == "0000:01:10.0\n0000:01:10.2\n"
    assert uspace("vfs", "01:00.0", "-1").exit_code == 2
    assert "'x' is not a valid whole number" in uspace("vfs", "01:00.0", "x").stderr


def test_bind_knows_two_drivers(uspace: Uspace, calls: list[Any]) -> None:
    result = uspace("bind", "0000:00:04.0", "--driver", "e1000e")
    assert (result.exit_code, calls) == (2, [])
    assert "uio_pci_generic" in result.stderr


def test_restore(uspace: Uspace, calls: list[Any]) -> None:
    result = uspace("restore", "0000:00:04.0")
    assert result.stdout == "0000:00:04.0: bound to no driver, before it was vfio-pci\n"
    assert calls == [EDU]


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (
            Binding(EDU, VFIO, None, "/dev/vfio/7"),
            "bound to vfio-pci, /dev/vfio/7, before it had no driver",
        ),
        (Binding(EDU, "e1000e", "e1000e", None), "bound to e1000e, as it was"),
        (
            Binding(EDU, None, None, None, was_ours=False),
            "nothing to restore, it is without a driver as it was",
        ),
        (
            Binding(EDU, "e1000e", "e1000e", None, was_ours=False),
            "nothing to restore, it is bound to e1000e as it was",
        ),
    ],
)
def test_what_was_before(
    uspace: Uspace, monkeypatch: pytest.MonkeyPatch, done: Binding, words: str
) -> None:
    monkeypatch.setattr(binding, "restore", lambda _, bus: done)
    assert uspace("restore", "00:04.0").stdout == f"0000:00:04.0: {words}\n"


def test_what_the_machine_lives_on_is_refused_in_the_librarys_words(
    uspace: Uspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "0000:00:04.0: / (vda1) is mounted from it; leaving it to virtio-pci"

    def bind(*_: object, **__: object) -> Binding:
        raise BusyError(words)

    monkeypatch.setattr(binding, "bind", bind)
    result = uspace("bind", "0000:00:04.0")
    assert (result.exit_code, result.stderr) == (1, f"error: {words}\n")


@pytest.mark.parametrize("command", ["bind", "restore"])
@pytest.mark.parametrize("address", ["virtual:edu", "vfio-user:/tmp/a b", "broker:/tmp/b"])
def test_only_functions_can_be_bound(
    uspace: Uspace, calls: list[Any], command: str, address: str
) -> None:
    result = uspace(command, address)
    assert (result.exit_code, calls) == (1, [])
    assert result.stderr.startswith(f"error: {address}: there is nothing to bind or restore")
    assert result.stderr.endswith(f"use it as it is: uspace info {shlex.quote(address)}\n")
