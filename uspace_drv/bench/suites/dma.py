"""What DMA memory costs: to copy into, to take and give back, and to map for a device.

Linux include/uapi/linux/vfio.h ("VFIO_IOMMU_MAP_DMA") and include/uapi/linux/iommufd.h
("IOMMU_IOAS_MAP"): the ioctls that mapping stands beside, on the same descriptor.
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.bench.floor import compile_floor, timed_loop
from uspace_drv.bench.lending import open_lent, refuse_model
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.suite import Comparison, GuestMachine, Suite, Way
from uspace_drv.bench.ways import repeat, statement
from uspace_drv.device import Device
from uspace_drv.errors import HostError, UspaceError
from uspace_drv.huge_pages import HUGE_PAGE, map_huge_pages
from uspace_drv.models import Bar, DeviceModel, PciIdentity
from uspace_drv.port import Backend, DmaCalls, DmaKernel, HasDmaCalls

Bytes = NDArray[np.uint8]
MapBare = Callable[[Bytes], Way]
"""From memory to the way that maps and unmaps it with bare ioctls."""

SIZES = {4 << 10: "4 KiB", 64 << 10: "64 KiB", 1 << 20: "1 MiB"}
QUICK_SIZES = (4 << 10, 1 << 20)
PAGES, QUICK_PAGES = (1, 64, 4096), (1, 4096)
VIAS = ("vfio-cdev", "vfio-type1")

PLACE = 1 << 30
"""IOVA of the bare ioctls; the other side begins at the bottom."""

NUMPY, ORDINARY, HUGE = "plain numpy", "4 KiB pages", "huge page"
BARE, OURS = "bare ioctls in C", "device.dma"


class MeasuredModel(DeviceModel):
    """Nothing but a function that may reach memory."""

    identity = PciIdentity(0x1234, 0x0002)
    bars = {0: Bar(size=mmap.PAGESIZE)}


def compare(setting: Setting) -> Iterator[Comparison]:
    """Compare memory of a model's buffers with other memory, or, with a device, mappings of it."""
    if setting.device is None:
        yield from _in_process(setting)
    else:
        yield from _through_kernel(setting, setting.device)


def _in_process(setting: Setting) -> Iterator[Comparison]:
    with closing(VirtualDevice(MeasuredModel())) as backend, closing(Device(backend)) as device:
        sizes = QUICK_SIZES if setting.quick else tuple(SIZES)
        for size in sizes:
            yield from _copies(setting, device, size)
        yield from _huge_copy(setting, device)
        for size in sizes:
            yield _taking(setting, device, size)


def _copies(setting: Setting, device: Device, size: int) -> Iterator[Comparison]:
    """To and from a buffer, beside the same between two arrays."""
    with device.dma.alloc(np.uint8, size) as buffer:
        data, plain = np.ones(size, np.uint8), np.ones(size, np.uint8)
        buffer.array.fill(1)
        for where in ("into", "out of"):
            yield Comparison(
                name=f"copy {SIZES[size]} {where} a buffer", operation="copy", size=size,
                ways={
                    NUMPY: _copy(setting, plain, data, where),
                    "DmaBuffer": _copy(setting, buffer.array, data, where),
                },
                baseline=NUMPY, axes={"size": size, "direction": where}, chart="copy",
            )  # fmt: skip


def _copy(setting: Setting, array: Bytes, data: Bytes, where: str) -> Way:
    target, source = (array, data) if where == "into" else (data, array)
    names = {"copy": np.copyto, "target": target, "source": source}
    return statement(setting, "copy(target, source)", names)


def _huge_copy(setting: Setting, device: Device) -> Iterator[Comparison]:
    what = "copy 2 MiB into a buffer, by pages"
    huge = _huge_array(setting, what)
    if huge is None:
        return
    with device.dma.alloc(np.uint8, HUGE_PAGE) as buffer:
        data = np.ones(HUGE_PAGE, np.uint8)
        buffer.array.fill(1)
        yield Comparison(
            name=what, operation="copy", size=HUGE_PAGE, baseline=ORDINARY,
            ways={
                ORDINARY: _copy(setting, buffer.array, data, "into"),
                HUGE: _copy(setting, huge, data, "into"),
            },
        )  # fmt: skip


def _taking(setting: Setting, device: Device, size: int) -> Comparison:
    """New memory and its end; nobody touches it, so no page of it comes into being."""
    baseline = "mmap and munmap"

    def ours() -> None:
        device.dma.alloc(np.uint8, size).close()

    def bare() -> None:
        mmap.mmap(-1, size).close()

    return Comparison(
        name=f"take and give back {SIZES[size]}", operation="buffer", baseline=baseline,
        ways={baseline: repeat(setting, bare), "alloc and close": repeat(setting, ours)},
        axes={"size": size}, chart="take and give back",
    )  # fmt: skip


def _through_kernel(setting: Setting, address: str) -> Iterator[Comparison]:
    """Each way in turn; one that this machine does not have is skipped, unless it was asked for."""
    refuse_model(address)
    with tempfile.TemporaryDirectory() as folder:
        library = _library(setting, Path(folder))
        for via in (setting.via,) if setting.via else VIAS:
            with ExitStack() as stack:
                try:
                    backend = stack.enter_context(open_lent(address, via))
                except UspaceError as error:
                    if setting.via:
                        raise
                    setting.skip(f"map and unmap, {via}", str(error))
                    continue
                setting.note_way(backend.via)
                yield from _mappings(setting, backend, library)


def _library(setting: Setting, folder: Path) -> ctypes.CDLL | None:
    try:
        source = Path(__file__).with_name("bare_dma.c")
        return ctypes.CDLL(str(compile_floor(source, folder, shared=True)))
    except HostError as error:
        setting.skip(BARE, str(error))
        return None


def _mappings(
    setting: Setting, backend: Backend, library: ctypes.CDLL | None
) -> Iterator[Comparison]:
    space = backend.dma
    calls = space.dma_calls if isinstance(space, HasDmaCalls) else DmaCalls()
    if calls.kernel is DmaKernel.NONE:
        why = f"{backend.via} maps nothing through the kernel; VFIO with an IOMMU does"
        setting.skip(f"map and unmap, {backend.via}", why)
        return
    bare = None if library is None else _bare_ioctls(setting, library, calls)
    with closing(Device(backend)) as device:
        for pages in QUICK_PAGES if setting.quick else PAGES:
            yield _mapping(setting, device, bare, pages)
        yield from _huge_mapping(setting, device, bare)


def _mapping(setting: Setting, device: Device, bare: MapBare | None, pages: int) -> Comparison:
    """One mapping of so many pages, which exist already: pinning alone is measured."""
    array = _array(mmap.mmap(-1, pages * mmap.PAGESIZE))
    ways = {OURS: _map(setting, device, array)}
    if bare is not None:
        ways = {BARE: bare(array), **ways}
    return Comparison(
        name=f"map and unmap {pages} {'page' if pages == 1 else 'pages'}, {device.via}",
        operation="mapping", ways=ways, baseline=next(iter(ways)),
        axes={"pages": pages, "way": device.via}, chart=f"map and unmap, {device.via}",
    )  # fmt: skip


def _huge_mapping(setting: Setting, device: Device, bare: MapBare | None) -> Iterator[Comparison]:
    """2 MiB in one huge page, beside as much in 512 small ones."""
    what = f"map and unmap 2 MiB, {device.via}"
    huge = _huge_array(setting, what)
    if huge is None:
        return
    small = _array(mmap.mmap(-1, HUGE_PAGE))
    ways = {ORDINARY: _map(setting, device, small), HUGE: _map(setting, device, huge)}
    if bare is not None:
        ways[f"{HUGE}, {BARE}"] = bare(huge)
    yield Comparison(
        name=what, operation="mapping", ways=ways, baseline=ORDINARY, axes={"way": device.via}
    )


def _map(setting: Setting, device: Device, array: Bytes) -> Way:
    """The way a driver does it."""
    return statement(setting, "map(array).close()", {"map": device.dma.map, "array": array})


def _bare_ioctls(setting: Setting, library: ctypes.CDLL, calls: DmaCalls) -> MapBare:
    """The floor, on the same descriptor and address space."""
    type1 = calls.kernel is DmaKernel.TYPE1
    function = library.bare_type1 if type1 else library.bare_ioas
    first = (calls.fd,) if type1 else (calls.fd, calls.ioas)
    numbers = [ctypes.c_int, *[ctypes.c_uint32] * (not type1), *[ctypes.c_uint64] * 3, ctypes.c_int]
    function.argtypes = numbers
    function.restype = ctypes.c_int64

    def way(array: Bytes) -> Way:
        def run(loops: int) -> int:
            return int(function(*first, array.ctypes.data, PLACE, array.nbytes, loops))

        return timed_loop(setting, BARE, run)

    return way


def _huge_array(setting: Setting, what: str) -> Bytes | None:
    """One huge page, or None and a note."""
    try:
        return _array(map_huge_pages(HUGE_PAGE))
    except OSError:
        cure = "run: echo 1 | sudo tee /proc/sys/vm/nr_hugepages (and 0 when you are done)"
        setting.skip(what, f"no huge page of 2 MiB is free; {cure}")
        return None


def _array(memory: mmap.mmap) -> Bytes:
    """All of some memory as bytes, every page of it there."""
    array = np.frombuffer(memory, np.uint8)
    array.fill(1)
    return array


suite = Suite(
    summary="DMA memory: copies, taking and giving back, and mapping it for a device",
    compare=compare,
    guest=GuestMachine(devices=("edu,addr=4",), iommu="intel", hugepages=64, device="0000:00:04.0"),
)
