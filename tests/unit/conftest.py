"""What tests of the core share: a look at what the process still holds when a test is over."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from uspace_drv.testing.belongings import belongings


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No descriptor, mapping, thread or lock may be there that was not there before."""
    before = belongings()
    yield
    if belongings() != before:
        gc.collect()  # what a caught exception holds in its frames
    assert belongings() == before
