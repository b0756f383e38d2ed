"""A host on which nothing changes: it notes each change instead, for `--dry-run`."""

from __future__ import annotations

from uspace_drv.pci.host import Host
from uspace_drv.pci.nodes import UIO, user_name


class Rehearsal(Host):
    """Reads as the machine does; `lines` says what would have been changed, in order.

    What was noted is not seen by later reads, so a caller that has to wait for an effect asks
    `is_rehearsal` first.
    """

    is_rehearsal = True

    def __init__(self, host: Host | None = None) -> None:
        super().__init__((host or Host()).root)
        self.lines: list[str] = []

    def write(self, path: str, text: str) -> None:
        """Note what a sysfs attribute would be given."""
        self.lines.append(f"write {text.strip()!r} to {path}")

    def write_bytes(self, path: str, offset: int, data: bytes) -> None:
        """Note bytes and offset."""
        self.lines.append(f"write {data.hex()} at {offset:#x} of {path}")

    def write_file(self, path: str, text: str) -> None:
        """Note the path and every line that would be in it."""
        self.lines.append(f"create {path}")
        self.lines.extend(f"  {line}" for line in text.splitlines())

    def remove_file(self, path: str) -> None:
        """Note it where there is one to remove."""
        if self.exists(path):
            self.lines.append(f"remove {path}")

    def set_owner(self, path: str, user: int) -> None:
        """Note who would get it."""
        self.lines.append(f"give {path} to user {user_name(user)}")

    def set_owner_of_new_nodes(self, driver: str, user: int) -> None:
        """Note who would get the nodes that the driver makes; their numbers are not known yet."""
        nodes = "node (/dev/uioN), once it appears"
        if driver != UIO:
            nodes = "nodes (/dev/vfio/N, /dev/vfio/devices/vfioN), once they appear"
        self.lines.append(f"give its own {nodes}, to user {user_name(user)}")
