"""A fresh interpreter for what must not happen in this one: forks, and ends by a signal."""

from __future__ import annotations

import os
import subprocess
import sys


def in_child(
    body: str, *arguments: str, preload: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the lines, which know os, sys and Window; `preload` goes behind what is preloaded."""
    lines = "import os, sys\nfrom uspace_drv.native import Window\n" + body
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if preload is not None:
        environment["LD_PRELOAD"] = f"{os.environ.get('LD_PRELOAD', '')} {preload}"
    return subprocess.run(
        [sys.executable, "-c", lines, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
    )
