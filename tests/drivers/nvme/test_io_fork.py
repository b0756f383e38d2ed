"""A forked child has no part in its parent's queues: it is told so, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drv import ClosedError, attach

CALLS: list[Callable[[Namespace, QueuePair], Any]] = [
    lambda namespace, _: namespace.read(0, 1),
    lambda namespace, _: namespace.write(0, bytes(512)),
    lambda namespace, _: namespace.flush(),
    lambda _, pair: cast("Any", pair.keeper).smart_log(),
    lambda _, pair: pair.poll(),
    lambda namespace, pair: pair.submit(namespace.requests(Opcode.FLUSH, [0])),
    lambda namespace, pair: pair.run(namespace.requests(Opcode.FLUSH, [0])),
]


@pytest.mark.parametrize("rings", ["python", "native"])
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_child_is_refused(rings: str, is_shared: bool) -> None:
    with attach(NvmeModel("nvme", rings=rings, size="4M"), Nvme) as nvme:
        pair = nvme.queue(4, polled=True)
        if is_shared:
            pair.share()
        namespace = nvme.namespaces[1].on(pair)
        namespace.write(0, np.full(512, 7, np.uint8))
        before = bytes(pair._rings.submission)
        words = in_a_child(
            lambda: [
                *(refusal(call, namespace, pair) for call in CALLS),
                refusal(lambda: nvme.queue(4)),
            ]
        )
        assert bytes(pair._rings.submission) == before
        assert words.count(f"was opened by process {os.getpid()}") == len(CALLS) + 1
        assert (namespace.read(0, 1) == 7).all()


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """What it says."""
    try:
        call(*arguments)
    except ClosedError as error:
        return str(error)
    return "nothing"


def in_a_child(work: Callable[[], object]) -> str:
    """Do it in a forked child, and return what comes out in words."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(there, str(work()).encode())
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as words:
        found = words.read()
    os.waitpid(child, 0)
    return found
