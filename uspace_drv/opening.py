"""From an address to an open backend: which one it is, and the best way in that there is.

Linux Documentation/driver-api/vfio.rst and uio-howto.rst. A PCI function is opened by what it is
bound to; a model, a server's socket and a device of the board name themselves.
"""

from __future__ import annotations

import uuid

from uspace_drv.backends.resource import ResourceDevice
from uspace_drv.backends.uio import UioDevice
from uspace_drv.backends.uio_node import find_node, uio_nodes
from uspace_drv.backends.uio_platform import UioPlatformDevice
from uspace_drv.backends.vfio import WAYS, Options, VfioDevice, open_function
from uspace_drv.backends.vfio.mediated import open_mediated
from uspace_drv.backends.vfio_user import VfioUserDevice
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.broker import open_brokered
from uspace_drv.errors import NoDevice, NoDriver, UnsupportedError
from uspace_drv.models import DeviceModel
from uspace_drv.pci.address import DeviceAddress, PciAddress, Scheme
from uspace_drv.pci.binding import UIO
from uspace_drv.pci.config import read_ids
from uspace_drv.pci.ids import Identity
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.plugins import plugin_named
from uspace_drv.port import Backend, HasIdentity

VFIO_VIA = "vfio"
UIO_VIA = "uio"
SYSFS_VIA = "sysfs"

VIAS = (VFIO_VIA, *WAYS, UIO_VIA, SYSFS_VIA)
"""The names that `via` knows: how a PCI function can be opened. 'vfio' is the best VFIO way."""


def open_backend(
    address: str, *, via: str | None = None, unsafe_dma_without_iommu: bool = False
) -> Backend:
    """Lock and open a device without a driver, as it stands; the caller closes it.

    For tools that look: nothing is reset or switched on. The arguments are those of `attach`.
    """
    where = DeviceAddress.parse(address)
    if where.scheme is Scheme.PCI:
        return _open_function(where, where.pci, via, unsafe_dma_without_iommu)
    if where.scheme is Scheme.UIO:
        return _open_uio(where, via, unsafe_dma_without_iommu)
    if where.scheme is Scheme.MEDIATED:
        return open_mediated(uuid.UUID(where.rest), via=via)
    refuse_via(str(where), via)
    if where.scheme is Scheme.VIRTUAL:
        return VirtualDevice(_model(where))
    if where.scheme is Scheme.BROKER:
        return open_brokered(where.rest)
    return VfioUserDevice.from_options(where.rest, where.parameters)


def function_behind(where: DeviceAddress) -> PciAddress:
    """Return the PCI function that an address means, be it the one behind a UIO node.

    Raises `UnsupportedError` for what is no device of this machine, `NoDevice` for no function.
    """
    if where.scheme is Scheme.PCI:
        return where.pci
    if where.scheme is not Scheme.UIO:
        raise UnsupportedError(f"{where}: there is no PCI function of this machine behind it")
    host = PciBus().host
    function = find_node(where.rest, host).function
    if function is None:
        nodes = [f"{each.node} ({each.function})" for each in uio_nodes(host) if each.function]
        raise NoDevice(
            f"{where}: no PCI function is behind it; UIO nodes of functions: "
            f"{', '.join(nodes) or 'none'}"
        )
    return function


def identity_of(backend: Backend) -> Identity:
    """Return what the `id_table` of a driver is held against; `NoDriver` if it says nothing."""
    if isinstance(backend, HasIdentity):
        return backend.identity
    if backend.config is None:
        raise NoDriver(f"{backend.address}: has no PCI ids to match; name the driver")
    return read_ids(backend.config)


def refuse_via(address: str, via: str | None) -> None:
    """Raise `UnsupportedError` if a way in was named for what has one only."""
    if via is not None:
        raise UnsupportedError(f"{address}: is not opened via {via}; leave that out")


def _open_function(
    where: DeviceAddress, function: PciAddress, via: str | None, unsafe: bool
) -> Backend:
    bus = PciBus()
    options = Options(_vf_token(where), unsafe)
    chosen = via or (UIO_VIA if bus.driver_of(function) == UIO else VFIO_VIA)
    if chosen == UIO_VIA:
        return UioDevice(function, bus, unsafe_dma_without_iommu=unsafe)
    if chosen == SYSFS_VIA:
        return ResourceDevice(function, bus)
    if chosen == VFIO_VIA or chosen in WAYS:
        return VfioDevice(
            function, bus, lambda found, bus: open_function(chosen, found, bus, options)
        )
    raise UnsupportedError(
        f"{where}: no backend is called {chosen!r}; there are {', '.join(VIAS[:-1])} and {VIAS[-1]}"
    )


def _open_uio(where: DeviceAddress, via: str | None, unsafe: bool) -> Backend:
    """A function that uio_pci_generic has, or any other device with a node."""
    host = PciBus().host
    node = find_node(where.rest, host)
    if node.function is not None:
        return _open_function(where, node.function, via, unsafe)
    if via not in {None, UIO_VIA}:
        refuse_via(str(where), via)
    return UioPlatformDevice(node, host, address=str(where))


def _vf_token(where: DeviceAddress) -> str | None:
    """The one option of a PCI function, as the kernel wants it."""
    parameters = where.parameters
    token = parameters.pop("vf_token", None)
    if parameters:
        raise NoDevice(
            f"{where}: option {next(iter(parameters))!r} is unknown; a PCI function has vf_token"
        )
    try:
        return None if token is None else str(uuid.UUID(token))
    except ValueError as error:
        raise NoDevice(
            f"{where}: vf_token={token} is not a UUID like 2ab74924-c335-45f4-9b16-8569e5b08258"
        ) from error


def _model(where: DeviceAddress) -> DeviceModel:
    plugin = plugin_named(where.rest)
    if plugin.model is None:
        raise NoDevice(f"{where}: the plugin {where.rest} brings no model")
    return plugin.model.from_options(str(where), where.parameters)
