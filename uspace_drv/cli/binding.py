"""`uspace bind` and `uspace restore`: take a PCI function from the kernel, and give it back."""

from __future__ import annotations

import shlex

import click

from uspace_drv.attachment import function_behind
from uspace_drv.cli.group import examples
from uspace_drv.errors import UnsupportedError
from uspace_drv.pci.address import DeviceAddress, PciAddress, Scheme
from uspace_drv.pci.binding import USER_DRIVERS, Binding, bind, restore


@click.command(
    "bind",
    epilog=examples(
        "sudo uspace bind 0000:00:04.0",
        "sudo uspace bind 00:04.0 --driver uio_pci_generic",
    ),
)
@click.argument("address", metavar="ADDR")
@click.option(
    "--driver",
    type=click.Choice(USER_DRIVERS),
    help="What to bind it to; without it vfio-pci where there is an IOMMU, else uio_pci_generic.",
)
@click.option(
    "--unsafe-even-if-the-machine-lives-on-it",
    "force",
    is_flag=True,
    help="Bind it though a mounted file system, swap or a network in use is lost with it.",
)
def bind_function(address: str, driver: str | None, force: bool) -> None:
    """Hand the PCI function at ADDR to vfio-pci or uio_pci_generic.

    Takes root. The kernel driver lets go of the device, so what stands on it is gone: a device
    that the machine lives on is refused. `uspace restore ADDR` undoes it.
    """
    _show(bind(_function_at(address), driver, force_device_in_use=force))


@click.command("restore", epilog=examples("sudo uspace restore 0000:00:04.0"))
@click.argument("address", metavar="ADDR")
def restore_function(address: str) -> None:
    """Give the PCI function at ADDR back to the driver that it had before `uspace bind`.

    Takes root. Without a record of what it had, the kernel chooses.
    """
    _show(restore(_function_at(address)))


def _function_at(address: str) -> PciAddress:
    where = DeviceAddress.parse(address)
    if where.scheme in {Scheme.VIRTUAL, Scheme.VFIO_USER}:
        raise UnsupportedError(
            f"{where}: there is nothing to bind or restore, no PCI function is behind it;"
            f" use it as it is: uspace info {shlex.quote(str(where))}"
        )
    return function_behind(where)


def _show(binding: Binding) -> None:
    if binding.previous == binding.driver:
        click.echo(f"{binding}, as it was")
    else:
        click.echo(f"{binding}, before it was {binding.previous or 'no driver'}")
    for note in binding.notes:
        click.echo(f"  {note}")
