"""`uspace serve`: a device model behind a socket, for drivers, QEMU and other vfio-user clients."""

from __future__ import annotations

import signal
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

import click

from uspace_drv.cli.group import examples
from uspace_drv.errors import NoDevice, UspaceError
from uspace_drv.models import DeviceModel
from uspace_drv.pci.address import DeviceAddress
from uspace_drv.plugins import plugin_named
from uspace_drv.vfiouser import Server


@click.command(
    epilog=examples(
        "uspace serve edu /tmp/edu                   the model of the plugin edu",
        "uspace serve edu?dma_bits=32 /tmp/edu       with a parameter",
        "uspace serve my_model.py:MyModel /tmp/mine  a class of yours",
        "uspace run edu vfio-user:/tmp/edu factorial 5",
    )
)
@click.argument("model")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--busy-poll", is_flag=True, help="Answer sooner, and burn a processor for it.")
def serve(model: str, path: Path, busy_poll: bool) -> None:
    """Serve a device model at the UNIX socket PATH, until Ctrl-C or SIGTERM.

    MODEL is a plugin's name, or FILE.py:CLASS, or MODULE:CLASS; parameters follow after a '?'.
    Clients are served one after the other. For QEMU (10.1 or later), with memory that is shared:

    \b
      -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem
      -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"PATH"}}'
    """
    signal.signal(signal.SIGTERM, _unwind)
    served = make_model(model)
    try:
        server = Server(served, path, busy_poll=busy_poll, complain=_complain)
        try:
            click.echo(f"serving {served.name} at {path}; its address is vfio-user:{path}")
            server.serve()
        finally:
            server.close()
    finally:
        served.close()


def make_model(text: str) -> DeviceModel:
    """Make what the command line names; `NoDevice` and `NoDriver` say what there is."""
    name, _, options = text.removeprefix("virtual:").partition("?")
    where = DeviceAddress.parse(f"virtual:{name.replace('/', '_')}?{options}")
    found = _model_class(name) if ":" in name else plugin_named(name).model
    if found is None:
        raise NoDevice(f"{text}: the plugin {name} brings no model")
    return found.from_options(name, where.parameters)


def _model_class(text: str) -> type[DeviceModel]:
    place, _, name = text.rpartition(":")
    try:
        found = getattr(_module(place), name, None)
    except (ImportError, OSError) as error:
        raise NoDevice(f"{text}: cannot load {place}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, DeviceModel)):
        raise NoDevice(f"{text}: {name} is {found!r}, expected a subclass of DeviceModel")
    return found


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return import_module(place)
    spec = spec_from_file_location(Path(place).stem, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _complain(error: UspaceError) -> None:
    click.echo(f"client: {error}", err=True)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
