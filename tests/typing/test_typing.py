"""What mypy says about registers, with the plugin: right uses pass, each wrong one is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(cache: Path, *files: Path) -> tuple[list[int], str]:
    """Return the lines with errors, and all of the output."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "--no-error-summary"]
    done = subprocess.run(
        [*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    errors = [line.split(":") for line in done.stdout.splitlines() if ": error: " in line]
    return [int(parts[1]) for parts in errors], done.stdout + done.stderr


def test_right_uses_pass_and_each_wrong_use_is_refused(tmp_path: Path) -> None:
    # A mark that excuses nothing is an error under `strict`, so no error at all means that
    # every marked line was refused for the reason that its mark names.
    lines, output = mypy(tmp_path, HERE / "right_uses.py", HERE / "wrong_uses.py")
    assert (lines, output) == ([], "")

    # And without the marks, the refused lines are those that had one.
    text = (HERE / "wrong_uses.py").read_text()
    marked = [n for n, line in enumerate(text.splitlines(), 1) if "# type: ignore[" in line]
    bare = tmp_path / "bare_uses.py"
    bare.write_text(text.replace("# type: ignore[", "# "))
    lines, output = mypy(tmp_path, bare)
    assert sorted(set(lines)) == marked, output
    assert len(marked) > 40
