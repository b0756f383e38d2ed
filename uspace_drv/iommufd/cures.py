"""What helps when /dev/iommu refuses: by request and errno, as drivers/iommu/iommufd gives them."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Mapping

from uspace_drv.iommufd.uapi.requests import Request

_EVERYWHERE: Mapping[int, str] = {
    errno.ENOENT: "there is no object or mapping by that number; it was closed, or never made",
    errno.EBUSY: "something still uses it: close what was made from it, and detach its devices",
    errno.EOPNOTSUPP: "this kernel, or this machine's IOMMU, cannot do what was asked for",
    errno.E2BIG: "a newer kernel knows what was asked for",
    errno.EPERM: "it takes a capability that this process does not have; run it as root",
}

_MAPPING: Mapping[int, str] = {
    errno.EEXIST: "part of that range is mapped already; unmap it first, or take another IOVA",
    errno.EINVAL: (
        "the IOVA range is empty, unaligned or outside of what the devices can reach; "
        "see ranges() and alignment"
    ),
    errno.ENOSPC: "no free IOVA range is large enough; unmap something, or allow more",
    errno.EADDRINUSE: "the range is reserved; see ranges()",
    errno.EFAULT: "there is no (writable) memory at all of that address",
    errno.ENOENT: "nothing is mapped there, or the range cuts a mapping; give its whole length",
    errno.EPERM: "the memory or file is read-only; map it TO_DEVICE only",
    errno.EBADF: "the descriptor is closed; give that of a memfd or a dma-buf",
    errno.EOVERFLOW: "the range goes past the end of the address space",
}

_SPECIAL: Mapping[tuple[Request, int], str] = {
    (Request.OPTION, errno.EPERM): "it takes CAP_SYS_RESOURCE; run it as root",
    (Request.OPTION, errno.EBUSY): "the accounting can be chosen only before anything is made",
    (Request.OPTION, errno.EINVAL): "page sizes can be chosen only before anything is mapped",
    (Request.IOAS_NOIOMMU_GET_PA, errno.EPERM): "it takes CAP_SYS_RAWIO; run it as root",
    (Request.IOAS_CHANGE_PROCESS, errno.EINVAL): (
        "only mappings of files can change hands; use map_file() for all memory"
    ),
    (Request.IOAS_ALLOW_IOVAS, errno.EINVAL): "each range must be ascending, and none may overlap",
    (Request.VFIO_IOAS, errno.ENODEV): "no address space is set for VFIO's old interface; set one",
    (Request.HWPT_ALLOC, errno.EINVAL): (
        "the parent is no address space, nesting parent or virtual IOMMU for that device"
    ),
    (Request.VIOMMU_ALLOC, errno.EINVAL): "the parent must be made with NEST_PARENT",
    (Request.VDEVICE_ALLOC, errno.EEXIST): "the device, or that virtual number, is taken already",
    (Request.VEVENTQ_ALLOC, errno.EEXIST): "there is one queue of each kind; close the other one",
    (Request.VEVENTQ_ALLOC, errno.EINVAL): "the depth must be 1 to 0x80000",
}

_MAPPINGS = {
    Request.IOAS_MAP,
    Request.IOAS_MAP_FILE,
    Request.IOAS_COPY,
    Request.IOAS_UNMAP,
    Request.IOAS_ALLOW_IOVAS,
}


def cure_of(request: Request, error: OSError) -> str:
    """What to do about it, in words; empty where the errno says it all."""
    number = error.errno or 0
    if number == errno.ENOMEM:
        return _memory_advice()
    special = _SPECIAL.get((request, number))
    mapping = _MAPPING.get(number) if request in _MAPPINGS else None
    return special or mapping or _EVERYWHERE.get(number, "")


def _memory_advice() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:  # root is not held to the limit
        return "the machine has too little free memory to pin"
    return (
        f"this user may lock {limit:#x} bytes in all its processes (RLIMIT_MEMLOCK); raise it "
        f"with: sudo prlimit --pid {os.getpid()} --memlock=SIZE, or memlock in "
        "/etc/security/limits.conf or LimitMEMLOCK= in a systemd unit"
    )
