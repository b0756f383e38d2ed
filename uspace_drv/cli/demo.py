"""`uspace demo`: the main job, step by step: registers, interrupts, DMA both ways, then a disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from math import factorial
from typing import Any, Protocol, TypeVar, cast

import click

from uspace_drv.cli import demo_storage
from uspace_drv.cli.group import as_typed, examples
from uspace_drv.cli.output import console, tick
from uspace_drv.cli.session import Session, ids_in_sysfs, session_options
from uspace_drv.device import Device
from uspace_drv.errors import NoDriver, UnsupportedError, UspaceError
from uspace_drv.irq import Irq
from uspace_drv.opening import open_backend
from uspace_drv.plugins import Plugin, plugin_named
from uspace_drv.port import IrqKind

PATTERN = hashlib.shake_128(b"uspace demo").digest(4095)  # as much as one transfer moves
NUMBER = 12  # the last whose factorial fits 32 bits
NAMES = {IrqKind.INTX: "INTx", IrqKind.MSI: "MSI", IrqKind.MSIX: "MSI-X"}


class _Edu(Protocol):
    """What the steps need of the driver in the plugin `edu`, which this package does not import."""

    device: Device
    done: Irq

    def require(self, condition: bool, message: str) -> None: ...
    def identify(self) -> Any: ...
    def is_alive(self) -> bool: ...
    def factorial(self, n: int) -> int: ...
    def store(self, data: bytes) -> None: ...
    def load(self, size: int) -> bytes: ...


Driven = TypeVar("Driven")
Step = Callable[[_Edu], str]


@click.argument("address", metavar="[ADDR]", required=False)
def _demo(address: str | None) -> None:
    """Show registers, interrupts and DMA at work, on a model of QEMU's edu device or on ADDR.

    Without ADDR it needs nothing but this computer, and goes on with a model of a disk. With one,
    that function must be an edu device that is bound (uspace bind). Every way of signalling that it
    has is tried. What cannot be done through this backend is named and left out; a step that fails
    makes the exit code 1.
    """
    ctx = click.get_current_context()
    session = ctx.ensure_object(Session)
    started = time.perf_counter()
    outcomes: list[bool | None] = []
    plugin = plugin_named("edu")
    where = address or "virtual:edu"
    _refuse_others(where, plugin)
    for kind in _kinds(where, session):
        with session.attach(where, plugin.driver, kind) as driver:
            edu = cast("_Edu", driver)
            name = f"{edu.device.address} through {edu.device.via}"
            console().print(f"{name}, signalling by {NAMES[kind]}")
            outcomes += _run(edu, STEPS)
    if address is None and session.irq is None:
        with session.attach(demo_storage.ADDRESS, plugin_named("nvme").driver) as driver:
            console().print(f"{driver.device.address} through {driver.device.via}")
            outcomes += _run(driver, demo_storage.STEPS)
    passed, failed = outcomes.count(True), outcomes.count(False)
    console().print(f"{passed} steps passed, {failed} failed, {_span(started)} in all")
    if failed or not passed:
        ctx.exit(1)
    click.echo(as_typed(GO_ON))


def _refuse_others(address: str, plugin: Plugin) -> None:
    """Raise `NoDriver` before anybody is told to bind a function that is something else."""
    ids = ids_in_sysfs(address)
    known = plugin.driver.id_table
    if ids and not any(entry.matches(ids) for entry in known):
        expected = ", ".join(map(str, known))
        raise NoDriver(f"{address}: is {ids}, but the demo is for an edu device ({expected})")


def _kinds(address: str, session: Session) -> list[IrqKind]:
    """Return the ways of signalling to try, the best first, and name the one that is missing."""
    if session.irq:
        return [IrqKind(session.irq)]
    with closing(open_backend(address, via=session.via)) as backend:
        offered = backend.irq_counts
        for kind in (IrqKind.MSI, IrqKind.INTX):
            if kind not in offered:
                console().print(f"left out: no {NAMES[kind]} through {backend.via}")
        return [kind for kind in reversed(IrqKind) if kind in offered]


def _run(driver: Driven, steps: Mapping[str, Callable[[Driven], str]]) -> Iterator[bool | None]:
    """Run every step and print a line for it; yield whether it passed, None if left out."""
    for name, step in steps.items():
        started = time.perf_counter()
        try:
            mark, seen, outcome = tick(True), step(driver), True
        except UnsupportedError as error:
            mark, seen, outcome = "-", f"left out: {error}", None
        except UspaceError as error:
            mark, seen, outcome = tick(False), str(error), False
        console().print(f"  {mark} {name:<16}{seen}  ({_span(started)})", soft_wrap=True)
        yield outcome


def _identify(edu: _Edu) -> str:
    ident = edu.identify()
    return f"an edu device, version {ident.major}.{ident.minor}"


def _live(edu: _Edu) -> str:
    edu.require(edu.is_alive(), "a number did not come back inverted")
    return "a number comes back inverted"


def _compute(edu: _Edu) -> str:
    before, result = edu.done.count, edu.factorial(NUMBER)
    edu.require(result == factorial(NUMBER), f"{NUMBER}! gave {result}")
    return f"{NUMBER}! = {result}, told by {edu.done.count - before} interrupt"


def _store(edu: _Edu) -> str:
    edu.store(PATTERN)
    return f"the device has read {len(PATTERN)} bytes of our memory"


def _load(edu: _Edu) -> str:
    edu.require(edu.load(len(PATTERN)) == PATTERN, "other bytes came back than were sent")
    return f"it has written {len(PATTERN)} bytes back, all as they were sent"


STEPS: dict[str, Step] = {
    "identification": _identify,
    "liveness": _live,
    "factorial": _compute,
    "DMA to device": _store,
    "DMA from device": _load,
}

demo = click.command(
    "demo",
    epilog=examples("uspace demo", "uspace demo 0000:00:04.0", "uspace demo virtual:edu --irq msi"),
)(_demo)
demo.params += session_options()

GO_ON = """
Go on:
  one verb          uspace run edu virtual:edu factorial 5
  a disk            uspace run nvme 'virtual:nvme?medium=disk.img' copy-in FILE --pad
  a real device     uspace list; then with sudo: uspace bind ADDR, demo ADDR, restore ADDR
  a real kernel     in a checkout: scripts/vm --device edu,addr=4 --iommu intel -- \\
                      sh -c '.venv/bin/uspace bind 00:04.0 && .venv/bin/uspace demo 00:04.0'
  your own driver   in a checkout: drivers/edu has registers, driver and model, a page each"""


def _span(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.1f} ms"
