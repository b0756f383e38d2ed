"""What lspci -vvv prints, cut into functions, capabilities and labelled sections."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

LSPCI = shutil.which("lspci", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin:/sbin:/usr/sbin")

_CAPABILITY = re.compile(r"\tCapabilities: \[([0-9a-f]+)(?: v(\d+))?\] (.*)")
_LABEL = re.compile(r"\t+((?:Phys|Virt)?[A-Z][\w /-]*?)(?: behind bridge)?:(?!\d)[ \t]?(.*)")


@dataclass
class Section:
    """A label and all that follows it, continued lines too; the first of a capability has none."""

    label: str
    text: str


@dataclass
class Printed:
    """One capability; `version` of an extended one."""

    offset: int
    version: int | None
    title: str
    sections: list[Section] = field(default_factory=list)


@dataclass
class Function:
    """A function: the lines of its header, then its capabilities."""

    header: list[Section] = field(default_factory=list)
    capabilities: list[Printed] = field(default_factory=list)


def run_lspci(dump: Path) -> dict[str, Function]:
    """Let lspci read the dump, without names; by the function's address with its domain."""
    assert LSPCI is not None
    words = [LSPCI, "-D", "-vvv", "-n", "-F", str(dump)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return parse(done.stdout)


def parse(text: str) -> dict[str, Function]:
    """Cut lspci's output into functions."""
    found: dict[str, Function] = {}
    for block in text.strip().split("\n\n"):
        first, *lines = block.splitlines()
        found[first.partition(" ")[0]] = _function(lines)
    return found


def _function(lines: list[str]) -> Function:
    function = Function()
    for line in lines:
        depth = len(line) - len(line.lstrip("\t"))
        if found := _CAPABILITY.fullmatch(line):
            version = int(found[2]) if found[2] else None
            function.capabilities.append(Printed(int(found[1], 16), version, found[3]))
            continue
        sections = function.capabilities[-1].sections if function.capabilities else function.header
        if depth <= 1 and function.capabilities:
            continue  # "Kernel driver in use" and the like: of this machine, not of the dump
        limit = 2 if function.capabilities else 1
        label = _LABEL.fullmatch(line) if depth <= limit else None
        if label:
            sections.append(Section(label[1], label[2]))
        elif sections and depth > 1:
            sections[-1].text += " " + line.strip()
        else:
            sections.append(Section("", line.strip()))
    return function
