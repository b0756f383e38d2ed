"""Names for people of PCI vendors, devices and classes, from the system's pci.ids if it is there.

File format: the head of pci.ids itself (https://pci-ids.ucw.cz). Base classes are built in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

PCI_IDS = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))

# PCI Code and ID Assignment Specification, section 1.
_BASE_CLASSES = {
    0x00: "Unclassified device",
    0x01: "Mass storage controller",
    0x02: "Network controller",
    0x03: "Display controller",
    0x04: "Multimedia device",
    0x05: "Memory controller",
    0x06: "Bridge",
    0x07: "Simple communication controller",
    0x08: "System peripheral",
    0x09: "Input device",
    0x0A: "Docking station",
    0x0B: "Processor",
    0x0C: "Serial bus controller",
    0x0D: "Wireless controller",
    0x0E: "Intelligent I/O controller",
    0x0F: "Satellite communication controller",
    0x10: "Encryption controller",
    0x11: "Signal processing controller",
    0x12: "Processing accelerator",
    0x13: "Non-essential instrumentation",
    0x40: "Co-processor",
    0xFF: "Device of no defined class",
}


class PciNames:
    """Looks up one name at a time; the file is searched, not parsed, because it is large."""

    def __init__(self, paths: Sequence[Path] = PCI_IDS) -> None:
        self._paths = paths

    def vendor(self, vendor: int) -> str | None:
        """'Intel Corporation', or None where it is not known."""
        return _name(self._text, f"{vendor:04x}")

    def device(self, vendor: int, device: int) -> str | None:
        """Return the vendor's name for the device, or None."""
        return _name(_section(self._text, f"{vendor:04x}"), f"\t{device:04x}")

    def class_name(self, class_code: int) -> str:
        """Return the most exact name known for a class code of three bytes."""
        base, sub, interface = class_code.to_bytes(3, "big")
        base_text = _section(self._text, f"C {base:02x}")
        sub_text = _section(base_text, f"\t{sub:02x}")
        name = _name(base_text, f"\t{sub:02x}") or _name(self._text, f"C {base:02x}")
        detail = _name(sub_text, f"\t\t{interface:02x}")
        if name is None:
            return _BASE_CLASSES.get(base, f"Class {class_code:06x}")
        return f"{name} ({detail})" if detail else name

    @cached_property
    def _text(self) -> bytes:
        for path in self._paths:
            try:
                return path.read_bytes()
            except OSError:
                continue  # names are a courtesy: the next place, or none
        return b""


def _name(text: bytes, key: str) -> str | None:
    found = re.search(rb"^" + key.encode() + rb"  (.*)$", text, re.MULTILINE)
    return found[1].decode("utf-8", "replace").strip() if found else None


def _section(text: bytes, key: str) -> bytes:
    """Cut out the lines that are indented below the one that starts with `key`."""
    start = re.search(rb"^" + key.encode() + rb"  .*$", text, re.MULTILINE)
    if start is None:
        return b""
    depth = len(key) - len(key.lstrip("\t"))
    end = re.compile(rb"^\t{0,%d}[^\t#\n]" % depth, re.MULTILINE).search(text, start.end())
    return text[start.end() : end.start() if end else len(text)]
