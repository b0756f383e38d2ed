"""Tests run on models, or on a device: see the options of `uspace_drv.testing.pytest_plugin`.

A test marked `via("vfio")` needs the real thing: it belongs to the run that has it alone. That mark
means every way through VFIO, `via("vfio-cdev")` that one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from uspace_drv.testing.belongings import belongings
from uspace_drv.testing.target import comes_via

pytest_plugins = ["uspace_drv.testing.pytest_plugin"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "via(way): runs only where --device is opened that way")
    if not config.getoption("--device"):  # a guest is slow, and has no use for it
        from hypothesis import settings  # noqa: PLC0415

        # The same examples each time, and no timing decides a test.
        settings.register_profile("here", derandomize=True, deadline=None)
        settings.load_profile("here")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    way = config.getoption("--via") if config.getoption("--device") else None
    others = [item for item in items if not _belongs(item, way)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _belongs(item: pytest.Item, way: str | None) -> bool:
    marker = item.get_closest_marker("via")
    return marker is None or any(comes_via(wanted, way) for wanted in marker.args)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No descriptor, mapping, thread or lock may be there that was not there before the test."""
    before = belongings()
    yield
    assert belongings() == before


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored; Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
