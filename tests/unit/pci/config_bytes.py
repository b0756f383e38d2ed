"""Configuration space as bytes, typed from documents, for tests that look or walk."""

from __future__ import annotations

from uspace_drv.native import Window


def config_of(size: int, *rows: tuple[int, str]) -> Window:
    """A window of `size` bytes with hexadecimal rows at their offsets."""
    space = bytearray(size)
    for offset, text in rows:
        data = bytes.fromhex(text)
        space[offset : offset + len(data)] = data
    return Window.over_buffer("test config", space)


def edu() -> Window:
    """QEMU docs/specs/edu.rst: 1234:11e8, class 0x00ff; MSI with one 64-bit vector."""
    return config_of(
        0x100,
        (0x00, "34 12 e8 11 03 01 10 00 10 00 ff 00 00 00 00 00"),
        (0x10, "00 00 a0 fe"),
        (0x2C, "f4 1a 00 11"),
        (0x34, "40 00 00 00 00 00 00 00 0b 01 00 00"),
        (0x40, "05 00 80 00"),
    )


def nvme() -> Window:
    """A PCI Express endpoint as QEMU makes its nvme: PM, PCI Express, MSI-X; then AER, VSEC, DVSEC.

    The registers are composed by the PCI Express specification, sections 7.5.2, 7.5.3 and 7.7.2.
    """
    return config_of(
        0x1000,
        (0x00, "36 1b 10 00 07 05 10 00 02 02 08 01 00 00 00 00"),
        (0x10, "04 00 00 fe"),
        (0x2C, "f4 1a 00 11"),
        (0x34, "40 00 00 00 00 00 00 00 0b 01 00 00"),
        # MSI-X: next 0x80, on, 65 vectors, table in BAR 0 at 0x2000, pending bits at 0x3000
        (0x40, "11 80 40 80 00 20 00 00 00 30 00 00"),
        # PM: version 3, D1, PME from D0 and D3hot; in D3hot, no soft reset
        (0x60, "01 00 03 4a 0b 00 00 00"),
        # PCI Express: version 2 endpoint, FLR, payload 128 of 256, read request 512, x4 of x8
        (0x80, "10 60 02 00 01 80 00 10 10 28 00 00 84 04 00 00 00 00 43 00"),
        (0x100, "01 00 82 14"),
        (0x148, "0b 00 01 20 23 01 43 01"),
        (0x200, "23 00 01 00 98 1e 81 03 08 00 00 00"),
    )
