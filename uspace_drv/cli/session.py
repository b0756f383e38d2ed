"""How a driver is put on a device: the options that `run` and `demo` share.

They may stand at any place after the command's name, so every level of it takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from uspace_drv.attachment import Attachment, D, attach
from uspace_drv.backends.uio_node import find_node
from uspace_drv.opening import VIAS, function_behind
from uspace_drv.pci.address import DeviceAddress, Scheme
from uspace_drv.pci.ids import Identity, UioName
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import IrqKind


@dataclass
class Session:
    """What was given so far."""

    via: str | None = None
    irq: str | None = None
    unsafe_dma_without_iommu: bool = False
    json: bool = False
    yes: bool = False

    def attach(
        self, address: str, driver: type[D], irq_kind: IrqKind | None = None
    ) -> Attachment[D]:
        """Start the driver as the options say; `irq_kind` is taken where they do not say it."""
        return attach(
            address,
            driver,
            via=self.via,
            irq_kind=IrqKind(self.irq) if self.irq else irq_kind,
            unsafe_dma_without_iommu=self.unsafe_dma_without_iommu,
        )


def ids_in_sysfs(address: str) -> Identity | None:
    """Return who a device is without opening it; None for what is not of this machine."""
    where = DeviceAddress.parse(address)
    if where.scheme in {Scheme.VIRTUAL, Scheme.VFIO_USER, Scheme.BROKER}:
        return None
    bus = PciBus()
    if where.scheme is Scheme.UIO:
        node = find_node(where.rest, bus.host)
        if node.function is None:
            return UioName(node.name)
    return bus.function(function_behind(where)).ids


def session_options(*, with_json: bool = False) -> list[click.Option]:
    """Return new options that store themselves in the command's `Session`."""
    kinds = [kind.value for kind in IrqKind]
    options = [
        _option("--via", type=click.Choice(VIAS), help="How to open it."),
        _option("--irq", type=click.Choice(kinds), help="How it signals; else its best way."),
        _option(
            "--unsafe-dma-without-iommu",
            is_flag=True,
            help="Let it reach all memory by physical address, where no IOMMU stops a wrong one.",
        ),
    ]
    if with_json:
        options.append(_option("--json", is_flag=True, help="Print JSON."))
    return options


def yes_option() -> click.Option:
    """Return the option of what destroys data."""
    return _option("--yes", is_flag=True, help="Do it without asking: data is lost.")


def _option(name: str, **attributes: Any) -> click.Option:
    return click.Option([name], expose_value=False, callback=_store, **attributes)


def _store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = ctx.ensure_object(Session)
    if value:
        setattr(session, parameter.name or "", value)
