"""The suite "rng": random bytes by the kernel's /dev/hwrng and by ours, or from our model.

Linux Documentation/admin-guide/hw_random.rst. The kernel asks the device for 64 bytes at a time,
ahead of the reader; ours for what is read, in buffers of 4 KiB. The kernel's thread that feeds
/dev/random reads from its device now and then, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from uspace_drivers.virtio_rng.driver import VirtioRng
from uspace_drivers.virtio_rng.model import VirtioRngModel
from uspace_drv import HostError, UspaceError, attach
from uspace_drv.bench import Comparison, Figure, GuestMachine, Sample, Setting, Suite, Way, repeat
from uspace_drv.bench.hand_over import HandOver
from uspace_drv.testing.served import ServedModel

SIZES, QUICK = (16, 64, 4096), (64, 4096)
HWRNG, URANDOM = "/dev/hwrng", "os.urandom"
NODE, CONTROL = Path("/dev/hwrng"), Path("/sys/class/misc/hw_random")
HERE = "in this process"
WAITING = {"by interrupt": False, "polled": True}
"""How ours waits; the kernel's driver sleeps until the interrupt."""

KERNELS, OURS = "0000:00:04.0", "0000:00:05.0"
GUEST = GuestMachine(
    devices=[
        f"virtio-rng-pci,addr={slot},disable-legacy=on,iommu_platform=on" for slot in (4, 5)
    ],
    iommu="intel", device=OURS, beside=KERNELS, via="vfio-cdev",
)  # fmt: skip


def compare(setting: Setting) -> Iterator[Comparison]:
    """Yield a comparison for each size of a read."""
    sizes = QUICK if setting.quick else SIZES
    if setting.device is None:
        setting.skip(HWRNG, "no device was named; say --device ADDR, or --vm for one of QEMU's")
        yield from _with_models(setting, sizes)
    else:
        yield from _with_device(setting, setting.device, sizes)


def _with_device(setting: Setting, address: str, sizes: tuple[int, ...]) -> Iterator[Comparison]:
    """Read by both drivers, each from a device of its own, or both from one in turns."""
    with HandOver(address, setting.via) as place:

        def kernels(size: int) -> Sample:
            if setting.beside is None:
                place.to_kernel()
            with chosen_by_the_kernel(), NODE.open("rb", buffering=0) as file:
                return repeat(setting, partial(_read_all, file.fileno(), size))()

        def ours(size: int, polled: bool) -> Sample:
            place.to_user()
            with attach(
                address, VirtioRng, via=setting.via,
                unsafe_dma_without_iommu=setting.unsafe_dma_without_iommu,
            ) as rng:  # fmt: skip
                setting.note_way(rng.device.via)
                return repeat(setting, partial(rng.read, size, polled=polled))()

        place.to_user()
        for size in sizes:
            ways: dict[str, Way] = {
                f"uspace, {name}": partial(ours, size, polled) for name, polled in WAITING.items()
            }
            yield _comparison(size, {HWRNG: partial(kernels, size), **ways}, HWRNG)


def _with_models(setting: Setting, sizes: tuple[int, ...]) -> Iterator[Comparison]:
    """Read from our model, in this process and in one of its own."""
    with ExitStack() as stack:
        drivers = {HERE: stack.enter_context(attach(VirtioRngModel(), VirtioRng))}
        try:
            served = stack.enter_context(ServedModel(VirtioRngModel, quiet=True))
            drivers["by vfio-user"] = stack.enter_context(attach(served.address, VirtioRng))
        except UspaceError as error:
            setting.skip("model by vfio-user", str(error))
        for size in sizes:
            ways: dict[str, Way] = {URANDOM: repeat(setting, partial(os.urandom, size))}
            for where, driver in drivers.items():
                for name, polled in WAITING.items():
                    if where != HERE or polled:  # there it answers before anybody could wait
                        read = partial(driver.read, size, polled=polled)
                        ways[f"model {where}, {name}"] = repeat(setting, read)
            yield _comparison(size, ways, URANDOM)


def _comparison(size: int, ways: Mapping[str, Way], baseline: str) -> Comparison:
    return Comparison(
        name=f"reads of {size} random bytes", operation="read", size=size, figure=Figure.RATE,
        ways=ways, baseline=baseline, axes={"size": size}, chart="random bytes",
    )  # fmt: skip


@contextmanager
def chosen_by_the_kernel() -> Iterator[None]:
    """Let /dev/hwrng be the virtio device that the kernel has, and afterwards what it was.

    `HostError` if the kernel has none or several, or does not let us choose.
    """
    try:
        before = (CONTROL / "rng_current").read_text().strip()
        names = (CONTROL / "rng_available").read_text().split()
        found = [name for name in names if name.startswith("virtio_rng")]
        if len(found) != 1:
            raise HostError(
                f"{NODE}: expected one virtio_rng among the kernel's generators, which are"
                f" {', '.join(names) or 'none'}; is the module virtio_rng loaded?"
            )
        _choose(found[0], before)
    except OSError as error:
        raise HostError(f"{NODE}: cannot be chosen: {error}", cause=error) from error
    try:
        yield
    finally:
        _choose(before, found[0])


def _choose(wanted: str, current: str) -> None:
    if wanted != current:
        (CONTROL / "rng_current").write_text(wanted)


def _read_all(descriptor: int, size: int) -> None:
    got = len(os.read(descriptor, size))
    if got != size:
        raise HostError(f"{NODE}: gave {got} bytes instead of {size}")


suite = Suite(
    summary="random bytes: virtio's entropy device by the kernel (/dev/hwrng) and by ours",
    compare=compare,
    guest=GUEST,
)
