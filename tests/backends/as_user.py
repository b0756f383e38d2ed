"""Do something as a user who has no rights but those that files give."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

USER = 1000


def as_user(work: Callable[[], object]) -> bool:
    """Do it in a child that has given up all its rights; whether it came to its end.

    A child and no new program: that would have to read Python's files, which may lie below /root.
    So do the same once before, so that all modules are there.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    code = 1
    try:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - the child may not go on with pytest
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def handed_over(files: Sequence[Path]) -> Iterator[None]:
    """Let these files belong to the user for a while."""
    for path in files:
        os.chown(path, USER, -1)
    try:
        yield
    finally:
        for path in files:
            os.chown(path, 0, -1)
