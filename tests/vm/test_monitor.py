"""Orders to a running QEMU, and cards pulled out of slots, against fakes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from uspace_drv.errors import HostError
from uspace_drv.testing.guest import order
from uspace_drv.testing.guest.hot_unplug import pull_card

Told = list[dict[str, Any]]
Serve = Callable[..., tuple[Told, Callable[[], None]]]
GREETING: dict[str, Any] = {"QMP": {}}
EVENT = {"event": "DEVICE_DELETED"}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Yield a function that answers one connection with some lines.

    It returns the list of what it is told, and a function that waits until the list is complete.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "monitor"))
    listener.listen()
    told: Told = []

    def answer(lines: tuple[dict[str, Any], ...]) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            for line in lines:
                stream.write(json.dumps(line).encode() + b"\n")
                stream.flush()
            told.extend(json.loads(line) for line in stream)

    def start(*lines: dict[str, Any]) -> tuple[Told, Callable[[], None]]:
        thread = threading.Thread(target=answer, args=(lines,))
        thread.start()
        return told, partial(thread.join, 10)

    with listener:
        yield start


def test_an_order_is_sent_and_answered(serve: Serve, tmp_path: Path) -> None:
    told, finish = serve(GREETING, {"return": {}}, EVENT, {"return": {"a": 1}})
    assert order(tmp_path / "monitor", "device_del", id="card") == {"a": 1}
    finish()
    assert told == [
        {"execute": "qmp_capabilities"},
        {"execute": "device_del", "arguments": {"id": "card"}},
    ]


def test_an_order_that_qemu_refuses(serve: Serve, tmp_path: Path) -> None:
    refusal = {"error": {"class": "X", "desc": "Device 'a' not found"}}
    _, finish = serve(GREETING, {"return": {}}, refusal)
    with pytest.raises(HostError, match=r"refused .*device_del.*: Device 'a' not found"):
        order(tmp_path / "monitor", "device_del", id="a")
    finish()


def end_one(listener: socket.socket, said: bytes) -> None:
    connection, _ = listener.accept()
    connection.sendall(said)
    connection.close()


@pytest.mark.parametrize("said", [b"", b'{"QM'])
def test_a_qemu_that_ends_or_never_was(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ends"))
        listener.listen()
        ender = threading.Thread(target=end_one, args=(listener, said))
        ender.start()
        with pytest.raises(HostError, match="ends: no QEMU answered 'quit'"):
            order(tmp_path / "ends", "quit")
        ender.join(10)
    with pytest.raises(HostError, match="none: no QEMU answered 'quit'"):
        order(tmp_path / "none", "quit")


def port(folder: Path, vendor: str) -> bytes:
    """Make a root port's folder with capabilities at 0x40 and, PCI Express, at 0x50."""
    config = bytearray(256)
    config[0x34] = 0x40
    config[0x40:0x42] = b"\x05\x50"
    config[0x50:0x52] = b"\x10\x00"
    config[0x68:0x6A] = (0x1F1).to_bytes(2, "little")
    for name, text in {"vendor": vendor, "device": "0x000c"}.items():
        (folder / name).write_text(f"{text}\n")
    (folder / "config").write_bytes(config)
    return bytes(config)


def test_only_a_slot_of_qemu_loses_its_card(tmp_path: Path) -> None:
    before = port(tmp_path, "0x8086")
    with pytest.raises(HostError, match=r"not QEMU's pcie-root-port.*--device pcie-root-port"):
        pull_card(tmp_path)
    assert (tmp_path / "config").read_bytes() == before


def test_the_slot_is_left_as_it_was(tmp_path: Path) -> None:
    before = port(tmp_path, "0x1b36")
    pull_card(tmp_path)
    assert (tmp_path / "config").read_bytes() == before
