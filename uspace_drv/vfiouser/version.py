"""What two vfio-user peers agree on first: QEMU docs/interop/vfio-user.rst, VFIO_USER_VERSION.

A body is two numbers and, optionally, JSON that ends with a NUL. Keys that are not known here are
left alone; a value that has the wrong type or makes no sense raises `PeerError`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from struct import Struct

from uspace_drv.errors import PeerError
from uspace_drv.vfiouser.numbers import PAGE

MAJOR = 0
MINOR = 2

_HEAD = Struct("<HH")
_LARGEST_JSON = 4096  # bytes; real ones have 200


@dataclass(frozen=True)
class TwinSocket:
    """A second socket for the server's commands; `fd_index` counts the reply's descriptors."""

    supported: bool = False
    fd_index: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """What the sender can do or receive. The values here are what an absent key means."""

    max_msg_fds: int = 1
    max_data_xfer_size: int = 1 << 20
    max_dma_maps: int = 65535
    pgsizes: int = PAGE
    migration_pgsize: int | None = None
    twin_socket: TwinSocket = field(default_factory=TwinSocket)
    write_multiple: bool = False


# QEMU refuses a peer that says it takes more than 16 descriptors (VFIO_USER_MAX_MAX_FDS).
OURS = Capabilities(
    max_msg_fds=16,
    migration_pgsize=PAGE,
    twin_socket=TwinSocket(supported=True),
    write_multiple=True,
)

ROOM = 4096
"""Bytes of a message beside the data that it transfers."""

LARGEST_PAYLOAD = OURS.max_data_xfer_size + ROOM
"""Bytes behind the header of a message to us."""


@dataclass(frozen=True)
class Version:
    """What one side says first."""

    major: int = MAJOR
    minor: int = MINOR
    capabilities: Capabilities = OURS

    @property
    def is_qemu(self) -> bool:
        """Whether its DMA_READ and DMA_WRITE differ from the specification, as QEMU's do.

        Only QEMU says 0.0: libvfio-user began with 0.1.
        """
        return (self.major, self.minor) == (0, 0)


def answer(theirs: Version, ours: Capabilities = OURS) -> Version:
    """Return the server's reply to a client; what the client did not offer is left out."""
    if theirs.major != MAJOR:
        raise PeerError(f"protocol version {theirs.major}.{theirs.minor}, expected {MAJOR}.x")
    offered = theirs.capabilities
    both = Capabilities(
        max_msg_fds=ours.max_msg_fds,
        max_data_xfer_size=ours.max_data_xfer_size,
        max_dma_maps=ours.max_dma_maps,
        pgsizes=ours.pgsizes,
        migration_pgsize=ours.migration_pgsize,
        twin_socket=TwinSocket(offered.twin_socket.supported and ours.twin_socket.supported),
        write_multiple=offered.write_multiple and ours.write_multiple,
    )
    return Version(MAJOR, min(theirs.minor, MINOR), both)


def pack_version(version: Version) -> bytes:
    """Make the body of VERSION, either way."""
    text = json.dumps({"capabilities": _to_json(version.capabilities)})
    return _HEAD.pack(version.major, version.minor) + text.encode() + b"\0"


def _to_json(capabilities: Capabilities) -> dict[str, object]:
    said: dict[str, object] = {
        "max_msg_fds": capabilities.max_msg_fds,
        "max_data_xfer_size": capabilities.max_data_xfer_size,
        "max_dma_maps": capabilities.max_dma_maps,
        "pgsizes": capabilities.pgsizes,
    }
    if capabilities.migration_pgsize is not None:
        said["migration"] = {"pgsize": capabilities.migration_pgsize}
    twin = capabilities.twin_socket
    if twin.supported:
        index = {} if twin.fd_index is None else {"fd_index": twin.fd_index}
        said["twin_socket"] = {"supported": True, **index}
    if capabilities.write_multiple:
        said["write_multiple"] = True
    return said


def unpack_version(payload: bytes) -> Version:
    """Take the body of VERSION, either way."""
    if len(payload) < _HEAD.size:
        raise PeerError(f"VERSION: {len(payload)} bytes, expected at least {_HEAD.size}")
    major, minor = _HEAD.unpack_from(payload)
    text = payload[_HEAD.size :]
    if not text:
        return Version(major, minor, Capabilities())
    return Version(major, minor, _from_json(_object(_parse(text), "capabilities")))


def _parse(text: bytes) -> object:
    if len(text) > _LARGEST_JSON:
        raise PeerError(f"VERSION: {len(text)} bytes of JSON, expected at most {_LARGEST_JSON}")
    if not text.endswith(b"\0"):
        raise PeerError("VERSION: JSON that does not end with a NUL byte")
    try:
        return json.loads(text[:-1].decode())
    except (ValueError, RecursionError) as error:
        raise PeerError(f"VERSION: the capabilities are no JSON: {error}") from error


def _from_json(said: dict[str, object]) -> Capabilities:
    default = Capabilities()
    twin = _object(said, "twin_socket")
    return Capabilities(
        max_msg_fds=_number(said, "max_msg_fds", default.max_msg_fds, least=0),
        max_data_xfer_size=_number(said, "max_data_xfer_size", default.max_data_xfer_size),
        max_dma_maps=_number(said, "max_dma_maps", default.max_dma_maps),
        pgsizes=_number(said, "pgsizes", default.pgsizes),
        migration_pgsize=_optional(_object(said, "migration"), "pgsize", least=1),
        twin_socket=TwinSocket(_flag(twin, "supported"), _optional(twin, "fd_index", least=0)),
        write_multiple=_flag(said, "write_multiple"),
    )


def _object(said: object, key: str) -> dict[str, object]:
    """Return an object inside of an object; nothing is an empty one."""
    inner = said.get(key, {}) if isinstance(said, dict) else said
    if not isinstance(inner, dict):
        raise PeerError(f"VERSION: {key} is {inner!r:.40}, expected an object")
    return inner


def _number(said: dict[str, object], key: str, default: int, *, least: int = 1) -> int:
    number = _optional(said, key, least=least)
    return default if number is None else number


def _optional(said: dict[str, object], key: str, *, least: int) -> int | None:
    number = said.get(key)
    if key not in said:
        return None
    if type(number) is not int or not least <= number < 1 << 64:
        raise PeerError(f"VERSION: {key} is {number!r:.40}, expected a number of {least} or more")
    return number


def _flag(said: dict[str, object], key: str) -> bool:
    flag = said.get(key, False)
    if not isinstance(flag, bool):
        raise PeerError(f"VERSION: {key} is {flag!r:.40}, expected true or false")
    return flag
