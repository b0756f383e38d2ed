"""How a user names a device: PCI addresses as Linux prints them, and this package's own schemes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from uspace_drv.errors import NoDevice

_PCI = re.compile(
    r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])", re.IGNORECASE | re.ASCII
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*", re.ASCII)
_FORMS = (
    "0000:00:04.0, 00:04.0, uio:uio0, uio:NAME, virtual:edu, virtual:edu?dma_bits=28, "
    "vfio-user:PATH, broker:PATH, mdev:UUID"
)


@dataclass(frozen=True, order=True)
class PciAddress:
    """Where a PCI function sits; ordered and hashable, `str()` gives the full form."""

    domain: int
    bus: int
    device: int
    function: int

    def __post_init__(self) -> None:
        limits = (0xFFFF_FFFF, 0xFF, 0x1F, 7)
        parts = (self.domain, self.bus, self.device, self.function)
        for name, value, limit in zip(self.__dataclass_fields__, parts, limits, strict=True):
            if not 0 <= value <= limit:
                raise NoDevice(f"no PCI address has {name} {value:#x}; expected 0 to {limit:#x}")

    @classmethod
    def parse(cls, text: str) -> PciAddress:
        """Read '0000:00:04.0' or '00:04.0' (domain 0); anything else raises `NoDevice`."""
        if (found := _PCI.fullmatch(text)) is None:
            raise NoDevice(
                f"{text!r} is not a PCI address; expected DOMAIN:BUS:DEVICE.FUNCTION in "
                "hexadecimal, as in 0000:00:04.0 or 00:04.0 (device to 1f, function to 7)"
            )
        domain, bus, device, function = found.groups(default="0")
        return cls(int(domain, 16), int(bus, 16), int(device, 16), int(function, 16))

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function}"


class Scheme(Enum):
    """What kind of thing a device address names."""

    PCI = "pci"
    UIO = "uio"
    VIRTUAL = "virtual"
    VFIO_USER = "vfio-user"
    BROKER = "broker"
    MEDIATED = "mdev"


@dataclass(frozen=True)
class DeviceAddress:
    """A device as the user names it: scheme, what the scheme names, and options after '?'.

    `rest` is normalised: the full PCI address, the node or the name of a UIO device, the name of a
    model, a socket's path, or the UUID of a mediated device.
    """

    scheme: Scheme
    rest: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> DeviceAddress:
        """Read any of the forms; a mistyped one raises `NoDevice`, which shows them all."""
        body, _, query = text.strip().partition("?")
        scheme, rest = _split_scheme(body)
        if scheme is Scheme.PCI:
            rest = str(PciAddress.parse(rest))
        elif not _fits(scheme, rest):
            raise NoDevice(f"{text!r} is not a device address; expected one of: {_FORMS}")
        return cls(scheme, rest, _parse_options(text, query))

    @property
    def pci(self) -> PciAddress:
        """The PCI address; `NoDevice` for the other schemes."""
        if self.scheme is not Scheme.PCI:
            raise NoDevice(f"{self} is not a PCI function; expected an address like 0000:00:04.0")
        return PciAddress.parse(self.rest)

    @property
    def parameters(self) -> dict[str, str]:
        """The options as a new dictionary."""
        return dict(self.options)

    def __str__(self) -> str:
        prefix = "" if self.scheme is Scheme.PCI else f"{self.scheme.value}:"
        query = "&".join(f"{name}={value}" for name, value in self.options)
        return f"{prefix}{self.rest}" + (f"?{query}" if query else "")


def _split_scheme(body: str) -> tuple[Scheme, str]:
    """Scheme and rest; a text with no known scheme in front can only be a PCI address."""
    if _PCI.fullmatch(body):
        return Scheme.PCI, body
    front, colon, rest = body.partition(":")
    for scheme in Scheme:
        if colon and front == scheme.value:
            return scheme, rest
    raise NoDevice(f"{body!r} is not a device address; expected one of: {_FORMS}")


def _fits(scheme: Scheme, rest: str) -> bool:
    if scheme is Scheme.VIRTUAL:
        return _NAME.fullmatch(rest) is not None
    if scheme is Scheme.MEDIATED:
        return _UUID.fullmatch(rest) is not None
    return bool(rest)  # the kernel's drivers give a UIO device any name


def _parse_options(text: str, query: str) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        if not (name and equals) or name in options:
            raise NoDevice(f"{text!r}: option {item!r} is not NAME=VALUE, given once each")
        options[name] = value
    return tuple(options.items())
