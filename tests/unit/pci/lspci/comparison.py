"""Holds what we read of a function against each word that lspci prints of the same bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tests.unit.pci.lspci.errors import CONTAINMENT, ERRORS
from tests.unit.pci.lspci.express import EXPRESS
from tests.unit.pci.lspci.header import HEADER
from tests.unit.pci.lspci.links import LINKS
from tests.unit.pci.lspci.rules import Rule, Sections, Value
from tests.unit.pci.lspci.sharing import SHARING
from tests.unit.pci.lspci.standard import STANDARD, VIRTIO
from tests.unit.pci.lspci.text import Function, Printed, Section
from uspace_drv.native import Window
from uspace_drv.pci import capability_values as values
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.capability_layouts import Reading
from uspace_drv.pci.capability_words import describe
from uspace_drv.pci.header import is_bridge, read_bars, read_header, read_ranges
from uspace_drv.registers import Register

RULES: Sections = {
    **STANDARD,
    (False, 0x10): EXPRESS,
    (True, 0x01): ERRORS,
    (True, 0x1D): CONTAINMENT,
    **SHARING,
    **LINKS,
}
FLAG = re.compile(r"(?<![\w/.<>:-])([<>]?[\w/.-]*\w:?)([+-])(?=[\s,;)]|$)")
RESIDUE = re.compile(r"[\s,;:()]*")
SAME = {
    "unknown": "reserved",
    "<unknown>": "reserved",
    "<error>": "reserved",
    # lspci 3.9 does not know the speed that PCI Express 7.0 brought and virtio's shared memory.
    "128gt/s": "reserved",
    "sharedmemory": "reserved",
}


class Comparison:
    """Collects what differs, with how many flags and values were compared."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.compared = 0
        self.differences: list[str] = []

    def check(self, where: str, theirs: str, ours: str) -> None:
        self.compared += 1
        if _plain(theirs) != _plain(ours):
            self.differ(f"{where}: lspci has {theirs!r}, we have {ours!r}")

    def differ(self, text: str) -> None:
        self.differences.append(f"{self.address} {text}")


def _plain(text: str) -> str:
    joined = re.sub(r"[\s,]+", "", text).lower().replace("ib", "b")
    joined = re.sub(r"^(\d+)\.0+$|^(\d+\.\d*?)0+$", r"\1\2", joined).removesuffix(".")
    return SAME.get(joined, "reserved" if joined.startswith("??") else joined)


def compare(address: str, config: Window, theirs: Function) -> Comparison:
    """Compare header and capabilities; nothing that lspci prints may be left over."""
    comparison = Comparison(address)
    _compare_header(comparison, config, theirs)
    ours = capabilities(config)
    found = [each for each in ours if not isinstance(each, values.BrokenList)]
    if not any(isinstance(each, values.PciExpress) for each in found):
        # Without PCI Express lspci does not look for extended capabilities.
        found = [each for each in found if not isinstance(each, values.ExtendedCapability)]
    printed = [each for each in theirs.capabilities if "<chain " not in each.title]
    comparison.check(
        "list",
        str([(each.offset, each.version) for each in printed]),
        str([(each.offset, _version(each)) for each in found]),
    )
    for one, other in zip(printed, found, strict=False):
        _compare_capability(comparison, one, other)
    return comparison


def _version(capability: values.Capability) -> int | None:
    return capability.version if isinstance(capability, values.ExtendedCapability) else None


def _compare_capability(
    comparison: Comparison, printed: Printed, capability: values.Capability
) -> None:
    is_extended = isinstance(capability, values.ExtendedCapability)
    where = f"[{printed.offset:#x}] {capability.name}"
    _compare_name(comparison, where, printed.title, capability)
    if isinstance(capability, values.SerialNumber):
        comparison.check(where, printed.title, f"Device Serial Number {capability.detail}")
    rules = RULES.get((is_extended, capability.id), {})
    sections = printed.sections
    if isinstance(capability, values.VirtioStructure):
        text = " ".join([printed.title, *(each.text for each in sections)])
        rules, sections = VIRTIO, [Section("", text)]
    elif "" in rules:
        sections = [Section("", printed.title), *sections]
    if rules:
        compare_sections(comparison, where, sections, rules, capability.registers)


TITLES = {
    "CompactPCI Hot Swap": r"CompactPCI hot-swap",
    "CompactPCI Central Resource Control": r"CompactPCI central resource control",
    "MSI": r"MSI: ",
    "MSI-X": r"MSI-X: ",
    "PCI Express": r"Express ",
    "Vital Product Data": r"Vital Product Data|VPD",
    "Slot Identification": r"Slot ID:",
    "Debug Port": r"Debug port:",
    "PCI Hot-Plug": r"Hot-plug capable",
    "Bridge Subsystem Vendor ID": r"Subsystem:",
    "Serial ATA Data/Index Configuration": r"SATA HBA",
    "Advanced Features": r"PCI Advanced Features",
    "Vendor-Specific": r"Vendor Specific Information:",
    "Address Translation Services": r"Address Translation Service ",
    "Designated Vendor-Specific": r"Designated Vendor-Specific",
    "TPH Requester": r"Transaction Processing Hints",
    "Enhanced Allocation": r"Enhanced Allocation",
    "Resizable BAR": r"(Physical )?Resizable BAR",
    "VF Resizable BAR": r"(VF|Virtual) Resizable BAR",
    "Root Complex Link Declaration": r"Root Complex Link",
    "Data Link Feature": r"Data Link Feature",
    "Virtual Channel (beside Multi-Function Virtual Channel)": r"Virtual Channel",
    "Process Address Space ID": r"Process Address Space ID",
}
"""Where lspci's name of a capability does not start with ours."""


def _compare_name(
    comparison: Comparison, where: str, title: str, capability: values.Capability
) -> None:
    known = TITLES.get(capability.name, re.escape(capability.name))
    pattern = rf"{known}|Extended Capability ID {capability.id:#x}$|#{capability.id:02x} "
    comparison.compared += 1
    if not re.match(pattern, title):
        comparison.differ(f"{where}: lspci calls it {title!r}")


def compare_sections(
    comparison: Comparison,
    where: str,
    sections: Sequence[Section],
    rules: Mapping[str, Rule],
    readings: Sequence[Reading],
) -> None:
    """Take from each section what its rule knows; what is left over differs."""
    registers = {each.name: each.value for each in readings}
    for section in sections:
        rule = rules.get(section.label)
        if rule is None:
            comparison.differ(f"{where}: no rule for lspci's {section.label!r}: {section.text!r}")
            continue
        at = f"{where} {section.label}"
        rest = section.text
        for value in rule.values:
            rest = _take_value(comparison, at, rest, value, registers)
        rest = _take_flags(comparison, at, rest, rule.flags, registers)
        if not RESIDUE.fullmatch(rest):
            comparison.differ(f"{at}: lspci says {rest.strip()!r}, which no rule knows")


def _take_value(
    comparison: Comparison,
    where: str,
    text: str,
    value: Value,
    registers: Mapping[str, Register | int],
) -> str:
    found = re.search(value.pattern, text)
    if found is None:
        return text
    if value.path:
        ours = _content(registers, value.path, value)
        comparison.check(f"{where} {value.path}", " ".join(found.groups()), ours)
    return f"{text[: found.start()]} {text[found.end() :]}"


def _take_flags(
    comparison: Comparison,
    where: str,
    text: str,
    flags: Mapping[str, str],
    registers: Mapping[str, Register | int],
) -> str:
    def take(found: re.Match[str]) -> str:
        path = flags.get(found[1])
        if path is None:
            return found[0]
        comparison.check(f"{where} {found[1]}", found[2], _content(registers, path, None))
        return ""

    return FLAG.sub(take, text)


def _content(registers: Mapping[str, Register | int], path: str, value: Value | None) -> str:
    name, _, field = path.partition(".")
    register = registers.get(name)
    if register is None:
        return f"no register {name}"
    show = value.show if value else None
    if not field:
        return show(int(register)) if show else str(int(register))
    assert isinstance(register, Register)
    if show is None:
        return describe(register)[field]
    each = register.FIELDS[field]
    return show((register.raw & each.mask) >> each.low)


UNCOMPARED = {"", "Subsystem", "I/O", "Memory", "Prefetchable memory"}
"""Labels of the header that have no rule: the names, and what has a comparison of its own."""


def _compare_header(comparison: Comparison, config: Window, theirs: Function) -> None:
    readings = read_header(config)
    sections = {section.label: section for section in theirs.header}
    known = [s for label, s in sections.items() if label not in UNCOMPARED and label[:3] != "Reg"]
    if is_bridge(config):
        _compare_ranges(comparison, config, sections)
    compare_sections(comparison, "header", known, HEADER, readings)
    _compare_bars(comparison, config, sections)


_RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")


def _compare_ranges(
    comparison: Comparison, config: Window, sections: Mapping[str, Section]
) -> None:
    ports, memory, prefetchable = read_ranges(config)
    for label, ours in (("I/O", ports), ("Memory", memory), ("Prefetchable memory", prefetchable)):
        found = _RANGE.match(sections[label].text)
        assert found, sections[label]
        theirs = (int(found[1], 16), int(found[2], 16))
        comparison.check(f"header {label}", str(theirs), str((ours.first, ours.last)))


_BAR = re.compile(r"(I/O ports|Memory) at ([0-9a-f]+|<\w+>)(?: \(([\w -]+), ([\w-]+)\))?")


def _compare_bars(comparison: Comparison, config: Window, sections: Mapping[str, Section]) -> None:
    ours = {bar.number: bar for bar in read_bars(config)}
    wide = {number for number, bar in ours.items() if bar.is_wide}
    for label, section in sections.items():
        if not label.startswith("Region "):
            continue
        number = int(label.removeprefix("Region "))
        bar = ours.pop(number, None)
        if bar is None:
            # Some lspci show the upper half of a 64-bit BAR as one of its own, without an address.
            if number - 1 not in wide:
                comparison.differ(f"header {label}: not ours: {section.text!r}")
            continue
        found = _BAR.match(section.text)
        if found is None:
            comparison.differ(f"header {label}: cannot read {section.text!r}")
            continue
        address = "0" if found[2].startswith("<") else found[2]
        comparison.check(f"{label} address", str(int(address, 16)), str(bar.address))
        comparison.check(f"{label} kind", str(found[1] == "I/O ports"), str(bar.is_io))
        comparison.check(f"{label} width", str(found[3] == "64-bit"), str(bar.is_wide))
        ours_prefetch = str(bar.is_prefetchable and not bar.is_io)
        comparison.check(f"{label} prefetch", str(found[4] == "prefetchable"), ours_prefetch)
    rom = ours.pop(6, None)
    text = next((each.text for each in sections.values() if "Expansion ROM" in each.text), "")
    found = re.search(r"Expansion ROM at (\w+|<\w+>)( \[disabled\])?", text)
    comparison.check("rom", str(found is not None), str(rom is not None))
    if found and rom:
        address = "0" if found[1].startswith("<") else found[1]
        comparison.check("rom address", str(int(address, 16)), str(rom.address))
        comparison.check("rom enable", str(found[2] is None), str(rom.is_enabled))
    if ours:
        comparison.differ(f"header: lspci does not print {[str(bar) for bar in ours.values()]}")
