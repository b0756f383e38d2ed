"""The first message: what is said, what is understood, what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspace_drv.errors import PeerError
from uspace_drv.vfiouser.version import (
    OURS,
    Capabilities,
    TwinSocket,
    Version,
    answer,
    pack_version,
    unpack_version,
)

# As QEMU 10.1 and libvfio-user send them.
QEMU = (
    b'\0\0\0\0{"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, '
    b'"pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}\0'
)
LIBVFIO_USER = (
    b'\0\0\2\0{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,'
    b'"migration":{"pgsize":4096},"twin_socket":{"supported":true,"fd_index":0}}}\0'
)


def said(capabilities: object) -> bytes:
    return b"\0\0\1\0" + json.dumps({"capabilities": capabilities}).encode() + b"\0"


def test_qemu_is_understood() -> None:
    version = unpack_version(QEMU)
    assert version == Version(0, 0, Capabilities(max_msg_fds=8, write_multiple=True))
    assert version.is_qemu


def test_libvfio_user_is_understood() -> None:
    version = unpack_version(LIBVFIO_USER)
    twin = TwinSocket(supported=True, fd_index=0)
    expected = Capabilities(max_msg_fds=8, migration_pgsize=4096, twin_socket=twin)
    assert version == Version(0, 2, expected)
    assert not version.is_qemu


def test_silence_means_the_defaults() -> None:
    for text in (b"", b"{}\0", b'{"capabilities":{}}\0', b'{"other":[1]}\0'):
        assert unpack_version(b"\0\0\1\0" + text) == Version(0, 1, Capabilities())
    assert Capabilities().max_msg_fds == 1


def test_what_we_say() -> None:
    payload = pack_version(Version())
    assert payload[:4] == b"\0\0\2\0"
    assert payload[-1] == 0
    assert json.loads(payload[4:-1]) == {
        "capabilities": {
            "max_msg_fds": 16,
            "max_data_xfer_size": 1048576,
            "max_dma_maps": 65535,
            "pgsizes": 4096,
            "migration": {"pgsize": 4096},
            "twin_socket": {"supported": True},
            "write_multiple": True,
        }
    }
    assert unpack_version(payload) == Version()


@pytest.mark.parametrize(("minor", "agreed"), [(0, 0), (1, 1), (2, 2), (3, 2), (0xFFFF, 2)])
def test_the_lower_minor_version_wins(minor: int, agreed: int) -> None:
    assert answer(Version(0, minor, OURS)).minor == agreed


def test_another_major_version_is_refused() -> None:
    with pytest.raises(PeerError, match=r"protocol version 1\.0, expected 0\.x"):
        answer(Version(1, 0, OURS))


def test_only_what_was_offered_is_answered() -> None:
    reply = answer(unpack_version(QEMU))
    assert (reply.minor, reply.capabilities.write_multiple) == (0, True)
    assert not reply.capabilities.twin_socket.supported
    silent = answer(Version(0, 1, Capabilities())).capabilities
    assert not silent.write_multiple
    assert not answer(Version(), Capabilities()).capabilities.twin_socket.supported
    assert answer(Version()).capabilities == OURS


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        ([], "capabilities is .*, expected an object"),
        ({"max_msg_fds": "8"}, "max_msg_fds is '8', expected a number of 0 or more"),
        ({"max_msg_fds": True}, "max_msg_fds is True"),
        ({"max_msg_fds": -1}, "max_msg_fds is -1"),
        ({"max_msg_fds": 1.5}, r"max_msg_fds is 1\.5"),
        ({"max_msg_fds": None}, "max_msg_fds is None"),
        ({"max_data_xfer_size": 0}, "max_data_xfer_size is 0, expected a number of 1 or more"),
        ({"max_dma_maps": 0}, "max_dma_maps is 0"),
        ({"pgsizes": 1 << 64}, "pgsizes is 18446744073709551616"),
        ({"migration": 4096}, "migration is 4096, expected an object"),
        ({"migration": {"pgsize": 0}}, "pgsize is 0"),
        ({"twin_socket": True}, "twin_socket is True, expected an object"),
        ({"twin_socket": {"supported": 1}}, "supported is 1, expected true or false"),
        ({"twin_socket": {"fd_index": -1}}, "fd_index is -1"),
        ({"write_multiple": "yes"}, "write_multiple is 'yes', expected true or false"),
    ],
)
def test_values_that_make_no_sense(capabilities: object, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        unpack_version(said(capabilities))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{}", "does not end with a NUL"),
        (b"{\0", "are no JSON"),
        (b"\xff\0", "are no JSON"),
        (b"[]\0", r"capabilities is \[\], expected an object"),
        (b"{}\0{}\0", "are no JSON"),
        (b"[" * 4000 + b"\0", "are no JSON"),
        (b"1" * 5000 + b"\0", "5001 bytes of JSON, expected at most 4096"),
        (b'{"capabilities":{"pgsizes":' + b"9" * 4060 + b"}}\0", "pgsizes is|are no JSON"),
        (b'{"capabilities":{"pgsizes":NaN}}\0', "pgsizes is nan"),
    ],
)
def test_what_is_no_json_or_too_much_of_it(text: bytes, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        unpack_version(b"\0\0\1\0" + text)


@pytest.mark.parametrize("length", range(4))
def test_too_short_for_the_numbers(length: int) -> None:
    with pytest.raises(PeerError, match=f"VERSION: {length} bytes, expected at least 4"):
        unpack_version(bytes(length))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = ["max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes", "migration", "twin_socket"]


@given(st.dictionaries(st.sampled_from([*KEYS, "write_multiple", "unknown"]), JSON))
def test_any_json_is_understood_or_refused(capabilities: dict[str, object]) -> None:
    try:
        version = unpack_version(said(capabilities))
    except PeerError:
        return
    assert 0 <= version.capabilities.max_msg_fds < 1 << 64
    assert answer(version).minor == 1
