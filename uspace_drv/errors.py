"""Every exception that the framework raises: where, what was seen against expected, and the cure.

UspaceError
├── HostError(OSError)                this machine is not ready
├── NoDevice, NoDriver                lists what was looked at
├── UnsupportedError                  this backend cannot do that
├── RegisterValueError(ValueError)    a value or an offset does not fit
├── LayoutError(TypeError)            a register table or descriptor is wrong as declared
├── ClosedError, BusyError            you closed it; another task or process has it
└── DeviceError                       the hardware misbehaved
    ├── DeviceTimeout(TimeoutError)   it did not answer in time
    ├── DeviceGone                    all ones, SIGBUS, the host or the other process took it away
    └── PeerError                     the process on the other side broke the protocol
"""

from __future__ import annotations


class UspaceError(Exception):
    """The root of all errors of this package."""


class HostError(UspaceError, OSError):
    """This machine is not ready: a node, a right, a limit or a kernel feature is missing.

    `errno` and `filename` are those of the system call that failed, where one did.
    """

    def __init__(self, message: str, *, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.errno = cause.errno if cause else None
        self.filename = cause.filename if cause else None
        self._message = message

    def __str__(self) -> str:
        return self._message


class NoDevice(UspaceError):
    """No such device; says where it was looked for."""


class NoDriver(UspaceError):
    """No installed driver plugin fits; lists those that were tried."""


class UnsupportedError(UspaceError):
    """This backend cannot do that; names one that can, or what the kernel would need."""


class RegisterValueError(UspaceError, ValueError):
    """A value, field or offset does not fit the register or window."""


class LayoutError(UspaceError, TypeError):
    """A register table or a descriptor contradicts itself; raised when its class is made."""


class ClosedError(UspaceError):
    """The object was closed before or during this call."""


class BusyError(UspaceError):
    """Another task, thread or process has it; the message says which."""


class DeviceError(UspaceError):
    """The hardware misbehaved."""


class DeviceTimeout(DeviceError, TimeoutError):
    """The device did not do what was waited for before the deadline."""


class DeviceGone(DeviceError):
    """The device vanished: all ones, SIGBUS, or the host or the other process took it away."""


class PeerError(DeviceError):
    """The process at the other end of a socket broke the protocol: what came, what was expected."""
