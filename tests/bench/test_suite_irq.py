from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil
import pytest

from uspace_drivers.edu.model import EduModel
from uspace_drv.attachment import attach
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.bench import Comparison, Setting
from uspace_drv.bench.suites import bell, bell_process, edu, irq
from uspace_drv.bench.suites.bell import BellProcess
from uspace_drv.bench.suites.edu import InterruptingEdu, OpenEdu
from uspace_drv.bench.suites.processors import Place, alarm, on, places, staying_on
from uspace_drv.bench.suites.waiting import EVENTFD_BYTES, Listener, nothing
from uspace_drv.device import Device
from uspace_drv.errors import DeviceTimeout, HostError
from uspace_drv.irq import Irq
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.ids import FunctionIds
from uspace_drv.port import IrqKind

TINY = 0.002
HERE = Place(min(os.sched_getaffinity(0)), min(os.sched_getaffinity(0)))

pytestmark = pytest.mark.usefixtures("nothing_left", "no_child_left")


@pytest.fixture
def interrupt() -> Iterator[Irq]:
    device = Device(VirtualDevice(irq.Silent()))
    yield device.irq()
    device.close()


def measure(comparison: Comparison) -> None:
    before = os.sched_getaffinity(0)
    for name, way in comparison.ways.items():
        sample = way()
        assert sample.latencies is not None
        assert 0 < sample.operations == sample.latencies.count, name
        assert 0 < sample.latencies.percentile(50) < 1e9, name
    assert os.sched_getaffinity(0) == before


def test_each_way_to_wait_hears_every_interrupt() -> None:
    setting = Setting(seconds=TINY, quick=True)
    comparisons = list_and_measure(setting)
    (ways,) = comparisons.values()
    assert ways[:4] == [
        irq.READ,
        "Irq.wait, asleep",
        "Irq.wait, polled 50 us, then asleep",
        "await Irq, asyncio",
    ]
    assert "model over vfio-user, asleep" in ways
    assert ("Irq.wait, polled" in ways) == (len(places()) == 2)


def list_and_measure(setting: Setting) -> dict[str, list[str]]:
    seen = {}
    for comparison in irq.suite.compare(setting):
        assert comparison.baseline in comparison.ways
        measure(comparison)
        seen[comparison.name] = list(comparison.ways)
    return seen


def test_all_of_them_on_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irq, "places", lambda: [HERE])
    setting = Setting(seconds=TINY)
    seen = list_and_measure(setting)
    assert list(seen) == [
        "eventfd, one core, raised 0.5 ms later",
        "eventfd, one core, raised 20 us later",
        "eventfd, fired by software and taken at once",
    ]
    assert "Irq.wait, polled" not in seen["eventfd, one core, raised 0.5 ms later"]
    assert [each.what for each in setting.skipped] == ["interrupts polled for"]


def test_whoever_stops_early_leaves_no_process() -> None:
    comparisons = irq.suite.compare(Setting(seconds=TINY, quick=True))
    next(comparisons)
    assert len(psutil.Process().children()) == 2  # who raises, and the model
    comparisons.close()  # type: ignore[attr-defined]


def test_an_interrupt_that_nobody_raised_is_no_latency(interrupt: Irq) -> None:
    class Mute:
        def ask(self) -> None:
            interrupt.trigger()  # somebody else

        def stamp(self) -> int:
            return 0

    listener = Listener(Setting(seconds=TINY), interrupt, Mute(), HERE.ours, nothing)
    with pytest.raises(HostError, match="fired and nobody raised it"):
        listener.asleep()()


class Deaf:
    """Never raises anything."""

    def ask(self) -> None:
        pass

    def stamp(self) -> int:
        return 0


@pytest.mark.parametrize("way", ["asleep", "polling", "polling_first", "in_a_loop", "reading"])
def test_each_way_gives_up_when_nothing_comes(
    interrupt: Irq, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspace_drv.bench.suites.waiting.PATIENCE", 0.01)
    listener = Listener(Setting(seconds=TINY), interrupt, Deaf(), HERE.ours, nothing)
    with pytest.raises((DeviceTimeout, HostError), match=r"within 0|not done"):
        getattr(listener, way)()()
    assert not os.get_blocking(interrupt.fileno())


def test_asyncio_gives_up_when_nothing_comes(
    interrupt: Irq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspace_drv.bench.suites.waiting.PATIENCE", 0.01)
    listener = Listener(Setting(seconds=TINY), interrupt, Deaf(), HERE.ours, nothing)
    with pytest.raises(TimeoutError):
        listener.awaiting()()


def test_the_process_rings_later_than_it_was_asked(interrupt: Irq) -> None:
    with BellProcess(interrupt.fileno(), processor=HERE.ours, delay=300e-6) as bell:
        asked = time.monotonic_ns()
        bell.ask()
        assert interrupt.wait(10.0) == 1
        assert asked + 300_000 <= bell.stamp() <= time.monotonic_ns()
        bell.ask()
        interrupt.wait(10.0)


def test_a_process_that_has_ended_is_an_error(interrupt: Irq) -> None:
    with BellProcess(interrupt.fileno(), processor=HERE.ours, delay=0.0) as bell:
        bell._process.kill()
        bell._process.wait()
        for _ in range(2):
            with pytest.raises(HostError, match="the process that raises interrupts ended"):
                bell.ask()


def test_a_process_that_does_not_start_is_an_error_with_its_words(
    interrupt: Irq, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HostError, match=r"did not start.*Invalid argument"):
        BellProcess(interrupt.fileno(), processor=100_000, delay=0.0)
    monkeypatch.setattr(bell, "PATIENCE", 0.0)
    with pytest.raises(HostError, match="did not start: late"):
        BellProcess(interrupt.fileno(), processor=HERE.ours, delay=0.0)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(FileNotFoundError):
        BellProcess(interrupt.fileno(), processor=HERE.ours, delay=0.0)


@pytest.mark.parametrize("delay", [0, 250_000])
def test_a_bell_is_a_store_to_a_register(delay: int) -> None:
    """The program of the process, in a thread of this one."""
    page = os.memfd_create("page")
    registers = os.memfd_create("registers")
    for each in (page, registers):
        os.ftruncate(each, 2 * mmap.PAGESIZE)
    ours, theirs = socket.socketpair()
    numbers = [HERE.ours, delay, page, theirs.detach(), registers]
    words = [str(number) for number in [*numbers, mmap.PAGESIZE, 0x60]]
    thread = Thread(target=bell_process.main, args=[words])
    thread.start()
    with ours:
        assert ours.recv(1) == bell_process.READY
        before = time.monotonic_ns()
        ours.send(b"!")
        ours.shutdown(socket.SHUT_WR)
        thread.join(10.0)
    assert not thread.is_alive()
    stamp = int.from_bytes(os.pread(page, 8, 0), sys.byteorder)
    assert before + delay <= stamp <= time.monotonic_ns()
    content = os.pread(registers, 2 * mmap.PAGESIZE, 0)
    assert content.index(b"\1\0\0\0") == mmap.PAGESIZE + 0x60
    assert sum(content) == 1
    os.close(page)
    os.close(registers)


def test_an_alarm_ends_a_call_and_leaves_no_trace() -> None:
    other = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    left = signal.setitimer(signal.ITIMER_REAL, 0)
    fd = os.eventfd(0)
    timeout = pytest.raises(DeviceTimeout, match=r"a read: not done within 0\.01 s")
    with timeout, alarm(0.01, "a read"):
        os.eventfd_read(fd)
    os.close(fd)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.signal(signal.SIGALRM, other)
    signal.setitimer(signal.ITIMER_REAL, *left)


def test_a_processor_is_kept_only_for_a_while() -> None:
    before = os.sched_getaffinity(0)
    with staying_on(max(before)):
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before
    with pytest.raises(ZeroDivisionError):
        on(max(before), lambda: 1 // 0)()
    assert os.sched_getaffinity(0) == before


def test_two_processors_come_before_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 3})
    assert places() == [Place(2, 5), Place(2, 2)]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2})
    assert places() == [Place(2, 2)]
    assert [str(each) for each in (Place(2, 5), Place(2, 2))] == ["two cores", "one core"]


@contextmanager
def model_of_edu(
    address: str, via: str | None, kind: IrqKind | None, place: Place, delay: float
) -> Iterator[OpenEdu]:
    """As `open_edu`, with a model in place of the device: the process signals its eventfd."""
    with attach(EduModel(), InterruptingEdu, irq_kind=kind) as driver:
        fd = driver.done.fileno()
        with BellProcess(fd, processor=place.theirs, delay=delay) as bell:
            yield OpenEdu(driver, bell)


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Edu devices, and who has them; what is asked of the machine is answered from here."""
    drivers: dict[str, str | None] = {FIRST: None, SECOND: None}

    @contextmanager
    def lent(where: PciAddress, driver: str) -> Iterator[None]:
        drivers[str(where)] = driver
        yield
        drivers[str(where)] = None

    class Bus:
        def driver_of(self, where: PciAddress) -> str | None:
            return drivers[str(where)]

    monkeypatch.setattr(irq, "lent", lent)
    monkeypatch.setattr(irq, "PciBus", Bus)
    monkeypatch.setattr(irq, "is_edu", lambda address: address in drivers)
    monkeypatch.setattr(irq, "open_edu", model_of_edu)
    monkeypatch.setattr(irq, "UIO_BYTES", EVENTFD_BYTES)  # it is no node
    return drivers


FIRST, SECOND = "0000:00:04.0", "0000:00:05.0"
NO_KERNEL = ("the kernel's own driver", "edu has no kernel driver; suite rng has one")


def test_two_devices_are_measured_through_vfio_and_uio(bindings: dict[str, str | None]) -> None:
    setting = Setting(seconds=TINY, quick=True, device=FIRST, beside=SECOND, via="vfio-cdev")
    names = []
    for comparison in irq.suite.compare(setting):
        names.append((comparison.name, dict(bindings)))
        measure(comparison)
    assert names == [
        ("edu through VFIO, msi, raised 0.5 ms later", {FIRST: "vfio-pci", SECOND: None}),
        ("VFIO, fired by software and taken at once", {FIRST: "vfio-pci", SECOND: None}),
        ("edu through UIO, intx, raised 0.5 ms later", {FIRST: None, SECOND: "uio_pci_generic"}),
    ]
    assert bindings == {FIRST: None, SECOND: None}
    assert NO_KERNEL in [(each.what, each.why) for each in setting.skipped]


def test_one_device_is_measured_as_it_was_asked(bindings: dict[str, str | None]) -> None:
    setting = Setting(seconds=TINY, device=FIRST, via="uio")
    assert [each.name for each in irq.suite.compare(setting)] == [
        "edu through UIO, intx, raised 0.5 ms later",
        "edu through UIO, intx, raised 20 us later",
    ]
    assert [each.what for each in setting.skipped][-1] == "interrupts through VFIO"
    setting = Setting(seconds=TINY, device=FIRST)
    assert [each.name for each in irq.suite.compare(setting)] == [
        "edu through VFIO, msi, raised 0.5 ms later",
        "VFIO, fired by software and taken at once",
        "edu through VFIO, msi, raised 20 us later",
        "edu through VFIO, intx, raised 0.5 ms later",
        "edu through VFIO, intx, raised 20 us later",
    ]
    assert [each.what for each in setting.skipped][-1] == "interrupts through UIO"


def test_another_device_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, bindings: dict[str, str | None]
) -> None:
    setting = Setting(seconds=TINY, device="0000:00:09.0")
    assert list(irq.suite.compare(setting)) == []
    assert [each.what for each in setting.skipped] == ["interrupts of 0000:00:09.0"]


def test_the_device_is_known_by_its_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    class Function:
        def __init__(self, device: int) -> None:
            self.ids = FunctionIds(0x1234, device)

    class Bus:
        def function(self, where: PciAddress) -> Function:
            return Function(0x11E8 if str(where) == FIRST else 0x1111)

    monkeypatch.setattr(edu, "PciBus", Bus)
    assert edu.is_edu(FIRST)
    assert not edu.is_edu(SECOND)


def test_interrupts_are_raised_at_the_register_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = VirtualDevice(EduModel())
    resource = tmp_path / backend.address / "resource0"
    resource.parent.mkdir()
    resource.write_bytes(bytes(mmap.PAGESIZE))
    monkeypatch.setattr(edu, "DEVICES", str(tmp_path))
    monkeypatch.setattr(edu, "open_backend", lambda address, via: backend)
    with edu.open_edu(FIRST, None, IrqKind.INTX, HERE, 0.0) as opened:
        opened.bell.ask()
        for _ in range(10_000):
            if resource.read_bytes()[edu.RAISE]:
                break
            time.sleep(0.001)
        assert resource.read_bytes().index(1) == edu.RAISE
        opened.driver.registers.irq_raise.write(1)
        assert opened.irq.wait(5.0) == 1
        opened.driver.quiet()
        assert opened.irq.poll() == 0
        opened.driver.registers.irq_raise.write(1)
        assert opened.irq.wait(5.0) == 1
