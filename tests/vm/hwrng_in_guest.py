"""The kernel's own virtio_rng drives our model; runs in a guest, by its name.

Linux Documentation/admin-guide/hw_random.rst. What it read is for the host, to be compared there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

RNG = Path("/sys/bus/pci/devices/0000:00:12.0")
CONTROL = Path("/sys/class/misc/hw_random")
SIZE = 4096


def interrupts(name: str) -> int:
    """Return how often those of that name have interrupted a processor, by the kernel's count."""
    lines = Path("/proc/interrupts").read_text().splitlines()
    processors = os.cpu_count() or 1
    found = [line.split()[1 : 1 + processors] for line in lines if line.endswith(name)]
    assert found, lines
    return sum(int(word) for words in found for word in words)


@pytest.fixture(scope="module")
def virtio() -> str:
    """Choose it as the kernel's generator; its name among virtio devices."""
    assert (RNG / "driver").resolve().name == "virtio-pci"
    (device,) = RNG.glob("virtio*")
    assert (device / "driver").resolve().name == "virtio_rng"
    (name,) = (CONTROL / "rng_available").read_text().replace("none", "").split()
    (CONTROL / "rng_current").write_text(name)
    assert (CONTROL / "rng_current").read_text().strip() == name
    assert name.startswith("virtio_rng")
    return device.name


def test_features_are_agreed_on(virtio: str) -> None:
    features = (RNG / virtio / "features").read_text()
    assert [number for number, bit in enumerate(features) if bit == "1"] == [32, 33]


def test_random_bytes_come_by_interrupt(virtio: str) -> None:
    before = interrupts(f"{virtio}-input")
    with Path("/dev/hwrng").open("rb", buffering=0) as file:
        data = b"".join(file.read(64) for _ in range(SIZE // 64))
    assert interrupts(f"{virtio}-input") >= before + SIZE // 64 // 2
    Path(os.environ["RANDOM_BYTES"]).write_bytes(data)


def test_taken_away_and_given_back(virtio: str) -> None:
    (RNG / "driver" / "unbind").write_text(RNG.name)
    assert not (RNG / "driver").exists()
    Path("/sys/bus/pci/drivers/virtio-pci/bind").write_text(RNG.name)
    names = (CONTROL / "rng_available").read_text().split()
    (name,) = (each for each in names if each.startswith("virtio_rng"))
    (CONTROL / "rng_current").write_text(name)
    with Path("/dev/hwrng").open("rb", buffering=0) as file:
        assert len(file.read(64)) == 64
