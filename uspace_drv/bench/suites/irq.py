"""How soon a driver runs after its interrupt was raised, by each way to wait for it.

Another process raises it, on another processor where there are two: through an eventfd (which is
all that an interrupt is once the kernel has handled it), or at a device, by a store to a register.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing

from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.bench.lending import lent
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.suite import Comparison, Figure, GuestMachine, Suite, Way
from uspace_drv.bench.suites.bell import BellProcess
from uspace_drv.bench.suites.edu import OpenEdu, is_edu, open_edu
from uspace_drv.bench.suites.processors import PATIENCE, Place, places
from uspace_drv.bench.suites.served import RingingModel, serve
from uspace_drv.bench.suites.socket_models import Shared
from uspace_drv.bench.suites.waiting import EVENTFD_BYTES, UIO_BYTES, Listener, nothing
from uspace_drv.bench.ways import repeat
from uspace_drv.device import Device
from uspace_drv.irq import Irq
from uspace_drv.models import DeviceModel, PciIdentity
from uspace_drv.opening import UIO_VIA
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.nodes import UIO, VFIO
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import IrqKind

LATE, SOON = 500e-6, 20e-6
"""Seconds from the request to the interrupt: a sleeper sleeps, or has hardly begun to wait."""

READ = "bare read()"


class Silent(DeviceModel):
    """Has an interrupt that only others raise."""

    identity = PciIdentity(0x1234, 0x0001)
    irqs = {IrqKind.MSI: 1}


def compare(setting: Setting) -> Iterator[Comparison]:
    """Compare on a device if there is one, else between two processes."""
    if setting.device is None:
        yield from _between_processes(setting)
    elif not is_edu(setting.device):
        setting.skip(
            f"interrupts of {setting.device}",
            "this suite can make an edu device (1234:11e8) interrupt, and no other; "
            "without --device it measures what is the same for all",
        )
    else:
        setting.skip("the kernel's own driver", "edu has no kernel driver; suite rng has one")
        yield from _of_devices(setting, setting.device)


def _between_processes(setting: Setting) -> Iterator[Comparison]:
    for place in _places(setting)[: 1 if setting.quick else None]:
        with ExitStack() as stack:
            device = stack.enter_context(closing(Device(VirtualDevice(Silent()))))
            yield from _of_eventfd(setting, device.irq(), place, stack)
    if not setting.quick:
        with closing(Device(VirtualDevice(Silent()))) as device:
            yield _call_path("eventfd", setting, device.irq())


def _places(setting: Setting) -> list[Place]:
    found = places()
    if not found[0].apart:
        why = "this process may use one processor: who polls keeps it from who raises"
        setting.skip("interrupts polled for", why)
    return found


def _of_eventfd(setting: Setting, irq: Irq, place: Place, stack: ExitStack) -> Iterator[Comparison]:
    for name, delay in _delays(setting):
        with BellProcess(irq.fileno(), processor=place.theirs, delay=delay) as bell:
            ways = _ways(Listener(setting, irq, bell, place.ours, nothing), place)
            if delay == LATE:
                ways["model over vfio-user, asleep"] = _served(setting, stack, place)
            yield _comparison(f"eventfd, {place}, raised {name}", ways, delay)


def _served(setting: Setting, stack: ExitStack, place: Place) -> Way:
    """Wait for a model in another process, which raises its interrupt as late."""
    backend = stack.enter_context(serve(Shared, place.theirs))
    device = stack.enter_context(closing(Device(backend)))
    device.set_bus_master(True)
    model = RingingModel(device, LATE)
    return Listener(setting, device.irq(), model, place.ours, nothing).asleep()


def _of_devices(setting: Setting, address: str) -> Iterator[Comparison]:
    place, where = _places(setting)[0], PciAddress.parse(address)
    with lent(where, UIO if setting.via == UIO_VIA else VFIO):
        if PciBus().driver_of(where) == UIO:
            setting.skip("interrupts through VFIO", f"{address} is measured through UIO")
            yield from _through_uio(setting, address, place)
            return
        yield from _through_vfio(setting, address, place)
    if setting.beside is None or not is_edu(setting.beside):
        setting.skip("interrupts through UIO", "name a second edu device: --beside ADDRESS")
        return
    with lent(PciAddress.parse(setting.beside), UIO):
        yield from _through_uio(setting, setting.beside, place)


def _through_vfio(setting: Setting, address: str, place: Place) -> Iterator[Comparison]:
    kinds = [IrqKind.MSI] if setting.quick else [IrqKind.MSI, IrqKind.INTX]
    for kind in kinds:
        for name, delay in _delays(setting):
            with open_edu(address, setting.via, kind, place, delay) as edu:
                setting.note_way(edu.driver.device.via)
                ways = _edu_ways(setting, edu, place, EVENTFD_BYTES)
                yield _comparison(f"edu through VFIO, {kind.value}, raised {name}", ways, delay)
                if kind is IrqKind.MSI and delay == LATE:
                    yield _call_path("VFIO", setting, edu.irq)


def _through_uio(setting: Setting, address: str, place: Place) -> Iterator[Comparison]:
    for name, delay in _delays(setting):
        with open_edu(address, UIO_VIA, None, place, delay) as edu:
            setting.note_way(edu.driver.device.via)
            ways = _edu_ways(setting, edu, place, UIO_BYTES)
            yield _comparison(f"edu through UIO, intx, raised {name}", ways, delay)


def _delays(setting: Setting) -> list[tuple[str, float]]:
    delays = {"0.5 ms later": LATE, "20 us later": SOON}
    return list(delays.items())[: 1 if setting.quick else None]


def _edu_ways(setting: Setting, edu: OpenEdu, place: Place, size: int) -> dict[str, Way]:
    listener = Listener(setting, edu.irq, edu.bell, place.ours, edu.driver.quiet)
    return _ways(listener, place, size)


def _ways(listener: Listener, place: Place, size: int = EVENTFD_BYTES) -> dict[str, Way]:
    ways = {
        READ: listener.reading(size),
        "Irq.wait, asleep": listener.asleep(),
        "Irq.wait, polled 50 us, then asleep": listener.polling_first(),
        "await Irq, asyncio": listener.awaiting(),
    }
    if place.apart:
        ways["Irq.wait, polled"] = listener.polling()
        ways["Irq.poll, in a loop"] = listener.in_a_loop()
    return ways


def _comparison(name: str, ways: Mapping[str, Way], delay: float) -> Comparison:
    return Comparison(
        name=name, operation="interrupt", ways=ways, baseline=READ, figure=Figure.LATENCY,
        axes={"raised after, us": round(delay * 1e6)}, chart=name.rpartition(",")[0],
    )  # fmt: skip


def _call_path(through: str, setting: Setting, irq: Irq) -> Comparison:
    """Compare what the calls take where nobody sleeps: the thread that takes it has fired it."""
    takes: dict[str, Callable[[], object]] = {
        READ: lambda: os.eventfd_read(irq.fileno()),
        "Irq.wait": lambda: irq.wait(PATIENCE),
        "Irq.poll": irq.poll,
    }

    def fired(take: Callable[[], object]) -> Way:
        def call() -> None:
            irq.trigger()
            take()

        return repeat(setting, call)

    return Comparison(
        name=f"{through}, fired by software and taken at once", operation="interrupt",
        ways={name: fired(take) for name, take in takes.items()}, baseline=READ,
        figure=Figure.LATENCY,
    )  # fmt: skip


suite = Suite(
    summary="interrupts: from the moment one is raised to the driver that waited",
    compare=compare,
    guest=GuestMachine(
        devices=["edu,addr=4", "edu,addr=5"], iommu="intel", device="0000:00:04.0",
        beside="0000:00:05.0", via="vfio-cdev",
    ),
)  # fmt: skip
