"""A card pulled out of its slot without warning, done from inside a guest.

Follows the PCIe 6.0 specification, section 7.5.3.10 (Slot Control), and what QEMU does with it
(QEMU docs/pcie.txt): a slot that is switched off gives up its card at once.
"""

from __future__ import annotations

from pathlib import Path

from uspace_drv.errors import HostError

_QEMU_ROOT_PORT = ("0x1b36", "0x000c")  # QEMU docs/specs/pci-ids.rst
_CAPABILITIES, _EXPRESS = 0x34, 0x10  # where the list begins; the capability's id
_SLOT_CONTROL = 0x18
_INTERRUPT, _OFF = 1 << 5, 0x700  # hot-plug interrupts; power and its indicator off


def pull_card(port: Path) -> None:
    """Take the card out of the slot of a pcie-root-port, `port` being its folder in sysfs.

    The card is gone when this returns: reads give all ones. The kernel learns of it right after
    and removes the function. Raises `HostError` if `port` is not one of QEMU's root ports: no
    real machine's slot is ever touched.
    """
    if tuple((port / name).read_text().strip() for name in ("vendor", "device")) != _QEMU_ROOT_PORT:
        raise HostError(
            f"{port}: not QEMU's pcie-root-port, and cards are pulled out of those only; give the"
            " guest --device pcie-root-port,id=root,addr=6 and the card bus=root"
        )
    with (port / "config").open("r+b", buffering=0) as config:
        content = config.read(256)
        offset = _express(content) + _SLOT_CONTROL
        before = int.from_bytes(content[offset : offset + 2], "little")
        # Silently off, so that the kernel does not take it for an order of its own; with the power
        # back on and interrupts again, it finds the slot empty.
        for value in ((before | _OFF) & ~_INTERRUPT, before):
            config.seek(offset)
            config.write(value.to_bytes(2, "little"))


def _express(content: bytes) -> int:
    """Return the offset of the PCI Express capability; a root port has one."""
    offset = content[_CAPABILITIES]
    while content[offset] != _EXPRESS:
        offset = content[offset + 1]
    return offset
