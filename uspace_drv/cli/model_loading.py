"""What `uspace serve` is told to serve: a plugin's model, or a class in a Python file or module.

A file is run as Python runs a script: what lies beside it can be imported. Everything that goes
wrong in the author's code is a `NoDevice` that says where.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from uspace_drv.errors import NoDevice, UspaceError
from uspace_drv.models import DeviceModel
from uspace_drv.pci.address import DeviceAddress
from uspace_drv.plugins import plugin_named

SUFFIX = ".py"
NOT_THE_AUTHORS = (
    "<",  # no file: Python's own import machinery
    f"{Path(__file__).parents[1]}/",
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
)
"""Where the frames come from that say little about a mistake in a model."""


def make_model(text: str) -> DeviceModel:
    """Make what the command line names; `NoDevice` and `NoDriver` say what there is."""
    name, _, options = text.removeprefix("virtual:").partition("?")
    model = _class_named(name)
    word = re.sub(r"\W+", "_", name, flags=re.ASCII)  # a path is no address
    parameters = DeviceAddress.parse(f"virtual:{word}?{options}").parameters
    with _explained(name, UspaceError):
        return model.from_options(name, parameters)


def _class_named(name: str) -> type[DeviceModel]:
    place, colon, wanted = name.rpartition(":")
    if not wanted or (colon and not place):
        raise NoDevice(f"{name!r} names no model; expected a plugin, FILE.py:CLASS or MODULE:CLASS")
    if colon:
        return _class_in(place, wanted)
    if name.endswith(SUFFIX):
        there = " or ".join(f"{name}:{each}" for each in _models(_module(name))) or "none"
        raise NoDevice(f"{name}: a file may hold several models; name one: {there}")
    model = plugin_named(name).model
    if model is None:
        raise NoDevice(f"{name}: the plugin brings no model")
    return model


def _class_in(place: str, wanted: str) -> type[DeviceModel]:
    module = _module(place)
    found = getattr(module, wanted, None)
    if isinstance(found, type) and issubclass(found, DeviceModel):
        return found
    models = _models(module)
    close = get_close_matches(wanted, models, 1)
    seen = f"of type {type(found).__name__}" if hasattr(module, wanted) else "not there"
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(models) or 'none'}"
    raise NoDevice(
        f"{place}:{wanted}: {wanted} is {seen}, expected a subclass of DeviceModel; {hint}"
    )


def _models(module: ModuleType) -> list[str]:
    """Names of the model classes in a module, those that it only imports last."""
    models = {
        name: each
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, DeviceModel) and each is not DeviceModel
    }
    return sorted(models, key=lambda name: models[name].__module__ != module.__name__)


def _module(place: str) -> ModuleType:
    """Import a file or a module, with its folder or the current one in front, as Python does."""
    file = place.endswith(SUFFIX)
    sys.path.insert(0, str(Path(place).resolve().parent) if file else "")
    with _explained(f"cannot load {place}", NoDevice):
        return _load(Path(place)) if file else import_module(place)


def _load(file: Path) -> ModuleType:
    # The name of a module that is there already, such as platform, stays that module's.
    name = file.stem if file.stem not in sys.modules else f"served_{file.stem}"
    spec = spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses look for it there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


@contextmanager
def _explained(what: str, clear: type[UspaceError]) -> Iterator[None]:
    """Turn what the author's code raises into a `NoDevice` with file, line and error.

    Errors of the kind `clear` say it all already.
    """
    try:
        yield
    except clear:
        raise
    except (Exception, SystemExit) as error:
        raise NoDevice(f"{what}: {_place(error)}{_reason(error)}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return f"{error.strerror}: {error.filename}"
    text = error.msg if isinstance(error, SyntaxError) else error
    if isinstance(error, ModuleNotFoundError):
        text = f"{error}, neither in {sys.path[0] or 'the current folder'} nor installed"
    return f"{type(error).__name__}: {text}"


def _place(error: BaseException) -> str:
    """File and line of the author's code that raised it; nothing where it is not his."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    frames = extract_tb(error.__traceback__)
    authors = [each for each in frames if not each.filename.startswith(NOT_THE_AUTHORS)]
    return f"{authors[-1].filename}:{authors[-1].lineno}: " if authors else ""
