"""The comparisons of the suite: both sides on devices, or the model where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from uspace_drivers.nvme.benchmark.devices import Devices, devices_of
from uspace_drivers.nvme.benchmark.kernel_side import (
    IO_URING,
    Engine,
    read_by_kernel,
    require_fio,
    usable_engines,
)
from uspace_drivers.nvme.benchmark.model_side import compare_on_model
from uspace_drivers.nvme.benchmark.user_side import Reader, read_by_user
from uspace_drivers.nvme.benchmark.work import ALL, QUICK, Work
from uspace_drv.bench import Comparison, Figure, Sample, Setting, Way

POLLED, BY_INTERRUPT = "uspace, polled", "uspace, by interrupt"

LEAST = 0.5
"""Seconds that a sample on a device takes at least: to start fio takes longer than less would save.
"""


def compare(setting: Setting) -> Iterator[Comparison]:
    """On the device that is named, else on the model; nothing is ever written to a device."""
    if setting.device is None:
        setting.skip("the kernel's side", "needs a device; run: uspace bench nvme --vm")
        yield from compare_on_model(setting)
        return
    require_fio()
    with devices_of(setting, setting.device) as devices:
        engines = usable_engines(devices.disk(), setting)
        most, has_interrupts = _look_at(devices)
        if not has_interrupts:
            setting.skip(BY_INTERRUPT, f"{setting.device}: there is no interrupt for a queue")
        for work in QUICK if setting.quick else ALL:
            if work.size > most:
                setting.skip(work.name, f"{setting.device}: a command moves up to {most} bytes")
            else:
                yield _comparison(devices, work, engines, setting, has_interrupts=has_interrupts)


def _look_at(devices: Devices) -> tuple[int, bool]:
    """Bytes that a command moves, and whether queues have interrupts."""
    nvme = devices.driver()
    space = nvme.namespaces[min(nvme.namespaces)]
    pair = nvme.queue(1)
    try:
        return space.most_blocks * space.block_size, pair.vector is not None
    finally:
        nvme.queues.close(pair)


def _comparison(
    devices: Devices,
    work: Work,
    engines: tuple[Engine, ...],
    setting: Setting,
    *,
    has_interrupts: bool,
) -> Comparison:
    seconds = max(setting.seconds, LEAST)
    ways: dict[str, Way] = {
        engine.name: partial(_by_kernel, devices, engine, work, seconds)
        for engine in engines
        if engine.fits(work)
    }
    ways[POLLED] = partial(_by_user, devices, work, seconds, polled=True)
    if has_interrupts:
        ways[BY_INTERRUPT] = partial(_by_user, devices, work, seconds, polled=False)
    return Comparison(
        name=work.name,
        operation="read",
        ways=ways,
        baseline=IO_URING.name,
        figure=Figure.RATE,
        size=work.size,
        axes=work.axes,
        chart=work.chart,
    )


def _by_kernel(devices: Devices, engine: Engine, work: Work, seconds: float) -> Sample:
    return read_by_kernel(devices.disk(), engine, work, seconds)


def _by_user(devices: Devices, work: Work, seconds: float, *, polled: bool) -> Sample:
    """One at a time by interrupt is what blocking calls do; all else goes in batches."""
    loop = Reader.in_c if polled or work.depth > 1 else Reader.one_by_one
    return read_by_user(devices.driver(), work, seconds, loop, polled=polled)
