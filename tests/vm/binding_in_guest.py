"""Binding on a real kernel: killed at any moment, for a user without rights, by udev, by broker.

Runs in the guest alone, whose clock runs fast on a busy host, so deadlines are long: edu at 4,
e1000 at 5, edu and e1000 behind a bridge in one IOMMU group, and an igb where QEMU has one.
USPACE_UDEV is a folder that has udev unpacked.
"""

from __future__ import annotations

import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from uspace_drivers.edu import Edu
from uspace_drv.attachment import attach
from uspace_drv.backends.vfio.ways import nodes_of
from uspace_drv.broker import open_brokered
from uspace_drv.errors import BusyError, HostError
from uspace_drv.opening import open_backend
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import VFIO, Terms, bind, bind_group, restore, restore_all
from uspace_drv.pci.journal import Journal
from uspace_drv.pci.moves import is_bus_master
from uspace_drv.pci.persist import rule_path
from uspace_drv.pci.sriov import set_virtual_functions, virtual_functions
from uspace_drv.pci.sysfs import PciBus

pytestmark = [
    pytest.mark.skipif(socket.gethostname() != "guest", reason="changes the machine it runs on"),
    pytest.mark.timeout(900),
]

EDU, CARD = PciAddress(0, 0, 4, 0), PciAddress(0, 0, 5, 0)
NOBODY = pwd.getpwnam("nobody").pw_uid
AS_NOBODY = [
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--no-new-privs",
]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
EDU_TESTS = ["--timeout", "120", "tests/drivers/test_edu.py"]
KILLS = 60


@pytest.fixture(scope="module", autouse=True)
def _readable() -> None:
    """Let nobody read what python is made of: the guest forgets it all at the end."""
    for start in (Path(sys.executable), Path(sys.executable).resolve(), Path.cwd()):
        for folder in start.parents:
            if folder.stat().st_uid == 0:
                folder.chmod(folder.stat().st_mode | 0o055)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = state()
    yield
    failures = [each for each in restore_all() if isinstance(each, Exception)]
    assert failures == []
    assert state() == before


def state() -> dict[str, object]:
    """All that binding may change."""
    bus = PciBus()
    found: dict[str, object] = {}
    for function in bus.functions():
        master = function.driver is not None or is_bus_master(function.address, bus.host)
        found[str(function.address)] = (function.driver, function.driver_override, master)
    nodes = [*Path("/dev/vfio").rglob("*"), Path("/dev/iommu"), *Path("/dev").glob("uio*")]
    found["nodes"] = {str(node): node.stat().st_uid for node in nodes if node.exists()}
    found["journal"] = bus.host.names("/var/lib/uspace_drv")
    found["rules"] = bus.host.names("/etc/udev/rules.d")
    return found


def ways() -> list[str]:
    """The ways into edu, as it is bound; without an IOMMU nobody could use one."""
    nodes = nodes_of(PciBus().function(EDU))
    there = [name for name, paths in nodes.items() if all(Path(path).exists() for path in paths)]
    return [name for name in there if "noiommu" not in name]


def run_edu_tests(*words: str) -> None:
    done = subprocess.run(
        [*AS_NOBODY, *PYTEST, *EDU_TESTS, *words],
        text=True, capture_output=True, check=False, timeout=800,
    )  # fmt: skip
    print(" ".join(words), done.stdout.splitlines()[-1:])
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_after_bind_runs_as_nobody() -> None:
    uspace("bind", str(EDU), "--user", "nobody")
    names = ways()
    assert "vfio-type1" in names
    assert ("vfio-cdev" in names) is Path("/dev/iommu").exists()
    run_edu_tests("--device", str(EDU), "--via", names[0])
    for via in names[1:]:
        done = uspace("run", "edu", "--via", via, str(EDU), "factorial", "5", who=AS_NOBODY)
        assert done.stdout.strip() == "120"


def test_nobody_needs_no_node_with_a_broker(tmp_path: Path) -> None:
    bind(EDU)
    with broker(tmp_path / "socket"):
        run_edu_tests("--device", f"broker:{tmp_path / 'socket'}")
    for via in ways()[1:]:
        with broker(tmp_path / via, "--via", via):
            done = uspace("run", "edu", f"broker:{tmp_path / via}", "factorial", "5", who=AS_NOBODY)
            assert done.stdout.strip() == "120"


HOLDS = """
import sys, time
from uspace_drv import attach
with attach(sys.argv[1]) as edu:
    buffer = edu.device.dma.alloc("u1", 4096)
    print("holds", flush=True)
    time.sleep(100)
"""


def test_the_broker_takes_the_device_back_from_who_is_killed(tmp_path: Path) -> None:
    bind(EDU)
    with broker(tmp_path / "socket"):
        address = f"broker:{tmp_path / 'socket'}"
        for _ in range(3):
            command = [*AS_NOBODY, sys.executable, "-c", HOLDS, address]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
                assert holder.stdout is not None
                assert holder.stdout.readline() == b"holds\n"
                with pytest.raises(BusyError, match=f"process {holder.pid} has it"):
                    open_brokered(str(tmp_path / "socket"))
                holder.kill()
        assert uspace("run", "edu", address, "factorial", "5").stdout.strip() == "120"


def test_another_user_gets_nothing_from_a_broker(tmp_path: Path) -> None:
    bind(EDU)
    with broker(tmp_path / "socket"):
        (tmp_path / "socket").chmod(0o666)
        with as_user(1234), pytest.raises(HostError, match="user 1234 may not have it"):
            open_brokered(str(tmp_path / "socket"))


@contextmanager
def as_user(number: int) -> Iterator[None]:
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


def test_killed_at_random_moments_of_bind_and_restore() -> None:
    generator = random.Random(7)
    before, start = state(), time.monotonic()
    bind(CARD, terms=Terms(user="nobody", persist=True))
    longest = 1.3 * (time.monotonic() - start) + 0.02  # a fork takes its time too
    restore(CARD)
    reached = set()
    for number in range(KILLS):
        killed_after(
            generator.uniform(0.0, longest),
            lambda: bind(CARD, terms=Terms(user="nobody", persist=True)),
        )
        reached.add(PciBus().function(CARD).driver)
        if number % 2:
            killed_after(generator.uniform(0.0, longest), lambda: restore(CARD))
        assert [each for each in restore_all() if isinstance(each, Exception)] == []
        assert state() == before, f"round {number}"
    print("drivers when killed:", reached)
    assert {"e1000", VFIO} <= reached


def killed_after(seconds: float, action: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            action()
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_dry_run_changes_nothing() -> None:
    before = state()
    done = uspace("bind", str(CARD), "--user", "nobody", "--persist", "--dry-run")
    assert f"write '{CARD}' to /sys/bus/pci/devices/{CARD}/driver/unbind" in done.stdout
    assert state() == before


def test_a_whole_group() -> None:
    bus = PciBus()
    shared = next(f for f in bus.functions() if f.group and f.driver == "e1000" and f.address.bus)
    bridges = [f for f in bus.functions() if f.driver == "shpchp"]  # on Debian's kernel
    bindings = bind_group(shared.address)
    bound = [binding for binding in bindings if binding.driver == VFIO]
    assert [binding.notes for binding in bound] == [(), ()]
    assert {bus.function(binding.address).driver for binding in bound} == {VFIO}
    released = [binding.address for binding in bindings if binding not in bound]
    assert released == [bridge.address for bridge in bridges]
    edu = next(each.address for each in bound if each.address != shared.address)
    with attach(str(edu), Edu) as driver:  # the bridge still lets memory be reached
        driver.store(b"over the bridge")
        assert driver.load(15) == b"over the bridge"


def test_a_udev_rule_binds_it_again() -> None:
    bind(CARD, terms=Terms(user="nobody", persist=True))
    with udev():
        forget_as_a_restart_would()
        assert PciBus().function(CARD).driver == "e1000"
        announce(CARD)
        wait_until(lambda: PciBus().function(CARD).driver == VFIO)
        group = PciBus().function(CARD).group
        assert group is not None
        wait_until(lambda: Path(group.node).stat().st_uid == NOBODY)
        (result,) = restore_all()
        assert not isinstance(result, Exception)
        assert result.driver == "e1000"
        assert not Path(rule_path(CARD)).exists()
        announce(CARD)  # to a udev that still knows the rule
        settle()
        assert PciBus().function(CARD).driver == "e1000"


def forget_as_a_restart_would() -> None:
    """Everything but the rule and the journal, whose entry is of another boot then."""
    folder = Path("/sys/bus/pci/devices") / str(CARD)
    (folder / "driver/unbind").write_text(str(CARD))
    (folder / "driver_override").write_text("\n")
    Path("/sys/bus/pci/drivers_probe").write_text(str(CARD))
    journal = Journal(PciBus().host)
    entry = journal.read(CARD)
    assert entry is not None
    journal.write(CARD, replace(entry, boot_id="the boot before"))


def announce(address: PciAddress) -> None:
    """What udev hears of each device when a machine starts (udevadm trigger --action=add)."""
    (Path("/sys/bus/pci/devices") / str(address) / "uevent").write_text("add")


def test_virtual_functions() -> None:
    bus = PciBus()
    physical = next((f for f in bus.functions() if f.driver == "igb"), None)
    if physical is None:
        pytest.skip("this kernel has no driver for an igb")
    first, second = set_virtual_functions(physical.address, 2)
    assert [bus.function(each).driver for each in (first, second)] == [None, None]
    uspace("bind", str(first), "--user", "nobody")
    done = uspace("info", str(first), who=AS_NOBODY)
    assert "8086:10ca" in done.stdout
    open_backend(str(first)).close()
    restore(physical.address)
    assert virtual_functions(physical.address) == ()
    assert Journal(bus.host).addresses() == []


def uspace(
    *words: str, check: bool = True, who: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*(who or []), sys.executable, "-m", "uspace_drv", *words],
        text=True,
        capture_output=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@contextmanager
def broker(path: Path, *words: str) -> Iterator[None]:
    for folder in path.parents:  # nobody has to reach the socket
        if folder.stat().st_mode & 0o011 != 0o011:
            folder.chmod(folder.stat().st_mode | 0o011)
    command = [sys.executable, "-m", "uspace_drv", "broker", str(EDU), str(path)]
    command += ["--user", "nobody", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "lending" in process.stdout.readline()
            yield
        finally:
            process.terminate()
            assert process.wait(30) == 128 + signal.SIGTERM
    assert not path.exists()


def settle() -> None:
    """Wait until udev has done all that it was told."""
    environment = os.environ | {"SYSTEMD_IGNORE_CHROOT": "1"}  # else it does nothing in a guest
    subprocess.run([udevadm(), "settle"], check=True, timeout=60, env=environment)


def udevadm() -> str:
    """The program, which is the daemon too when it is called so; older packages do without usr."""
    folder = Path(os.environ["USPACE_UDEV"])
    places = (folder / "usr/bin/udevadm", folder / "bin/udevadm")
    return str(next(path for path in places if path.exists()))


@contextmanager
def udev() -> Iterator[None]:
    if "USPACE_UDEV" not in os.environ:
        pytest.skip("no udev was brought along")
    Path("/run/udev").mkdir(exist_ok=True)
    daemon_words = ["systemd-udevd", "--resolve-names=never"]
    with subprocess.Popen(daemon_words, executable=udevadm()) as daemon:
        try:
            wait_until(lambda: Path("/run/udev/control").exists())
            yield
        finally:
            daemon.terminate()
            daemon.wait(30)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
