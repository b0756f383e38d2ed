"""The edu driver: the same tests on the model, and on QEMU's device through VFIO and UIO."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uspace_drivers.edu import Edu, EduModel
from uspace_drv import DeviceTimeout, RegisterValueError
from uspace_drv.testing import CHECKS, Check, Target
from uspace_drv.testing.pytest_plugin import parametrize_targets


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_targets(metafunc, "edu_target", EduModel)


@pytest.fixture
def edu(edu_target: Target) -> Iterator[Edu]:
    with edu_target.attach(Edu) as driver:
        yield driver


def test_identifies_itself(edu: Edu) -> None:
    ident = edu.identify()
    assert (ident.major, ident.minor, ident.magic) == (1, 0, 0xED)


@pytest.mark.parametrize("value", [0, 1, 0x12345678, 0xFFFF_FFFF])
def test_liveness_inverts(edu: Edu, value: int) -> None:
    assert edu.is_alive(value)


@pytest.mark.parametrize(
    ("n", "expected"), [(0, 1), (1, 1), (5, 120), (12, 479001600), (13, 0x7328CC00), (40, 0)]
)
def test_factorial_by_interrupt(edu: Edu, n: int, expected: int) -> None:
    assert edu.factorial(n) == expected


def test_many_interrupts_one_after_the_other(edu: Edu) -> None:
    before = edu.done.count
    for _ in range(20):
        edu.factorial(3)
    assert edu.done.count == before + 20


@pytest.mark.parametrize("size", [1, 4, 100, 4095])
def test_dma_both_ways(edu: Edu, size: int) -> None:
    data = bytes(n * 7 + size & 0xFF for n in range(size))
    edu.store(data)
    assert edu.load(size) == data


def test_dma_is_refused_past_the_buffer(edu: Edu) -> None:
    with pytest.raises(RegisterValueError, match="4096 bytes are more"):
        edu.store(bytes(4096))


def test_interrupt_that_does_not_come(edu: Edu) -> None:
    with pytest.raises(DeviceTimeout, match=r"no interrupt within 0\.050 s"):
        edu.done.wait(0.05)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check, edu_target: Target) -> None:
    check(Edu, edu_target)
