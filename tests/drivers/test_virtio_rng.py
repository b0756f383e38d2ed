"""The virtio entropy driver: the same tests on the model, and on QEMU's device by VFIO and UIO."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uspace_drivers.virtio_rng import VirtioRng, VirtioRngModel
from uspace_drivers.virtio_rng.driver import BUFFER_SIZE, BUFFERS
from uspace_drv import DeviceTimeout, RegisterValueError, UnsupportedError
from uspace_drv.testing import CHECKS, Check, Target
from uspace_drv.testing.pytest_plugin import parametrize_targets

AT_ONCE = BUFFERS * BUFFER_SIZE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_targets(metafunc, "rng_target", VirtioRngModel)


@pytest.fixture
def rng(rng_target: Target) -> Iterator[VirtioRng]:
    with rng_target.attach(VirtioRng) as driver:
        yield driver


@pytest.mark.parametrize("polled", [False, True])
@pytest.mark.parametrize(
    "size", [0, 1, 16, BUFFER_SIZE - 1, BUFFER_SIZE, BUFFER_SIZE + 1, AT_ONCE, 3 * AT_ONCE + 5]
)
def test_as_many_as_asked_for(rng: VirtioRng, size: int, polled: bool) -> None:
    assert len(rng.read(size, polled=polled)) == size


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 3 * BUFFER_SIZE), st.booleans()), max_size=6))
def test_any_sizes_one_after_the_other(rng: VirtioRng, reads: list[tuple[int, bool]]) -> None:
    for size, polled in reads:
        assert len(rng.read(size, polled=polled)) == size


def test_they_are_random(rng: VirtioRng) -> None:
    """Of 64 KiB each value comes 256 times on average, and a run of 16 zeros never."""
    data = rng.read(1 << 16)
    counts = [data.count(value) for value in range(256)]
    assert 128 < min(counts) <= max(counts) < 384
    assert len({data[start : start + 16] for start in range(0, len(data), 16)}) == 1 << 12


def test_no_bytes_come_twice(rng: VirtioRng) -> None:
    assert len({rng.read(16, polled=bool(number & 1)) for number in range(50)}) == 50


def test_a_count_below_nothing(rng: VirtioRng) -> None:
    with pytest.raises(RegisterValueError, match="-1 bytes cannot be read"):
        rng.read(-1)


def test_suspended_and_back(rng_target: Target) -> None:
    attachment = rng_target.attach(VirtioRng)
    with attachment as rng:
        before = rng.read(32)
        attachment.suspend()
        attachment.resume()
        assert rng.read(32) != before


def test_reset_under_the_driver(rng_target: Target) -> None:
    attachment = rng_target.attach(VirtioRng)
    with attachment as rng:
        if rng.device.can_reset:
            attachment.reset()
        else:  # QEMU's on a conventional bus
            with pytest.raises(UnsupportedError, match="no reset through"):
                attachment.reset()
        assert len(rng.read(AT_ONCE)) == AT_ONCE


def test_a_read_without_time(rng: VirtioRng) -> None:
    """What was asked for in vain is there for the next one."""
    with suppress(DeviceTimeout):  # the device may be quick enough
        rng.read(AT_ONCE, timeout=0.0, polled=True)
    assert len(rng.read(AT_ONCE)) == AT_ONCE


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check, rng_target: Target) -> None:
    check(VirtioRng, rng_target)
