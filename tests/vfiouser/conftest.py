"""What the tests of the channel and of the server start from; nothing may be left of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vfiouser.bare_peer import Pair, memory_files
from tests.vfiouser.raw_client import Copier, RawClient
from uspace_drv.vfiouser.server import Server


@pytest.fixture
def pair(nothing_left: None) -> Iterator[Pair]:
    with Pair() as made:
        yield made


@pytest.fixture
def files(nothing_left: None) -> Iterator[list[int]]:
    with memory_files(9) as fds:
        yield fds


@pytest.fixture
def model(nothing_left: None) -> Iterator[Copier]:
    made = Copier()
    yield made
    made.close()


@pytest.fixture
def server(model: Copier, tmp_path: Path) -> Iterator[Server]:
    with Server(model, tmp_path / "socket") as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    """Negotiated without a twin socket, so that everything goes over one."""
    with RawClient(server.path) as made:
        made.greet()
        yield made
