"""`uspace bind`, `restore` and `vfs`: take PCI functions from the kernel, and give them back."""

from __future__ import annotations

import shlex

import click

from uspace_drv.cli.group import examples
from uspace_drv.errors import UnsupportedError, UspaceError
from uspace_drv.opening import function_behind
from uspace_drv.pci.address import DeviceAddress, PciAddress, Scheme
from uspace_drv.pci.binding import (
    USER_DRIVERS,
    Binding,
    Terms,
    bind,
    bind_group,
    restore,
    restore_all,
)
from uspace_drv.pci.rehearsal import Rehearsal
from uspace_drv.pci.sriov import set_virtual_functions
from uspace_drv.pci.sysfs import PciBus

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print each write that it would make, and make none."
)


@click.command(
    "bind",
    epilog=examples(
        "sudo uspace bind 0000:00:04.0",
        "sudo uspace bind 00:04.0 --user $USER --persist",
        "sudo uspace bind 00:04.0 --driver uio_pci_generic",
        "uspace bind 00:04.0 --group --dry-run",
    ),
)
@click.argument("address", metavar="ADDR")
@click.option(
    "--driver",
    type=click.Choice(USER_DRIVERS),
    help="What to bind it to; without it vfio-pci where there is an IOMMU, else uio_pci_generic.",
)
@click.option("--user", metavar="NAME", help="Give its nodes to that user, who needs no root then.")
@click.option("--group", "whole", is_flag=True, help="Bind all functions of its IOMMU group.")
@click.option("--persist", is_flag=True, help="Leave a udev rule: do it again at every start.")
@dry_run_option
@click.option(
    "--unsafe-even-if-the-machine-lives-on-it",
    "force",
    is_flag=True,
    help="Bind it though a mounted file system, swap or a network in use is lost with it.",
)
def bind_function(  # noqa: PLR0913 - one argument for each option
    address: str,
    *,
    driver: str | None,
    user: str | None,
    whole: bool,
    persist: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Hand the PCI function at ADDR to vfio-pci or uio_pci_generic.

    Takes root. The kernel driver lets go of the device, so what stands on it is gone: a device
    that the machine lives on is refused. `uspace restore ADDR` undoes all of it, also after a kill
    or a restart of the machine: what was there before is written down before anything changes.
    """
    terms = Terms(user=user, persist=persist, force_device_in_use=force)
    bus, where = _bus(dry_run), _function_at(address)
    if whole:
        bindings = bind_group(where, driver, terms, bus=bus)
    else:
        bindings = [bind(where, driver, terms, bus=bus)]
    if not _rehearsed(bus):
        for binding in bindings:
            _show(binding)


@click.command(
    "restore", epilog=examples("sudo uspace restore 0000:00:04.0", "sudo uspace restore --all")
)
@click.argument("address", metavar="[ADDR]", required=False)
@click.option("--all", "everything", is_flag=True, help="Restore all that was bound or changed.")
@dry_run_option
def restore_function(address: str | None, everything: bool, dry_run: bool) -> None:
    """Give the PCI function at ADDR back as it was before `uspace bind` or `uspace vfs`.

    Takes root. Driver, override, bus master, owners of nodes and virtual functions come back, and
    the udev rule goes. Without a record of what it had, the kernel chooses the driver.
    """
    if everything is (address is not None):
        raise click.UsageError("give either ADDR or --all")
    bus = _bus(dry_run)
    results = [restore(_function_at(address), bus=bus)] if address else restore_all(bus=bus)
    rehearsed = _rehearsed(bus)
    for binding in results:
        if isinstance(binding, Binding) and not rehearsed:
            _show(binding)
    if not results:
        click.echo("nothing is bound or changed")
    _raise_first([each for each in results if isinstance(each, UspaceError)])


class _Count(click.IntRange):
    name = "whole number"  # click's word for it in messages


@click.command(
    "vfs", epilog=examples("sudo uspace vfs 0000:01:00.0 4", "sudo uspace vfs 0000:01:00.0 0")
)
@click.argument("address", metavar="ADDR")
@click.argument("count", type=_Count(min=0), metavar="COUNT")
@dry_run_option
def virtual_functions(address: str, count: int, dry_run: bool) -> None:
    """Have COUNT virtual functions (SR-IOV) at the physical function ADDR, and print where.

    Takes root, and a driver that can: the kernel's own, or vfio-pci with enable_sriov=1. No kernel
    driver takes the new ones, so that `uspace bind` can. 0 removes them; `uspace restore ADDR` puts
    back how many there were.
    """
    bus = _bus(dry_run)
    made = set_virtual_functions(_function_at(address), count, bus=bus)
    if not _rehearsed(bus):
        for where in made:
            click.echo(str(where))


def _function_at(address: str) -> PciAddress:
    where = DeviceAddress.parse(address)
    if where.scheme in {Scheme.VIRTUAL, Scheme.VFIO_USER, Scheme.BROKER}:
        raise UnsupportedError(
            f"{where}: there is nothing to bind or restore, no PCI function is behind it;"
            f" use it as it is: uspace info {shlex.quote(str(where))}"
        )
    return function_behind(where)


def _bus(dry_run: bool) -> PciBus:
    return PciBus(host=Rehearsal()) if dry_run else PciBus()


def _rehearsed(bus: PciBus) -> bool:
    """Print what would have been done, if it was not done."""
    if not isinstance(bus.host, Rehearsal):
        return False
    for line in bus.host.lines or ["nothing would be changed"]:
        click.echo(line)
    return True


def _show(binding: Binding) -> None:
    before = binding.previous
    if not binding.was_ours:
        driver = f"bound to {before}" if before else "without a driver"
        click.echo(f"{binding.address}: nothing to restore, it is {driver} as it was")
    elif before == binding.driver:
        click.echo(f"{binding}, as it was")
    else:
        click.echo(f"{binding}, before it {f'was {before}' if before else 'had no driver'}")
    for note in binding.notes:
        click.echo(f"  {note}")


def _raise_first(errors: list[UspaceError]) -> None:
    """One error leaves the command; the others are its notes."""
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]
