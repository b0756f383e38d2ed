"""For tests of drivers: the conformance suite, faults on demand, a pytest plugin, and a guest."""

from uspace_drv.testing.conformance import CHECKS, Check, check_driver
from uspace_drv.testing.faults import FaultyBackend
from uspace_drv.testing.target import Target

__all__ = ["CHECKS", "Check", "FaultyBackend", "Target", "check_driver"]
