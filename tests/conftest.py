"""Tests run on models, or on a device: see the options of `uspace_drv.testing.pytest_plugin`."""

pytest_plugins = ["uspace_drv.testing.pytest_plugin"]
