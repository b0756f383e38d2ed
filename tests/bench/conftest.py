"""What suites must not leave behind."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest


@pytest.fixture
def no_child_left() -> Iterator[None]:
    """No process may be there that was not there before the test."""
    before = psutil.Process().children(recursive=True)
    yield
    assert psutil.Process().children(recursive=True) == before
