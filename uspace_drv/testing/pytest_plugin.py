"""Options and fixtures for tests that run on a model, or on a device: `pytest --device ADDR`.

With `--via vfio-user` and no device, the model runs in a process of its own, behind a socket.

A project switches it on in its conftest: `pytest_plugins = ["uspace_drv.testing.pytest_plugin"]`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uspace_drv.models import DeviceModel
from uspace_drv.opening import UIO_VIA, VIAS
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, bind, restore
from uspace_drv.port import IrqKind
from uspace_drv.testing.served import ServedModel
from uspace_drv.testing.target import Target

VFIO_USER = "vfio-user"

_served = pytest.StashKey[dict[type[DeviceModel], ServedModel]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `attach` takes."""
    group = parser.getgroup("uspace_drv", "where driver tests run")
    group.addoption("--device", metavar="ADDR", help="on this device, not on the model")
    group.addoption("--via", choices=(*VIAS, VFIO_USER), help="open it this way")
    group.addoption("--bind", action="store_true", help="bind it for the run, then restore it")
    group.addoption(
        "--unsafe-dma-without-iommu",
        action="store_true",
        help="let it reach all memory by physical addresses (UIO, VFIO without an IOMMU)",
    )


@pytest.fixture(scope="session", autouse=True)
def _bound_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand the device to user space for the run, if the options say so."""
    address = request.config.getoption("--device")
    if address and request.config.getoption("--bind"):
        bind(PciAddress.parse(address), UIO if _via(request.config) == UIO_VIA else VFIO)
        yield
        restore(PciAddress.parse(address))
    else:
        yield


@pytest.fixture(scope="session", autouse=True)
def _served_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start a server for every model that is tested through one."""
    models = request.config.stash.get(_served, {}).values()
    try:
        for model in models:
            model.start()
        yield
    finally:
        for model in models:
            model.close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a run that was meant for a device and would never meet it."""
    address = session.config.getoption("--device")
    if address and session.items and not any(map(_is_for_a_device, session.items)):
        raise pytest.UsageError(
            f"--device {address}: none of these tests takes a target, so none would run on it; "
            "call parametrize_targets() in pytest_generate_tests (see docs/guide.md)"
        )


def _is_for_a_device(item: pytest.Item) -> bool:
    """Whether it takes a target, or says that it needs a device some other way."""
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    takes_target = any(isinstance(each, Target) for each in parameters)
    return takes_target or item.get_closest_marker("via") is not None


def parametrize_targets(metafunc: pytest.Metafunc, argument: str, model: type[DeviceModel]) -> None:
    """Run a test that takes `argument` once for every way to signal that its target has.

    To be called from a test file's `pytest_generate_tests`. The target is the model, or the device
    that the options name.
    """
    if argument not in metafunc.fixturenames:
        return
    config = metafunc.config
    kinds = [IrqKind.INTX] if _via(config) == UIO_VIA else list(model.irqs)
    targets = [
        Target(
            model=model,
            address=_address(config, model),
            via=None if _via(config) == VFIO_USER else _via(config),
            irq_kind=kind,
            unsafe_dma_without_iommu=config.getoption("--unsafe-dma-without-iommu"),
        )
        for kind in kinds
    ]
    metafunc.parametrize(argument, targets, ids=[kind.value for kind in kinds])


def _address(config: pytest.Config, model: type[DeviceModel]) -> str | None:
    address: str | None = config.getoption("--device")
    if address is None and _via(config) == VFIO_USER:
        served = config.stash.setdefault(_served, {})
        if model not in served:
            served[model] = ServedModel(model)
        address = served[model].address
    return address


def _via(config: pytest.Config) -> str | None:
    via: str | None = config.getoption("--via")
    return via
