"""The open /dev/iommu and what the kernel keeps behind it: objects with a number.

Linux Documentation/userspace-api/iommufd.rst, "User Visible Objects".
"""

from __future__ import annotations

import os
from ctypes import Structure

from uspace_drv.errors import ClosedError
from uspace_drv.iommufd.call import call
from uspace_drv.iommufd.uapi.memory import Destroy
from uspace_drv.iommufd.uapi.requests import Request
from uspace_drv.teardown import Teardown

CLOSED = -1
"""In place of a descriptor or a number."""


class OpenFile:
    """One open /dev/iommu. `name` begins every error; `fd` is owned, and -1 when closed."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.objects: list[Object] = []

    def call(self, request: Request, argument: Structure) -> None:
        """Issue one request; `ClosedError` after `close()`."""
        if self.fd == CLOSED:
            raise ClosedError(f"{self.name}: its /dev/iommu is closed")
        call(self.name, self.fd, request, argument)

    def close(self) -> None:
        """Close all; the kernel destroys what is left, in the right order. Twice is fine."""
        if self.fd == CLOSED:
            return
        fd, self.fd = self.fd, CLOSED
        steps = Teardown()
        steps.push("close /dev/iommu", lambda: os.close(fd))
        for each in self.objects:
            steps.push(f"let go of {each}", each.let_go)
        self.objects = []
        steps.run()


class Object:
    """What a number stands for in the kernel, until `close()` destroys it.

    `made_from` are the objects that it needs: the kernel refuses to destroy one of them before.
    """

    def __init__(self, file: OpenFile, number: int, *made_from: Object) -> None:
        self._file = file
        self._number = number
        self._made_from = made_from
        self._dependents: list[Object] = []
        file.objects.append(self)
        for parent in made_from:
            parent._dependents.append(self)

    @property
    def id(self) -> int:
        """Its number among those of this /dev/iommu; `ClosedError` when closed."""
        if self._number == CLOSED:
            raise ClosedError(f"{self._file.name}: the {self._kind} is closed")
        return self._number

    @property
    def fd(self) -> int:
        """The descriptor of its /dev/iommu, which keeps it."""
        return self._file.fd

    def close(self) -> None:
        """Close what was made from it, the youngest first, then destroy it. Twice is fine.

        What a device is still attached to stays as it is, and is a `HostError`.
        """
        if self._number == CLOSED:
            return
        for dependent in reversed(self._dependents.copy()):
            dependent.close()
        self._close_files()
        self._file.call(Request.DESTROY, Destroy(id=self._number))
        self._file.objects.remove(self)
        for parent in self._made_from:
            parent._dependents.remove(self)
        self._number = CLOSED

    def let_go(self) -> None:
        """Forget it without destroying it: the whole /dev/iommu is being closed."""
        self._number = CLOSED
        self._close_files()

    def _close_files(self) -> None:
        """Close descriptors of its own, which keep it in use."""

    @property
    def _kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self._kind} {self._number}"
