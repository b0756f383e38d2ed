"""Admin commands that change a controller for good: format, namespaces, firmware.

NVM Express Base Specification 1.4, sections 5.11, 5.12, 5.19, 5.20 and 5.23. Where a controller has
no such command, `UnsupportedError` says so and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uspace_drivers.nvme.control.admin_commands import ADMIN_TIMEOUT, AdminCommands, command
from uspace_drivers.nvme.control.identity import ControllerIdentity
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import (
    AdminOpcode,
    AttachmentAction,
    CommitAction,
    FirmwareCommit,
    Format,
    NamespaceAction,
    SecureErase,
)
from uspace_drivers.nvme.spec.identify import SIZE, IdentifyNamespace
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import RegisterValueError, UnsupportedError

FORMAT_TIMEOUT = 600.0
"""Seconds: a format may overwrite the whole medium."""

MANAGEMENT_TIMEOUT = 60.0

FIRMWARE_TIMEOUT = 120.0

NEEDS_RESET = {
    Status.FIRMWARE_NEEDS_CONVENTIONAL_RESET,
    Status.FIRMWARE_NEEDS_SUBSYSTEM_RESET,
    Status.FIRMWARE_NEEDS_CONTROLLER_RESET,
}
"""A commit that ends so is done; the firmware runs after that reset."""

CONTROLLER_LIST_LIMIT = 2047


class Management(AdminCommands):
    """The commands that cannot be taken back. `identity` is what the controller said of itself."""

    identity: ControllerIdentity

    def tell_of_change(self) -> None:
        """Say that namespaces have come, gone or changed."""

    def format(
        self,
        namespace: int,
        lba_format: int,
        *,
        erase: SecureErase = SecureErase.NONE,
        timeout: float = FORMAT_TIMEOUT,
    ) -> None:
        """Format a namespace (or `ALL_NAMESPACES`) without metadata: all its data is lost."""
        self._require(self.identity.admin_support.format, "format namespaces")
        setup = Format(lbaf=lba_format, ses=erase)
        try:
            self.admin(command(AdminOpcode.FORMAT, namespace, cdw10=int(setup)), timeout=timeout)
        finally:
            self.tell_of_change()  # one that fails half-way has changed it, too

    def create_namespace(self, blocks: int, lba_format: int = 0) -> int:
        """Create a namespace of that many blocks; its id. It is attached to no controller yet."""
        self._require(self.identity.admin_support.namespace_management, "create namespaces")
        wanted = IdentifyNamespace.array(1)
        wanted["nsze"] = wanted["ncap"] = blocks
        wanted["flbas"] = lba_format
        asked = command(AdminOpcode.NAMESPACE_MANAGEMENT, cdw10=NamespaceAction.CREATE)
        return self.admin(asked, wanted, MANAGEMENT_TIMEOUT)

    def delete_namespace(self, namespace: int) -> None:
        """Delete a namespace: all its data is lost."""
        self._require(self.identity.admin_support.namespace_management, "delete namespaces")
        asked = command(AdminOpcode.NAMESPACE_MANAGEMENT, namespace, cdw10=NamespaceAction.DELETE)
        self.admin(asked, timeout=MANAGEMENT_TIMEOUT)
        self.tell_of_change()

    def attach_namespace(self, namespace: int, controllers: Sequence[int] = ()) -> None:
        """Attach a namespace to controllers, by default to this one."""
        self._change_attachment(namespace, controllers, AttachmentAction.ATTACH)

    def detach_namespace(self, namespace: int, controllers: Sequence[int] = ()) -> None:
        """Detach a namespace from controllers, by default from this one; its data stays."""
        self._change_attachment(namespace, controllers, AttachmentAction.DETACH)

    def download_firmware(self, image: bytes) -> None:
        """Hand over a firmware image, in pieces; `commit_firmware` then stores it."""
        self._require(self.identity.admin_support.firmware, "take firmware")
        if not image or len(image) % 4:
            raise RegisterValueError(
                f"{self.name}: a firmware image of {len(image)} bytes is no number of dwords"
            )
        step = self._firmware_step
        for start in range(0, len(image), step):
            piece = np.frombuffer(image[start : start + step], "u1")
            asked = command(
                AdminOpcode.FIRMWARE_DOWNLOAD, cdw10=piece.nbytes // 4 - 1, cdw11=start // 4
            )
            self.admin(asked, piece, FIRMWARE_TIMEOUT)

    def commit_firmware(self, slot: int, action: CommitAction) -> bool:
        """Store what was downloaded in a slot, or activate one; True where a reset is still needed.

        Slot 0 lets the controller choose.
        """
        self._require(self.identity.admin_support.firmware, "take firmware")
        setup = FirmwareCommit(fs=slot, ca=action)
        asked = command(AdminOpcode.FIRMWARE_COMMIT, cdw10=int(setup))
        try:
            self.admin(asked, timeout=FIRMWARE_TIMEOUT)
        except CommandError as error:
            if error.code not in NEEDS_RESET:
                raise
            return True
        return action in {CommitAction.STORE_AND_ACTIVATE, CommitAction.ACTIVATE}

    def keep_alive(self) -> None:
        """Restart the keep-alive timer, where one was set."""
        self.admin(command(AdminOpcode.KEEP_ALIVE), timeout=ADMIN_TIMEOUT)

    def _change_attachment(
        self, namespace: int, controllers: Sequence[int], action: AttachmentAction
    ) -> None:
        self._require(self.identity.admin_support.namespace_management, "attach namespaces")
        ids = list(controllers) or [self.identity.controller]
        if len(ids) > CONTROLLER_LIST_LIMIT:
            raise RegisterValueError(
                f"{self.name}: {len(ids)} controllers, but a list holds {CONTROLLER_LIST_LIMIT}"
            )
        data = np.zeros(SIZE, "u1")
        data.view("<u2")[: len(ids) + 1] = [len(ids), *ids]
        asked = command(AdminOpcode.NAMESPACE_ATTACHMENT, namespace, cdw10=action)
        self.admin(asked, data, MANAGEMENT_TIMEOUT)
        self.tell_of_change()

    @property
    def _firmware_step(self) -> int:
        """Bytes of one piece: as many as fit into a command, in the controller's granularity."""
        unit = self.identity.firmware_granularity or 4
        self._require(unit <= self.data_limit, f"take firmware in pieces of less than {unit} bytes")
        return self.data_limit // unit * unit

    def _require(self, offered: bool, what: str) -> None:
        if not offered:
            raise UnsupportedError(
                f"{self.name}: this controller cannot {what}; it says {self.identity.admin_support}"
            )
