"""A server after very many clients that work and die: it is as before, and a driver works on it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.vfiouser.raw_client import PAGE, RawClient
from uspace_drivers.edu import Edu, EduModel
from uspace_drv import attach
from uspace_drv.testing.belongings import belongings
from uspace_drv.testing.served import ServedModel
from uspace_drv.vfio_numbers import FeatureFlag, IrqAction, MigrationState
from uspace_drv.vfiouser.numbers import Command, Feature
from uspace_drv.vfiouser.server import Server
from uspace_drv.vfiouser.wire import DeviceState, FeatureHead, pack

T = TypeVar("T")
MEMORY = 16 * PAGE
SIGNAL = IrqAction.DATA_EVENTFD | IrqAction.TRIGGER
MASK = IrqAction.DATA_NONE | IrqAction.MASK
BUFFER = 0x40000
"""Where edu has its own memory; its DMA registers are from 0x80 on (QEMU docs/specs/edu.rst)."""

VICTIM = """
import sys
from uspace_drv import attach
from uspace_drivers.edu import Edu
with attach(sys.argv[1], Edu) as edu:
    print("ready", flush=True)
    while True:
        edu.store(bytes(64))
        edu.factorial(5)
"""


def copy_out(client: RawClient) -> None:
    """Let edu write to memory in the background, with an interrupt at the end."""
    for offset, value in ((0x80, BUFFER), (0x88, PAGE), (0x90, 64), (0x98, 7)):
        client.write(offset, value, 8)


def stop(client: RawClient) -> None:
    head = FeatureHead(64, Feature.MIG_DEVICE_STATE | FeatureFlag.SET)
    client.command(Command.DEVICE_FEATURE, pack(head, pack(DeviceState(MigrationState.STOP, 0))))


def live(path: Path, rng: random.Random, file: int, event: int) -> None:
    """One client, up to a moment that chance decides."""
    twin = rng.random() < 0.3
    shared = twin or rng.random() < 0.5  # over a twin socket nobody would answer requests
    kind = rng.randrange(2)
    with RawClient(path, bytearray(MEMORY)) as client:
        steps: list[Callable[[], object]] = [
            lambda: client.greet(twin=twin),
            client.be_bus_master,
            lambda: client.map(0, MEMORY, file if shared else None),
            lambda: client.set_irqs(SIGNAL, kind, 0, 1, [event]),
            lambda: client.set_irqs(MASK, kind),
            lambda: stop(client) if rng.random() < 0.3 else copy_out(client),
            lambda: client.read(0),
            lambda: client.unmap(0, MEMORY if rng.random() < 0.5 else PAGE),
            lambda: client.send(Command.REGION_READ, b"half of it"),
        ]
        for step in steps[: rng.randrange(len(steps) + 1)]:
            step()


def test_a_thousand_clients(tmp_path: Path, nothing_left: None) -> None:
    """They connect, work and die at moments that a seed decides."""
    model = EduModel(dma_delay=0.001)
    rng = random.Random(4)
    with Server(model, tmp_path / "socket") as server:
        with attach(f"vfio-user:{server.path}", Edu) as edu:
            edu.self_test()
        before = belongings()
        file, event = os.memfd_create("guest"), os.eventfd(0)
        os.ftruncate(file, MEMORY)
        for _ in range(1000):
            live(server.path, rng, file, event)
        os.close(file)
        os.close(event)
        with attach(f"vfio-user:{server.path}", Edu) as edu:
            edu.self_test()
        assert settle(belongings, before) == before
        assert not model.memory.mappings
    model.close()


def test_processes_that_are_killed() -> None:
    rng = random.Random(5)

    def held() -> tuple[int, int]:
        place = Path(f"/proc/{served.pid}")
        return len([*(place / "fd").iterdir()]), len([*(place / "task").iterdir()])

    with ServedModel(EduModel) as served:
        seen = []
        for _ in range(6):
            command = [sys.executable, "-c", VICTIM, served.address]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
                assert victim.stdout is not None
                assert victim.stdout.readline()
                threading.Event().wait(rng.random() * 0.1)
                victim.kill()
            with attach(served.address, Edu) as edu:
                edu.self_test()
                seen.append(held())
        assert len({*seen}) == 1


def settle(look: Callable[[], T], wanted: T) -> T:
    """The last client's session ends a moment after its connection."""
    end = time.monotonic() + 5.0
    while (now := look()) != wanted and time.monotonic() < end:
        threading.Event().wait(0.01)
    return now
