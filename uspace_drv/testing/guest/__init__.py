"""A real kernel with VFIO, UIO and emulated devices on any machine: QEMU without KVM or root."""

from .kernel import Kernel, debian_kernel
from .kernel_build import own_kernel
from .machine import PROCESSORS, Guest, Result
from .monitor import order
from .process import GuestFailed

__all__ = [
    "PROCESSORS",
    "Guest",
    "GuestFailed",
    "Kernel",
    "Result",
    "debian_kernel",
    "order",
    "own_kernel",
]
