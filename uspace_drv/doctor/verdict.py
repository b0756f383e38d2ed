"""What is said of one way: it works, it works after these lines, or it cannot be, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The three that there are."""

    WORKS = "works"
    AFTER = "works after these lines"
    CANNOT = "cannot work here"


@dataclass(frozen=True)
class Verdict:
    """`why` are reasons and what to know, `lines` commands to type in this order (only AFTER).

    `is_real` ways lead to hardware; the others to models.
    """

    way: str
    state: State
    why: tuple[str, ...]
    lines: tuple[str, ...]
    is_real: bool = True


class Case:
    """Collects what stands in the way of one way. `sealed` says why nothing can be changed here.

    An obstacle outweighs all lines. What is given twice counts once.
    """

    def __init__(self, way: str, *, sealed: str | None = None, is_real: bool = True) -> None:
        self._way = way
        self._sealed = sealed
        self._is_real = is_real
        self._obstacles: dict[str, None] = {}
        self._needs: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._lines: dict[str, None] = {}

    def cannot(self, why: str) -> None:
        """Something that no command here cures."""
        self._obstacles[why] = None

    def needs(self, why: str, *lines: str) -> None:
        """Something that these command lines cure, in a container those of its host."""
        if self._sealed is not None:
            self.cannot(f"{why}; {self._sealed}: {'; '.join(lines)}")
            return
        self._needs[why] = None
        self._lines |= dict.fromkeys(lines)

    def note(self, what: str) -> None:
        """Something to know of a way that works."""
        self._notes[what] = None

    @property
    def is_hopeless(self) -> bool:
        """Whether an obstacle was found, so that nothing more need be asked."""
        return bool(self._obstacles)

    def verdict(self) -> Verdict:
        """Sum it up."""
        if self._obstacles:
            return Verdict(self._way, State.CANNOT, tuple(self._obstacles), (), self._is_real)
        state = State.AFTER if self._lines else State.WORKS
        why = (*self._needs, *self._notes)
        return Verdict(self._way, state, why, tuple(self._lines), self._is_real)
