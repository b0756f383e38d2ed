"""What the fuzzers found worth keeping (scripts/fuzz), once more in every run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vfiouser import framing_twin
from tests.vfiouser.bare_peer import FDS, header, open_descriptors
from tests.vfiouser.parsers import PARSERS

CORPUS = Path(__file__).with_name("corpus")


def kept(name: str) -> list[Path]:
    files = sorted((CORPUS / name).iterdir())
    assert len(files) > 20
    return files


def test_parsers_of_bodies() -> None:
    for path in kept("wire"):
        for parser in PARSERS:
            parser.refuse_or_take(path.read_bytes())


@pytest.mark.usefixtures("nothing_left")
def test_framing() -> None:
    for path in kept("framing"):
        framing_twin.check(path.read_bytes())


def test_the_corpus_has_all_kinds_of_messages() -> None:
    """Whole, with descriptors, and broken ones: so the replay means something."""
    scripts = [framing_twin.read_script(path.read_bytes()) for path in kept("framing")]
    ends = [framing_twin.expected(sends) for sends in scripts]
    assert {broken for _, broken in ends} == {False, True}
    assert {count for messages, _ in ends for _, count in messages} == set(range(FDS + 1))
    assert max(len(messages) for messages, _ in ends) >= 3


SIZES = st.integers(0, 40) | st.sampled_from([16 + 4096, 16 + 4097, 0x7FFF_FFFF, 0xFFFF_FFFF])
MESSAGES = st.builds(
    lambda size, flags, body: header(size, flags=flags) + body,
    SIZES,
    st.sampled_from([0, 1, 0x10, 0x21, 2, 15]),
    st.binary(max_size=30),
)


@given(st.lists(st.tuples(MESSAGES | st.binary(min_size=1, max_size=40), st.integers(0, 5))))
def test_channel_and_twin_agree_on_any_stream(sends: list[framing_twin.Send]) -> None:
    before = open_descriptors()
    wanted = framing_twin.expected(sends)
    assert framing_twin.observed(sends, drain=False) == wanted
    assert framing_twin.observed(sends, drain=True) == wanted
    assert open_descriptors() == before
