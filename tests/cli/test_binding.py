"""`bind` and `restore` say what they did; the work itself is tested where it is done."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from uspace_drv.cli import binding
from uspace_drv.errors import BusyError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import Binding

Uspace = Callable[..., Result]
EDU = PciAddress(0, 0, 4, 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []

    def bind(address: PciAddress, driver: str | None, *, force_device_in_use: bool) -> Binding:
        made.append((address, driver, force_device_in_use))
        notes = ("IOMMU group 7 is shared with 0000:00:04.1 (e1000e); bind that one too",)
        return Binding(address, "vfio-pci", "e1000e", "/dev/vfio/7", notes)

    def restore(address: PciAddress) -> Binding:
        made.append(address)
        return Binding(address, None, "vfio-pci", None)

    monkeypatch.setattr(binding, "bind", bind)
    monkeypatch.setattr(binding, "restore", restore)
    return made


def test_bind_prints_driver_node_and_notes(uspace: Uspace, calls: list[Any]) -> None:
    result = uspace("bind", "00:04.0")
    assert result.stdout.splitlines() == [
        "0000:00:04.0: bound to vfio-pci, /dev/vfio/7, before it was e1000e",
        "  IOMMU group 7 is shared with 0000:00:04.1 (e1000e); bind that one too",
    ]
    assert calls == [(EDU, None, False)]


def test_bind_passes_on_what_was_asked_for(uspace: Uspace, calls: list[Any]) -> None:
    words = ["--driver", "uio_pci_generic", "--unsafe-even-if-the-machine-lives-on-it"]
    assert uspace("bind", "0000:00:04.0", *words).exit_code == 0
    assert calls == [(EDU, "uio_pci_generic", True)]


def test_bind_knows_two_drivers(uspace: Uspace, calls: list[Any]) -> None:
    result = uspace("bind", "0000:00:04.0", "--driver", "e1000e")
    assert (result.exit_code, calls) == (2, [])
    assert "uio_pci_generic" in result.stderr


def test_restore(uspace: Uspace, calls: list[Any]) -> None:
    result = uspace("restore", "0000:00:04.0")
    assert result.stdout == "0000:00:04.0: bound to no driver, before it was vfio-pci\n"
    assert calls == [EDU]


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
@pytest.mark.parametrize("address", ["virtual:edu", "vfio-user:/tmp/a b"])
def test_only_functions_can_be_bound(
    uspace: Uspace, calls: list[Any], command: str, address: str
) -> None:
    result = uspace(command, address)
    assert (result.exit_code, calls) == (1, [])
    assert result.stderr.startswith(f"error: {address}: there is nothing to bind or restore")
    assert result.stderr.endswith(f"use it as it is: uspace info {shlex.quote(address)}\n")
