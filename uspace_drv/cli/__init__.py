"""The command `uspace`: looks at devices, binds them, and runs drivers on them."""

from uspace_drv.cli.commands import main

__all__ = ["main"]
