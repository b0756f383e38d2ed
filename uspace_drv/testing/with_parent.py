"""Runs `uspace` as a child that ends with its parent, even if that is killed: PARENT WORDS...

Linux prctl(2), PR_SET_PDEATHSIG: the parent is the thread that started it.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int) -> None:
    """Run `python -m uspace_drv` with the words that are left, unless the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        runpy.run_module("uspace_drv", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv.pop(1)))
