"""The command behind `scripts/vm`: run one command in a guest, as if it were run here."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from uspace_drv.errors import UspaceError

from .iommu import KINDS
from .kernel import Kernel, debian_kernel
from .kernel_build import own_kernel
from .machine import Guest
from .process import GuestFailed
from .qemu import qemu_command, qemu_version

GUEST_FAILED, NOT_READY = 124, 125
"""Exit codes, as timeout(1) gives them; every other code is the command's own."""

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_LOG = click.Path(dir_okay=False, path_type=Path)
_SOCKET = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_KERNEL_HELP = "Debian's, one built from its source with all that we use, or a bzImage or ELF file."


def _writable(_ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written before a guest has run for nothing."""
    try:
        if path is not None:
            path.open("ab").close()
    except OSError as error:
        raise click.BadParameter(f"cannot write {path}: {error.strerror}") from error
    return path


# What follows the first word of COMMAND is its own, options too; before it they are ours.
@click.command(context_settings={"allow_interspersed_args": False, "max_content_width": 100})
@click.option("devices", "--device", multiple=True, metavar="WORDS", help="As QEMU's -device.")
@click.option("drives", "--drive", multiple=True, metavar="WORDS", help="As QEMU's -blockdev.")
@click.option("--iommu", type=click.Choice(KINDS), default="none", show_default=True)
@click.option("--iommu-option", default="", metavar="WORDS", help="More of its properties.")
@click.option("--qemu", type=click.Choice(["installed", "newest"]), default="installed")
@click.option("processors", "--smp", default=2, show_default=True, metavar="N")
@click.option("--memory", default="1G", show_default=True, help="As QEMU's -m.")
@click.option("--hugepages", default=0, metavar="N", help="Reserve N pages of 2 MiB.")
@click.option("--timeout", default=300.0, show_default=True, metavar="SECONDS")
@click.option("vfio_user", "--vfio-user", multiple=True, type=_SOCKET, help="A device behind it.")
@click.option("shares", "--share", multiple=True, type=_FOLDER, help="A folder it may write.")
@click.option("environment", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("modules", "--module", multiple=True, metavar="NAME", help="Load it as well.")
@click.option("words", "--append", multiple=True, metavar="WORD", help="For the kernel's line.")
@click.option("acpi_tables", "--acpitable", multiple=True, type=_FILE, help="As QEMU's, a file.")
@click.option("--monitor", type=_SOCKET, help="Make a QMP socket there.")
@click.option("--kernel", default="debian", metavar="debian|own|FILE", help=_KERNEL_HELP)
@click.option("kernel_modules", "--modules", type=_FOLDER, help="Its lib/modules/RELEASE.")
@click.option("--log", type=_LOG, callback=_writable, help="Keep its log here.")
@click.option(
    "--fetch", type=click.Choice(["kernel", "own", "qemu"]), help="Only that; print its name."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(
    command: tuple[str, ...],
    *,
    fetch: str | None,
    timeout: float,
    environment: tuple[str, ...],
    log: Path | None,
    **options: Any,
) -> None:
    """Run COMMAND in a machine that QEMU emulates, with a real kernel and this host's files.

    The files are read-only to it (what it writes elsewhere than in a --share is forgotten).
    Exits with COMMAND's code; 124 if the guest hung or panicked; 125 if it could not be started.

    \b
    scripts/vm --device edu,addr=4 --iommu intel -- ls /sys/kernel/iommu_groups
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup is to be obeyed
            signal.signal(number, _terminate)
    try:
        if fetch:
            click.echo(_fetched(fetch))
            return
        if not command:
            raise click.UsageError("which COMMAND shall the guest run?")
        guest = _guest(**options)
        pairs = dict(pair.partition("=")[::2] for pair in environment)
        result = guest.run(command, timeout=timeout, environment=pairs, sink=_show)
    except GuestFailed as failure:
        _end(failure, GUEST_FAILED, log, failure.kernel_log)
    except UspaceError as failure:
        _end(failure, NOT_READY)
    if log:
        log.write_text(result.kernel_log)
    sys.exit(result.exit_code)


def _fetched(what: str) -> str:
    """Return the name of what guests run, after fetching or building it if there is none here."""
    if what == "qemu":
        return qemu_version(qemu_command(newest=True))
    return own_kernel().name if what == "own" else debian_kernel().name


def _guest(kernel: str, kernel_modules: Path | None, **options: Any) -> Guest:
    return Guest(kernel=_kernel(kernel, kernel_modules), **options)


def _kernel(choice: str, modules: Path | None) -> Kernel:
    if choice in ("debian", "own"):
        if modules:
            raise click.UsageError(
                "--modules are those of a kernel file: give --kernel FILE as well"
            )
        return own_kernel() if choice == "own" else debian_kernel()
    return Kernel(Path(choice), modules)


def _show(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    # An exception, so that every `finally` on the way out runs and QEMU ends.
    raise SystemExit(128 + number)


def _end(failure: UspaceError, code: int, log: Path | None = None, text: str = "") -> NoReturn:
    if log:
        log.write_text(text)
    click.echo(failure, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main(prog_name="scripts/vm")
