"""`uspace broker`: open a device with rights, for driver processes that have none."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from uspace_drv.backends.vfio import WAYS
from uspace_drv.broker import Broker
from uspace_drv.cli.group import examples
from uspace_drv.opening import function_behind
from uspace_drv.pci.address import DeviceAddress
from uspace_drv.pci.nodes import user_id
from uspace_drv.pci.sysfs import PciBus


@click.command(
    epilog=examples(
        "sudo uspace broker 0000:00:04.0 /run/edu --user alice",
        "uspace run edu broker:/run/edu factorial 5      as alice",
    )
)
@click.argument("address", metavar="ADDR")
@click.argument("path", metavar="SOCKET", type=click.Path(path_type=Path))
@click.option("--user", metavar="NAME", help="Who may have it, besides root and this user.")
@click.option("--via", type=click.Choice(["vfio", *WAYS]), default="vfio", show_default=True)
def broker(address: str, path: Path, user: str | None, via: str) -> None:
    """Lend the device at ADDR to one driver process after the other, at the UNIX socket SOCKET.

    The broker opens the device, which must be bound to vfio-pci, and passes the open files: a
    driver that attaches to broker:SOCKET needs no right to any node. When it ends, however it
    ends, memory is taken away from the device, and the next one gets it reset, if there is a way to
    reset it. Ctrl-C or SIGTERM ends the broker.
    """
    where = function_behind(DeviceAddress.parse(address))
    number = None if user is None else user_id(user)
    before = signal.signal(signal.SIGTERM, _unwind)
    try:
        server = Broker(where, path, user=number, via=via, notice=_notice)
        try:
            click.echo(f"lending {where} at {path}; its address is {_quoted(path)}")
            if not PciBus().function(where).reset_methods:
                _notice(f"{where}: no way to reset it: a client finds it as the one before left it")
            server.serve()
        finally:
            server.close()
    finally:
        signal.signal(signal.SIGTERM, before)


def _quoted(path: Path) -> str:
    return shlex.quote(f"broker:{path}")


def _notice(words: str) -> None:
    click.echo(words, err=True)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
