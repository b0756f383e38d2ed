"""Faults on a real kernel: unplugged while in use, and robbed of a sibling of the IOMMU group.

Runs in the guest of test_faults_in_guest.py alone, and asks that one by its output to pull cards:
behind the root ports 6 and up virtio-rng cards, behind a bridge an edu and an e1000 in one group.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.vm.binding_in_guest import state
from uspace_drivers.edu import Edu
from uspace_drv import (
    BusyError,
    DeviceGone,
    Driver,
    HostError,
    IrqKind,
    RegisterBlock,
    attach,
    rw,
)
from uspace_drv.opening import open_backend
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, bind, bind_group, restore, restore_all
from uspace_drv.pci.journal import Journal
from uspace_drv.pci.sysfs import PciBus, PciFunction
from uspace_drv.testing.belongings import belongings
from uspace_drv.testing.guest.hot_unplug import pull_card

pytestmark = [
    pytest.mark.skipif(socket.gethostname() != "guest", reason="changes the machine it runs on"),
    pytest.mark.timeout(200),
]

DEVICES = Path("/sys/bus/pci/devices")
LONG = 60.0
"""Seconds: what takes as long hangs. QEMU's way to ask for a card takes five."""

EDU, E1000 = (0x1234, 0x11E8), (0x8086, 0x100E)


class RngRegisters(RegisterBlock, size=0x38):
    """Virtio 1.2, section 4.1.4.3: the common configuration, which QEMU has at 0 of BAR 4."""

    device_feature_select = rw(0x00)
    driver_feature_select = rw(0x08)
    device_status = rw(0x14, width=8)


class Rng(Driver):
    """A card that is never asked for anything: the wait for it ends when it is gone."""

    patience = LONG

    def probe(self) -> None:
        self.registers = RngRegisters(self.device.bar(4))
        self.registers.driver_feature_select.write(1)
        self.fired = self.device.irq(0)
        self.removed = False

    def remove(self) -> None:
        self.removed = True
        self.registers.device_status.write(0)

    def wait_for_interrupt(self) -> None:
        self.fired.wait(LONG)

    def poll_register(self) -> None:
        self.registers.driver_feature_select.wait(2, timeout=self.patience)

    def map_memory(self) -> None:
        """By the handle of a moment ago, as a driver may keep it."""
        memory = self.device.dma
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            memory.alloc(np.uint8, 1 << 14).close()

    def ask_for_memory(self) -> None:
        """By the device, each time."""
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            self.device.dma.alloc(np.uint8, 1 << 14).close()


def card_behind(slot: int) -> tuple[Path, PciAddress]:
    """The root port in a slot of bus 0, and the card that is in it."""
    port = DEVICES / f"0000:00:{slot:02x}.0"
    (card,) = port.glob("0000:*:00.0")
    return port, PciAddress.parse(card.name)


def ask_qemu(slot: int) -> None:
    """Let the host's side of this test send a device_del: the kernel then tells the driver."""
    print(f"\nplease unplug card{slot}.", flush=True)


def unplug(slot: int, how: str) -> None:
    if how == "asked":
        ask_qemu(slot)
    else:
        pull_card(DEVICES / f"0000:00:{slot:02x}.0")


def ends_of(uses: list[Callable[[], None]], interfere: Callable[[], None]) -> dict[str, object]:
    """How each of them ended, all at work at once in threads of their own, after `interfere`."""
    ends: dict[str, object] = {}
    begun = threading.Barrier(len(uses) + 1)

    def work(use: Callable[[], None]) -> None:
        begun.wait(LONG)
        try:
            use()
            ends[use.__name__] = "came to its end"
        except BaseException as error:  # noqa: BLE001 - it is what the test is about
            ends[use.__name__] = error

    threads = [threading.Thread(target=work, args=[use]) for use in uses]
    for thread in threads:
        thread.start()
    begun.wait(LONG)
    interfere()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads), ends
    return ends


def in_a_child(work: Callable[[], None]) -> None:
    """Run it in a process of its own, which has to end by itself and well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the child may not go on with pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def assert_forgotten(address: PciAddress) -> None:
    """The kernel has let go of the card, and so has the journal once it is asked to."""
    wait_until(lambda: not (DEVICES / str(address)).exists())
    result = restore(address)
    assert "gone" in result.notes[0]
    assert Journal(PciBus().host).addresses() == []


REMOVALS = [
    (6, "vfio-cdev", "asked"),
    (7, "vfio-cdev", "pulled"),
    (8, "vfio-type1", "asked"),
    (9, "vfio-type1", "pulled"),
]


@pytest.mark.parametrize(("slot", "via", "how"), REMOVALS)
def test_a_card_goes_while_it_is_used(slot: int, via: str, how: str) -> None:
    _, address = card_behind(slot)
    bind(address, VFIO)

    in_a_child(lambda: leaving_nothing(lambda: use_until_it_goes(address, via, slot, how)))
    assert_forgotten(address)


def use_until_it_goes(address: PciAddress, via: str, slot: int, how: str) -> None:
    attached = attach(str(address), Rng, via=via)
    rng = attached.driver
    uses = [rng.wait_for_interrupt, rng.poll_register, rng.map_memory, rng.ask_for_memory]
    ends = ends_of(uses, lambda: unplug(slot, how))
    assert set(map(type, ends.values())) == {DeviceGone}, ends
    later: list[Callable[[], object]] = [
        *uses,
        lambda: rng.device.bar(4),
        lambda: rng.device.config.read32(0),
        rng.device.reset,
    ]
    for use in later:
        with pytest.raises(DeviceGone):
            use()
    attached.close()
    assert rng.removed


class HastyRng(Rng):
    """UIO tells nobody who only reads registers: the end of the wait is when that is noticed."""

    patience = 3.0


def test_a_card_of_uio_goes_while_it_is_used() -> None:
    _, address = card_behind(10)
    bind(address, UIO)

    def use() -> None:
        attached = attach(str(address), HastyRng)
        rng = attached.driver
        uses = [rng.wait_for_interrupt, rng.poll_register]
        ends = ends_of(uses, lambda: unplug(10, "pulled"))
        assert set(map(type, ends.values())) == {DeviceGone}, ends
        with pytest.raises(DeviceGone):
            attached.close()

    in_a_child(lambda: leaving_nothing(use))
    assert_forgotten(address)


def leaving_nothing(work: Callable[[], None]) -> None:
    before = belongings()
    work()
    assert belongings() == before


def test_a_killed_process_does_not_keep_a_card_that_goes() -> None:
    """The host waits for a process that ignores its request; its end is the end of that."""
    _, address = card_behind(11)
    bind(address, VFIO)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        backend = open_backend(str(address))  # nobody listens to the host
        backend.irq_line(IrqKind.MSIX, 0)
        os.write(writing, b"!")
        time.sleep(LONG)
        os._exit(1)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    os.close(writing)
    pull_card(DEVICES / "0000:00:0b.0")
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert_forgotten(address)


def function(ids: tuple[int, int]) -> PciFunction:
    """The one of that kind which shares its group."""
    functions = PciBus().functions()
    return next(f for f in functions if (f.ids.vendor, f.ids.device) == ids and f.address.bus)


@pytest.fixture
def pair() -> Iterator[tuple[PciAddress, PciAddress]]:
    """An edu and the kernel's e1000 in one group, both bound to VFIO; all as before afterwards."""
    before = state()
    edu, sibling = function(EDU), function(E1000)
    assert sibling.driver == "e1000"
    assert edu.group == sibling.group
    bind_group(edu.address, VFIO)
    yield edu.address, sibling.address
    failures = [each for each in restore_all() if isinstance(each, Exception)]
    assert failures == []
    assert state() == before


def grab(address: PciAddress) -> None:
    """What an administrator may do, or a hot-plug script: give the function to the kernel."""
    folder = DEVICES / str(address)
    if (folder / "driver").exists():
        (folder / "driver/unbind").write_text(str(address))
    (folder / "driver_override").write_text("\n")
    Path("/sys/bus/pci/drivers/e1000/bind").write_text(str(address))


@pytest.mark.parametrize("via", ["vfio-cdev", "vfio-type1", "vfio-compat"])
def test_the_kernel_does_not_get_a_sibling_of_what_is_attached(
    pair: tuple[PciAddress, PciAddress], via: str
) -> None:
    edu_at, sibling = pair
    with attach(str(edu_at), Edu, via=via) as edu:
        with edu.device.dma.alloc(np.uint8, 1 << 20) as buffer:
            with pytest.raises(OSError, match="Device or resource busy"):
                grab(sibling)
            assert PciBus().function(sibling).driver is None
            assert not buffer.closed
        edu.self_test()
    grab(sibling)  # nobody is in between any more
    assert PciBus().function(sibling).driver == "e1000"


@pytest.mark.parametrize("via", ["vfio-cdev", "vfio-type1", "vfio-compat"])
def test_a_sibling_grabbed_after_bind_is_named(
    pair: tuple[PciAddress, PciAddress], via: str
) -> None:
    edu_at, sibling = pair
    grab(sibling)
    cure = rf"shared with {sibling} \(e1000\).*run: uspace bind {sibling}"
    with pytest.raises(HostError, match=cure):
        attach(str(edu_at), Edu, via=via)
    bind(sibling)
    with attach(str(edu_at), Edu, via=via) as edu:
        edu.self_test()


@pytest.mark.parametrize("via", ["vfio-cdev", "vfio-type1"])
def test_restoring_a_sibling_of_what_is_attached_loses_nothing(
    pair: tuple[PciAddress, PciAddress], via: str
) -> None:
    edu_at, sibling = pair
    with attach(str(edu_at), Edu, via=via) as edu:
        with pytest.raises((BusyError, HostError), match=str(sibling)) as caught:
            restore(sibling)
        print(caught.value)
        assert Journal(PciBus().host).read(sibling) is not None
        edu.self_test()
    with closing(open_backend(str(edu_at), via=via)):
        pass
    assert restore(sibling).driver == "e1000"
