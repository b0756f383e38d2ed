"""The capabilities of a function as values that print themselves for people.

PCI Express Base Specification 6.0, sections 7.5 to 7.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from uspace_drv.pci.capability_layouts import Reading
from uspace_drv.pci.capability_names import EXTENDED, STANDARD
from uspace_drv.pci.capability_words import speed
from uspace_drv.pci.express_registers import PortType


@dataclass(frozen=True)
class Capability:
    """A capability of the standard list: its id and its offset in configuration space.

    `registers` is what it holds, as it was read, in the order of its table. To read or write one of
    them again, bind its block: `express_registers.LinkRegisters(config, capability.offset)`.
    """

    id: int
    offset: int
    registers: Sequence[Reading] = field(default=(), compare=False, repr=False, kw_only=True)

    @property
    def name(self) -> str:
        """Name by the specification."""
        return STANDARD.get(self.id, f"capability {self.id:#04x}")

    @property
    def detail(self) -> str:
        """What it says, for people; empty where this package does not read it."""
        return ""

    def __str__(self) -> str:
        return f"[{self.offset:#04x}] {self.name}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class ExtendedCapability(Capability):
    """A capability of the extended list, which starts at 0x100."""

    version: int

    @property
    def name(self) -> str:
        """Name by the specification."""
        return EXTENDED.get(self.id, f"extended capability {self.id:#06x}")


@dataclass(frozen=True)
class BrokenList(Capability):
    """Where a list cannot be followed any further, and why."""

    reason: str

    @property
    def name(self) -> str:
        """What it is."""
        return "broken capability list"

    @property
    def detail(self) -> str:
        """Why."""
        return self.reason


@dataclass(frozen=True)
class PowerManagement(Capability):
    """Power states; `state` is the present one, 0 to 3; `pme` names the states it can wake from."""

    version: int
    state: int
    has_d1: bool
    has_d2: bool
    pme: tuple[str, ...]
    keeps_state: bool

    @property
    def detail(self) -> str:
        """States and what survives them."""
        states = ["D0", *["D1"] * self.has_d1, *["D2"] * self.has_d2, "D3"]
        kept = "keeps its state" if self.keeps_state else "is reset"
        wakes = f", wakes from {' '.join(self.pme)}" if self.pme else ""
        return f"in D{self.state}, has {' '.join(states)}, {kept} from D3hot to D0{wakes}"


@dataclass(frozen=True)
class Msi(Capability):
    """Message-signalled interrupts: `vectors` wanted, `vectors_enabled` granted."""

    enabled: bool
    vectors: int
    vectors_enabled: int
    has_64_bits: bool
    maskable: bool

    @property
    def detail(self) -> str:
        """Vectors and state."""
        state = f"on with {self.vectors_enabled}" if self.enabled else "off"
        width = 64 if self.has_64_bits else 32
        mask = ", maskable" if self.maskable else ""
        return f"{self.vectors} vector(s), {state}, {width}-bit address{mask}"


@dataclass(frozen=True)
class Msix(Capability):
    """Message-signalled interrupts with a table in a BAR; offsets in bytes."""

    enabled: bool
    masked: bool
    vectors: int
    table_bar: int
    table_offset: int
    pending_bar: int
    pending_offset: int

    @property
    def detail(self) -> str:
        """Vectors, state and place."""
        state = ("on, all masked" if self.masked else "on") if self.enabled else "off"
        return (
            f"{self.vectors} vector(s), {state}, table in bar {self.table_bar} at "
            f"{self.table_offset:#x}, pending bits in bar {self.pending_bar} at "
            f"{self.pending_offset:#x}"
        )


@dataclass(frozen=True)
class Link:
    """One end of a PCI Express link; speeds by their code, widths in lanes."""

    speed: int
    width: int
    max_speed: int
    max_width: int

    def __str__(self) -> str:
        now = f"x{self.width} at {speed(self.speed)}"
        return f"link {now} of x{self.max_width} at {speed(self.max_speed)}"


@dataclass(frozen=True)
class PciExpress(Capability):
    """PCI Express; sizes in bytes; `has_flr` is function level reset; `port_type` may be new."""

    version: int
    port_type: PortType | int
    has_flr: bool
    max_payload: int
    max_payload_supported: int
    max_read_request: int
    link: Link | None

    @property
    def detail(self) -> str:
        """Type, reset, sizes and link."""
        kind = self.port_type
        name = kind.name.lower().replace("_", " ") if isinstance(kind, PortType) else kind
        return (
            f"version {self.version} {name}, {'has' if self.has_flr else 'no'} function level "
            f"reset, payload {self.max_payload} of {self.max_payload_supported} bytes, read "
            f"request {self.max_read_request} bytes" + (f", {self.link}" if self.link else "")
        )


@dataclass(frozen=True)
class VendorSpecific(Capability):
    """What the vendor wanted: all of its bytes, header included."""

    data: bytes

    @property
    def detail(self) -> str:
        """The bytes in hexadecimal."""
        return self.data.hex(" ", 4)


_VIRTIO = {
    1: "common configuration", 2: "notifications", 3: "interrupt status",
    4: "device configuration", 5: "access through configuration space", 8: "shared memory",
    9: "vendor's data",
}  # fmt: skip


@dataclass(frozen=True)
class VirtioStructure(VendorSpecific):
    """Where one of virtio's structures is: `place` bytes into a BAR, `size` bytes long.

    `multiplier` is the distance of the queues' doorbells, for notifications only.
    """

    kind: int
    bar: int
    place: int
    size: int
    multiplier: int | None

    @property
    def detail(self) -> str:
        """What and where."""
        kind = _VIRTIO.get(self.kind, f"structure {self.kind}")
        extra = "" if self.multiplier is None else f", multiplier {self.multiplier}"
        return f"virtio's {kind}, in bar {self.bar} at {self.place:#x}, {self.size:#x} bytes{extra}"


@dataclass(frozen=True)
class SerialNumber(ExtendedCapability):
    """The device's serial number, 64 bits."""

    number: int

    @property
    def detail(self) -> str:
        """As it is printed on cards: eight bytes, high one first."""
        return self.number.to_bytes(8, "big").hex("-")


@dataclass(frozen=True)
class VirtualFunctions(ExtendedCapability):
    """Single root I/O virtualization: how many functions there are now and can be."""

    now: int
    total: int
    enabled: bool

    @property
    def detail(self) -> str:
        """How many."""
        state = f"on with {self.now}" if self.enabled else "off"
        return f"up to {self.total} virtual functions, {state}"


@dataclass(frozen=True)
class ExtendedVendorSpecific(ExtendedCapability):
    """What a vendor wanted in the extended list; `vendor` is None for the function's own."""

    vendor: int | None
    vendor_id: int
    revision: int
    size: int

    @property
    def detail(self) -> str:
        """Whose, which and how large."""
        owner = "" if self.vendor is None else f"vendor {self.vendor:04x}, "
        return f"{owner}id {self.vendor_id:#06x}, revision {self.revision}, {self.size} bytes"
