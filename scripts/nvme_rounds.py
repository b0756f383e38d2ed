"""Reads from two equal disks, one by the kernel's driver and one by ours; runs in a guest.

usage: nvme_rounds.py KERNELS OURS VIA   (PCI addresses; VIA as for `attach`)

For scripts/bench-nvme-guest, which counts processor time from outside, between "begin" and "end";
then a line of JSON says what was done in between. Rounds alternate between the ways.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from uspace_drivers.nvme import Nvme
from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drv import attach
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import VFIO, bind

DEPTHS = (1, 32)
ROUNDS = 3
WARM, WINDOW, REST = 0.5, 3.0, 2.0  # seconds, before, while and after something is measured
SIZE = 4096  # bytes of a read
BATCH = 1024

FIO = (
    "fio", "--name=read", "--ioengine=io_uring", "--direct=1", "--rw=randread", f"--bs={SIZE}",
    "--time_based", f"--runtime={WARM + WINDOW + REST:g}", "--norandommap", "--output-format=json",
)  # fmt: skip


IN_BATCHES = ("--iodepth_batch_submit=16", "--iodepth_batch_complete_min=8")
"""So that fio, too, hands over and takes many at once; the kernel then rings once for all."""


def say(line: str) -> None:
    """Tell the host at once."""
    print(line, flush=True)


def name_disk(address: str) -> str:
    """Return the name of the kernel's disk at a PCI address."""
    (controller,) = Path(f"/sys/bus/pci/devices/{address}/nvme").iterdir()
    return f"{controller.name}n1"


def answered(disk: str) -> int:
    """Return how many reads a disk has completed (Linux Documentation/block/stat.rst)."""
    return int(Path(f"/sys/block/{disk}/stat").read_text().split()[0])


def measure_kernel(disk: str, depth: int, *more: str) -> tuple[int, float, float]:
    """Let fio read for a while: reads and seconds in the middle, its processor time for each."""
    words = [*FIO, f"--filename=/dev/{disk}", f"--iodepth={depth}", *more]
    idle = answered(disk)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as fio:
        while answered(disk) == idle:  # it takes a while to start
            time.sleep(0.05)
        time.sleep(WARM)
        say("begin")
        begin, before = time.monotonic(), answered(disk)
        time.sleep(WINDOW)
        reads = answered(disk) - before
        seconds = time.monotonic() - begin
        say("end")
        said, _ = fio.communicate()
    job = json.loads(said)["jobs"][0]
    return reads, seconds, (job["usr_cpu"] + job["sys_cpu"]) / 100 / job["read"]["iops"]


def processor_time() -> float:
    """Seconds of this process, its own and the kernel's for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Reader:
    """Reads through one queue pair of ours, at a depth."""

    def __init__(self, nvme: Nvme, depth: int, *, polled: bool) -> None:
        self._nvme = nvme
        self._depth = depth
        self._space = nvme.namespaces[1]
        self._pair = nvme.queue(depth, polled=polled)
        self._memory = nvme.memory.alloc("u1", (depth, SIZE))
        blocks = SIZE // self._space.block_size
        places = np.random.default_rng(1).integers(0, self._space.blocks // blocks, BATCH) * blocks
        buffers = self._memory.iova + np.arange(BATCH) % depth * SIZE
        self._batch = self._space.requests(Opcode.READ, places, blocks, buffers)
        self._results = Result.array(BATCH)
        self._places, self._blocks = places.tolist(), blocks

    def run(self) -> int:
        """Read all the places once; return how many they are."""
        if self._depth == 1 and self._pair.vector is not None:  # one by one, by blocking calls
            space, buffer = self._space.on(self._pair), self._memory.array[0]
            for place in self._places:
                space.read(place, self._blocks, buffer)
        else:
            done = self._pair.run(self._batch, self._results, depth=self._depth)
            if done["status"].any():
                sys.exit(f"nvme_rounds: reads failed: {done[done['status'] != 0][0]}")
        return BATCH

    def close(self) -> None:
        """Give queue and memory back."""
        self._nvme.queues.close(self._pair)
        self._memory.close()


def measure_ours(nvme: Nvme, depth: int, *, polled: bool) -> tuple[int, float, float]:
    """Read for a while, as `measure_kernel` does."""
    reader = Reader(nvme, depth, polled=polled)
    reader.run()
    say("begin")
    begin, used, reads = time.monotonic(), processor_time(), 0
    while time.monotonic() < begin + WINDOW:
        reads += reader.run()
    seconds, used = time.monotonic() - begin, processor_time() - used
    say("end")
    reader.close()
    return reads, seconds, used / reads


def main(kernels: str, address: str, via: str) -> None:
    """Take the second disk away from the kernel, and let both do their rounds."""
    disk = name_disk(kernels)
    bind(PciAddress.parse(address), VFIO)
    with attach(address, Nvme, via=via, unsafe_dma_without_iommu="noiommu" in via) as nvme:
        ways: dict[str, Callable[[int], tuple[int, float, float]]] = {
            "kernel": lambda depth: measure_kernel(disk, depth),
            "kernel, in batches": lambda depth: measure_kernel(disk, depth, *IN_BATCHES),
            "ours, polled": lambda depth: measure_ours(nvme, depth, polled=True),
            "ours, by interrupt": lambda depth: measure_ours(nvme, depth, polled=False),
        }
        for _ in range(ROUNDS):
            for depth in DEPTHS:
                for way, measure in ways.items():
                    if depth == 1 and "batches" in way:
                        continue
                    reads, seconds, own = measure(depth)
                    sample = {"reads": reads, "seconds": seconds, "own": own}
                    say(json.dumps({"depth": depth, "way": way, **sample}))


if __name__ == "__main__":
    main(*sys.argv[1:])
