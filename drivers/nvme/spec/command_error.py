"""What is raised when a controller completes a command with an error."""

from __future__ import annotations

from enum import IntEnum

from uspace_drivers.nvme.spec.status import DNR, code_of, words_of
from uspace_drv import DeviceError


class CommandError(DeviceError):
    """A command ended with a status that is not 0.

    `opcode`, `namespace` and `status` (15 bits, see status.py) are those of the command; `where` is
    the device's address and what of it, for the message.
    """

    def __init__(self, where: str, opcode: int, namespace: int, status: int) -> None:
        self.opcode = opcode
        self.namespace = namespace
        self.status = status
        name = opcode.name.lower().replace("_", " ") if isinstance(opcode, IntEnum) else "command"
        of = f" of namespace {namespace}" if namespace else ""
        super().__init__(f"{where}: {name} ({opcode:#04x}){of} failed: {words_of(status)}")

    @property
    def code(self) -> int:
        """The status without its flags: a `Status` where the specification has a word for it."""
        return code_of(self.status)

    @property
    def may_be_repeated(self) -> bool:
        """Whether the controller does not rule out that the same command works another time."""
        return not self.status & DNR
