"""`uspace serve`: a device model behind a socket, for drivers, QEMU and other vfio-user clients."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from uspace_drv.cli.group import examples
from uspace_drv.cli.model_loading import make_model
from uspace_drv.errors import UspaceError
from uspace_drv.vfiouser.server import Server


@click.command(
    epilog=examples(
        "uspace serve edu /tmp/edu                   the model of the plugin edu",
        "uspace serve 'edu?dma_bits=32' /tmp/edu     with a parameter",
        "uspace serve my_model.py:MyModel /tmp/mine  a class of yours",
        "uspace run edu vfio-user:/tmp/edu factorial 5",
    )
)
@click.argument("model")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--busy-poll", is_flag=True, help="Answer sooner, and burn a processor for it.")
def serve(model: str, path: Path, busy_poll: bool) -> None:
    """Serve a device model at the UNIX socket PATH, until Ctrl-C or SIGTERM.

    MODEL is a plugin's name, or FILE.py:CLASS, or MODULE:CLASS; parameters follow after a '?'.
    Clients are served one after the other. When it serves, it prints what to add to the command
    line of QEMU (10.1 or later), whose memory must be shared.
    """
    served = make_model(model)
    before = signal.signal(signal.SIGTERM, _unwind)
    try:
        server = Server(served, path, busy_poll=busy_poll, complain=_complain, notice=_notice)
        try:
            click.echo(_announce(served.name, path))
            server.serve()
        finally:
            server.close()
    finally:
        served.close()
        signal.signal(signal.SIGTERM, before)


def _announce(name: str, path: Path) -> str:
    """What is printed when it serves, in one piece: who waits for the first line may leave then."""
    socket = {"type": "unix", "path": str(path.absolute())}
    device = json.dumps({"driver": "vfio-user-pci", "socket": socket}, separators=(",", ":"))
    return (
        f"serving {name} at {path}; its address is vfio-user:{path}\n"
        "QEMU 10.1 or later has it with\n"
        "  -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on \\\n"
        "  -machine memory-backend=mem \\\n"
        f"  -device {shlex.quote(device)}"
    )


def _complain(error: UspaceError) -> None:
    click.echo(f"client: {error}", err=True)


def _notice(words: str) -> None:
    click.echo(words, err=True)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
