"""Options and fixtures for tests that run on a model, or on a device: `pytest --device ADDR`.

A project switches it on in its conftest: `pytest_plugins = ["uspace_drv.testing.pytest_plugin"]`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uspace_drv.models import DeviceModel
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, bind, restore
from uspace_drv.port import IrqKind
from uspace_drv.testing.target import Target


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `attach` takes."""
    group = parser.getgroup("uspace_drv", "where driver tests run")
    group.addoption("--device", metavar="ADDR", help="on this device, not on the model")
    group.addoption("--via", choices=("vfio", "uio"), help="open it this way")
    group.addoption("--bind", action="store_true", help="bind it for the run, then restore it")
    group.addoption(
        "--unsafe-dma-without-iommu",
        action="store_true",
        help="let it reach all memory by physical addresses (UIO)",
    )


@pytest.fixture(scope="session", autouse=True)
def _bound_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand the device to user space for the run, if the options say so."""
    address = request.config.getoption("--device")
    if address and request.config.getoption("--bind"):
        bind(PciAddress.parse(address), UIO if _via(request.config) == "uio" else VFIO)
        yield
        restore(PciAddress.parse(address))
    else:
        yield


def parametrize_targets(metafunc: pytest.Metafunc, argument: str, model: type[DeviceModel]) -> None:
    """Run a test that takes `argument` once for every way to signal that its target has.

    To be called from a test file's `pytest_generate_tests`. The target is the model, or the device
    that the options name.
    """
    if argument not in metafunc.fixturenames:
        return
    config = metafunc.config
    kinds = [IrqKind.INTX] if _via(config) == "uio" else list(model.irqs)
    targets = [
        Target(
            model=model,
            address=config.getoption("--device"),
            via=_via(config),
            irq_kind=kind,
            unsafe_dma_without_iommu=config.getoption("--unsafe-dma-without-iommu"),
        )
        for kind in kinds
    ]
    metafunc.parametrize(argument, targets, ids=[kind.value for kind in kinds])


def _via(config: pytest.Config) -> str | None:
    via: str | None = config.getoption("--via")
    return via
