"""What one access to a 32-bit register costs: idiom beside idiom, and backend beside backend.

QEMU docs/specs/edu.rst and docs/specs/pci-testdev.rst: the devices whose registers may be read.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import mmap
import os
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cffi  # type: ignore[import-untyped]
import numpy as np
from periphery import MMIO

from uspace_drv import port
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.backends.vfio_user import VfioUserDevice
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.bench.floor import compile_floor
from uspace_drv.bench.lending import open_lent
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.suite import Comparison, GuestMachine, Suite
from uspace_drv.bench.ways import statement
from uspace_drv.errors import HostError, UnsupportedError
from uspace_drv.models import Area, Bar, DeviceModel, PciIdentity
from uspace_drv.native import Window, get_include
from uspace_drv.opening import identity_of
from uspace_drv.pci.address import DeviceAddress, Scheme
from uspace_drv.pci.ids import Identity, PciId
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import Backend
from uspace_drv.registers import Register, RegisterBlock, bit, rw
from uspace_drv.testing.served import ServedModel

OFFSET = 0x20
MEMORY_BAR = 2
REFERENCE = "memoryview"
PLAIN = "plain memory"

HARMLESS: Mapping[PciId, int] = {
    PciId(0x1234, 0x11E8): 0x00,  # edu: identification
    PciId(0x1B36, 0x0005): 0x08,  # pci-testdev: data, which reading does not change
}
"""Where in BAR 0 of a device is a register that may be read as often as one likes."""


class Status(Register):
    """As the status register of QEMU's edu device."""

    irq_when_done = bit(7)
    computing = bit(0)


class Registers(RegisterBlock, size=0x100):
    """The one register that is measured."""

    status = rw(OFFSET, Status)


class MeasuredModel(DeviceModel):
    """That register, which a client in another process reaches by message; and memory, mapped."""

    identity = PciIdentity(0x1234, 0x0001)
    bars = {
        0: Bar(Registers, size=mmap.PAGESIZE),
        MEMORY_BAR: Bar(size=mmap.PAGESIZE, memory=(Area(0, mmap.PAGESIZE),)),
    }


@dataclass(frozen=True)
class Idiom:
    """A way to read and to write, as two statements."""

    name: str
    read: str
    write: str


IDIOMS = [
    Idiom(REFERENCE, "view[8]", "view[8] = 7"),
    Idiom("Window", "window.read32(0x20)", "window.write32(0x20, 7)"),
    Idiom("typed register", "status.read()", "status.write(value)"),
    Idiom("typed, one field", "status.read().computing", "status.update(computing=1)"),
    Idiom("numpy", "array[8]", "array[8] = 7"),
    Idiom("ctypes", "cell.value", "cell.value = 7"),
    Idiom("cffi, API mode", "get(address)", "put(address, 7)"),
    Idiom("python-periphery", "mmio.read32(0x20)", "mmio.write32(0x20, 7)"),
]
CFFI = IDIOMS[6]


def compare(setting: Setting) -> Iterator[Comparison]:
    """Compare idioms and backends, or, with a device, the ways to a register of it."""
    if setting.device is None:
        yield from _idioms(setting)
        yield from _backends(setting)
    else:
        yield from _device(setting, setting.device)


def _idioms(setting: Setting) -> Iterator[Comparison]:
    """All of them over the same shared memory."""
    with ExitStack() as stack:
        names = _names(setting, stack)
        idioms = [each for each in IDIOMS if each is not CFFI or "get" in names]
        for kind in ("read", "write"):
            codes = {each.name: getattr(each, kind) for each in idioms}
            yield Comparison(
                name=f"32-bit register {kind}, by idiom", operation=kind, baseline=REFERENCE,
                ways={name: statement(setting, code, names) for name, code in codes.items()},
                axes={"access": kind}, chart="register access by idiom",
            )  # fmt: skip


def _names(setting: Setting, stack: ExitStack) -> dict[str, object]:
    """Everything that the statements name."""
    fd = os.memfd_create("bench")
    stack.callback(os.close, fd)
    os.ftruncate(fd, mmap.PAGESIZE)
    memory = mmap.mmap(fd, mmap.PAGESIZE)
    window = stack.enter_context(closing(Window.map("bench", fd, 0, mmap.PAGESIZE)))
    cell = ctypes.c_uint32.from_buffer(memory, OFFSET)
    names = {
        "window": window,
        "status": Registers(window).status,
        "value": Status(7),
        "view": memoryview(memory).cast("I"),
        "array": np.frombuffer(memory, np.uint32),
        "cell": cell,
        "address": ctypes.addressof(cell),
        # Its own accessors; in place of /dev/mem the same shared memory.
        "mmio": stack.enter_context(closing(MMIO(0, mmap.PAGESIZE, path=f"/proc/self/fd/{fd}"))),
    }
    try:
        library = _cffi_library(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    except HostError as error:
        setting.skip(CFFI.name, str(error))
    else:
        names |= {"get": library.get, "put": library.put}
    return names


def _cffi_library(folder: Path) -> Any:
    """Build two functions in cffi's API mode over the header for plugins."""
    name = "uspace_bench_cffi"
    ffi = cffi.FFI()
    ffi.cdef("uint32_t get(uintptr_t address); void put(uintptr_t address, uint32_t value);")
    ffi.set_source(
        name,
        """
        #include "uspace_drv.h"
        static uint32_t get(uintptr_t address) { return uspace_read32((void *)address); }
        static void put(uintptr_t address, uint32_t value)
        {
            uspace_write32((void *)address, value);
        }
        """,
    )
    source = folder / f"{name}.c"
    with redirect_stdout(io.StringIO()):  # it says that it does so
        ffi.emit_c_code(str(source))
    headers = [get_include(), sysconfig.get_path("include")]
    built = compile_floor(source, folder, shared=True, include=headers)
    spec = importlib.util.spec_from_file_location(name, built)
    if spec is None or spec.loader is None:
        raise HostError(f"{built}: Python does not take it for an extension")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lib


def _backends(setting: Setting) -> Iterator[Comparison]:
    """The same call of a window, whatever is under it."""
    with ExitStack() as stack:
        enter = stack.enter_context
        near = enter(closing(VirtualDevice(MeasuredModel())))
        served = enter(closing(ServedModel(MeasuredModel, quiet=True).start()))
        far = enter(closing(VfioUserDevice(str(served.path))))
        windows = {
            PLAIN: enter(_plain_window()),
            "model in this process": enter(closing(near.bar(0))),
            "vfio-user, mapped BAR": enter(closing(far.bar(MEMORY_BAR))),
            "vfio-user, by message": enter(closing(far.bar(0))),
        }
        codes = {"read": "window.read32(0x20)", "write": "window.write32(0x20, 7)"}
        for kind in ("read",) if setting.quick else ("read", "write"):
            yield Comparison(
                name=f"32-bit register {kind}, by backend", operation=kind, baseline=PLAIN,
                ways={
                    name: statement(setting, codes[kind], {"window": window})
                    for name, window in windows.items()
                },
                axes={"access": kind}, chart="register access by backend",
            )  # fmt: skip


@contextmanager
def _plain_window() -> Iterator[Window]:
    fd = os.memfd_create("bench")
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        with closing(Window.map("bench", fd, 0, mmap.PAGESIZE)) as window:
            yield window
    finally:
        os.close(fd)


def _device(setting: Setting, address: str) -> Iterator[Comparison]:
    """Reads of a register of BAR 0 that may be read."""
    where = DeviceAddress.parse(address)
    if where.scheme is Scheme.PCI:  # before it is taken from its driver
        _harmless_register(address, PciBus().function(where.pci).ids)
    with ExitStack() as stack:
        backend = stack.enter_context(open_lent(address, setting.via))
        setting.note_way(backend.via)
        offset = _harmless_register(address, identity_of(backend))
        window = stack.enter_context(closing(backend.bar(0)))
        yield from _by_backend(setting, backend, window, offset)
        yield from _by_way(setting, backend, window, offset)


def _harmless_register(address: str, identity: Identity) -> int:
    """Offset in BAR 0 of what may be read; `UnsupportedError` for a device that is not known."""
    for known, offset in HARMLESS.items():
        if known.matches(identity):
            return offset
    raise UnsupportedError(
        f"{address}: is {identity}; reading a register of a device may have effects, so this suite"
        " reads only those of edu (1234:11e8) and pci-testdev (1b36:0005); without --device it"
        " measures a model"
    )


def _by_backend(
    setting: Setting, backend: Backend, window: port.Window, offset: int
) -> Iterator[Comparison]:
    with _plain_window() as plain:
        code = f"window.read32({offset})"
        ways = {
            PLAIN: statement(setting, code, {"window": plain}),
            f"BAR, {backend.via}": statement(setting, code, {"window": window}),
        }
        yield Comparison(
            name=f"32-bit register read of {backend.address}, by backend", operation="read",
            ways=ways, baseline=PLAIN, axes={"access": "read"},
        )  # fmt: skip


def _by_way(
    setting: Setting, backend: Backend, window: port.Window, offset: int
) -> Iterator[Comparison]:
    """Beside the kernel's own access: one pread of VFIO's descriptor."""
    what = f"32-bit register read of {backend.address}, beside the kernel's"
    if not isinstance(backend, VfioDevice):
        setting.skip(what, f"a BAR is read by the kernel through VFIO only, not {backend.via}")
        return
    names = {
        "pread": os.pread, "number": int.from_bytes, "fd": backend.fd,
        "place": backend.regions.info(0).offset + offset,
        "window": window, "view": window.memory().cast("I"),
    }  # fmt: skip
    codes = {
        "pread in the kernel": "number(pread(fd, 4, place), 'little')",
        "Window": f"window.read32({offset})",
        REFERENCE: f"view[{offset // 4}]",
    }
    yield Comparison(
        name=what, operation="read", baseline="pread in the kernel", axes={"access": "read"},
        ways={name: statement(setting, code, names) for name, code in codes.items()},
    )  # fmt: skip


suite = Suite(
    summary="one 32-bit register access: idioms, backends, and a device's BAR",
    compare=compare,
    guest=GuestMachine(
        devices=("edu,addr=4",), iommu="intel", device="0000:00:04.0", via="vfio-cdev"
    ),
)
