"""Orders to the QEMU of a running guest: a device comes, goes, or an error is injected into it.

Follows the QEMU Machine Protocol Specification (QEMU docs/interop/qmp-spec.rst).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uspace_drv.errors import HostError

_DEADLINE = 10.0  # seconds; QEMU answers at once unless it hangs


def order(monitor: Path, command: str, **arguments: object) -> Any:
    """Let the QEMU behind the socket `monitor` run a QMP command; return what it answers.

    `order(path, "device_del", id="card")` asks the guest's kernel to let go of a device behind a
    pcie-root-port: five seconds later the kernel tells its driver, waits for it, and only then the
    device is gone; `hot_unplug.pull_card` does it without warning. Raises `HostError` if nothing
    answers within 10 s, or QEMU refuses.
    """
    words = {"execute": command, "arguments": arguments}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_DEADLINE)
            connection.connect(str(monitor))
            answers = _answers(connection)
            next(answers)  # the greeting
            _send(connection, {"execute": "qmp_capabilities"})
            next(answers)
            _send(connection, words)
            answer = next(answers)
    except (OSError, ValueError, StopIteration) as error:
        raise HostError(
            f"{monitor}: no QEMU answered {command!r} within {_DEADLINE:g} s; a guest has to be"
            " running with this monitor",
            cause=error if isinstance(error, OSError) else None,
        ) from error
    if "error" in answer:
        raise HostError(f"{monitor}: QEMU refused {words}: {answer['error']['desc']}")
    return answer["return"]


def _send(connection: socket.socket, words: dict[str, Any]) -> None:
    connection.sendall(json.dumps(words).encode() + b"\n")


def _answers(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield what QEMU says, one object a line, without the events that it reports in between."""
    with connection.makefile("rb") as lines:
        for line in lines:
            said: dict[str, Any] = json.loads(line)
            if "event" not in said:
                yield said
