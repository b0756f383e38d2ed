"""The broker: a process with rights opens a device, one without any drives it (unix(7))."""

from __future__ import annotations

from uspace_drv.broker.client import open_brokered
from uspace_drv.broker.server import Broker

__all__ = ["Broker", "open_brokered"]
