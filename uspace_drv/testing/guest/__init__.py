"""A real kernel with VFIO, UIO and emulated devices on any machine: QEMU without KVM or root."""

from .kernel import Kernel, debian_kernel
from .machine import Guest, Result
from .process import GuestFailed

__all__ = ["Guest", "GuestFailed", "Kernel", "Result", "debian_kernel"]
