"""File windows: a signal handler that closes one in the middle of an access, and forks."""

from __future__ import annotations

from pathlib import Path

import pytest

from .child import in_child
from .conftest import compiled


@pytest.mark.parametrize("access", ["read8(1)", "write8(1, 77)"])
def test_closed_by_a_signal_handler(access: str, two_pages: Path, tmp_path: Path) -> None:
    """Its descriptor may already be somebody else's file when the access is tried again."""
    other = tmp_path / "other"
    other.write_bytes(b"other")
    done = in_child(
        f"""
import signal
fd = os.open(sys.argv[1], os.O_RDWR)
window = Window.over_file("config", fd, 0, 4)
def close(number, frame):
    window.close()
    os.dup2(os.open(sys.argv[2], os.O_RDWR), fd)
signal.signal(signal.SIGUSR1, close)
try:
    print(window.{access})
except Exception as error:
    print(type(error).__name__, error)
""",
        str(two_pages),
        str(other),
        preload=str(compiled("interrupt", tmp_path)),
    )
    assert done.stdout == "ClosedError config is closed\n", done.stderr
    assert other.read_bytes() == b"other"


@pytest.mark.parametrize("access", ["read8(1)", "write8(1, 77)"])
def test_goes_on_after_a_signal(access: str, two_pages: Path, tmp_path: Path) -> None:
    done = in_child(
        f"""
import signal
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
window = Window.over_file("config", os.open(sys.argv[1], os.O_RDWR), 0, 4)
window.{access}
print(len(seen), window.read8(1))
""",
        str(two_pages),
        preload=str(compiled("interrupt", tmp_path)),
    )
    assert done.stdout == f"1 {1 if 'read' in access else 77}\n", done.stderr


def test_a_forked_child_has_no_part_in_the_device(two_pages: Path) -> None:
    done = in_child(
        """
window = Window.over_file("config", os.open(sys.argv[1], os.O_RDWR), 0, 4)
child = os.fork()
if child == 0:
    for access in (lambda: window.write8(0, 99), lambda: window.read8(0), window.memory):
        try:
            access()
        except Exception as error:
            os.write(1, f"{type(error).__name__}: {error}\\n".encode())
    window.close()
    os._exit(0)
os.waitpid(child, 0)
print(window.read8(0), window.read8(1))
""",
        str(two_pages),
    )
    words = "config was opened by the process that this one was forked from; open it here"
    assert done.stdout.splitlines() == [*[f"ClosedError: {words}"] * 3, "0 1"], done.stderr
