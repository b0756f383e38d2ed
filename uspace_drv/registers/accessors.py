"""Registers as a driver holds them: verbs that touch the hardware, and nothing else that does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, SupportsIndex, TypeVar

from uspace_drv.deadline import Deadline
from uspace_drv.errors import DeviceGone, DeviceTimeout, RegisterValueError
from uspace_drv.registers.declaration import Declaration, Split

T = TypeVar("T")

_new = object.__new__

IMMEDIATE_READS = 8
FIRST_PAUSE = 20e-6
"""Seconds. `wait` reads a few times at once, then sleeps this long, then ever longer."""


class Window(Protocol):
    """What the registers lie in; one call is one load or store of that width."""

    @property
    def name(self) -> str:
        """Where this is, as errors say it: '0000:00:04.0 bar 0'."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read8(self, offset: int, /) -> int: ...  # noqa: D102
    def read16(self, offset: int, /) -> int: ...  # noqa: D102
    def read32(self, offset: int, /) -> int: ...  # noqa: D102
    def read64(self, offset: int, /) -> int: ...  # noqa: D102
    def write8(self, offset: int, value: int, /) -> None: ...  # noqa: D102
    def write16(self, offset: int, value: int, /) -> None: ...  # noqa: D102
    def write32(self, offset: int, value: int, /) -> None: ...  # noqa: D102
    def write64(self, offset: int, value: int, /) -> None: ...  # noqa: D102


class Link(Protocol):
    """What leads to the device, if that can end without an access noticing.

    A window or an interrupt line has it as its attribute `link`; most have none.
    """

    @property
    def timeout_note(self) -> str:
        """What else to know when the device does not react; may be empty."""

    def check_alive(self) -> None:
        """Raise `DeviceGone` if the device cannot be reached any more; takes some µs at most."""

    def check_present(self) -> None:
        """Raise `DeviceGone` if it answers no more: asked once, when a wait has run out."""


class Accessor(Generic[T]):
    """One register of one window; the subclasses have the verbs that its right of access allows."""

    __slots__ = ("_kind", "_offset", "_ones", "_read", "_window", "_write", "declaration")

    def __init__(self, declaration: Declaration[Any, T], window: Window, base: int) -> None:
        self.declaration = declaration
        self._window = window
        self._kind = declaration.kind
        self._ones = (1 << declaration.width) - 1
        self._offset = base + declaration.offset
        self._read: Callable[[int], int]
        self._write: Callable[[int, int], None]
        if declaration.split:
            self._read, self._write = _split(window, declaration.split)
        else:
            self._read = getattr(window, f"read{declaration.width}")
            self._write = getattr(window, f"write{declaration.width}")

    def __repr__(self) -> str:
        return f"<{self.declaration.access.value} register {self._where}>"

    @property
    def _where(self) -> str:
        return f"{self._window.name} {self.declaration.name} ({self._offset:#x})"

    def _select(self, value: object, fields: dict[str, Any]) -> tuple[int, int]:
        """Return bits and content as the declaration does; an error says on which device."""
        try:
            return self.declaration.select(value, fields)
        except RegisterValueError as error:
            reason = str(error).removeprefix(f"{self.declaration.label}: ")
            raise RegisterValueError(f"{self._where}: {reason}") from None


def _split(window: Window, order: Split) -> tuple[Callable[[int], int], Callable[[int, int], None]]:
    """Return 64-bit read and write as two 32-bit accesses each, in the order that is declared."""
    halves = (0, 4) if order == "low first" else (4, 0)

    def read(offset: int) -> int:
        return sum(window.read32(offset + half) << 8 * half for half in halves)

    def write(offset: int, value: int) -> None:
        for half in halves:
            window.write32(offset + half, value >> 8 * half & 0xFFFF_FFFF)

    return read, write


class Readable(Accessor[T]):
    """A register that can be read."""

    __slots__ = ()

    def read(self) -> T:
        """Load it: a value of its `Register`, or an int where the table names none."""
        raw = self._read(self._offset)
        kind = self._kind
        if kind is None:
            return raw  # type: ignore[return-value]  # T is int then
        value = _new(kind)  # without __init__: what was read always fits
        value._raw = raw
        return value  # type: ignore[return-value]

    def wait(
        self,
        value: T | SupportsIndex | None = None,
        /,
        *,
        timeout: float = 1.0,
        interval: float = 0.001,
        **fields: Any,
    ) -> T:
        """Read until these fields (or the whole register) hold that, and return what was read.

        Sleeps up to `interval` seconds between two reads. Raises `DeviceTimeout` after `timeout`
        seconds, and `DeviceGone` for all ones in a register that has undefined bits.
        """
        mask, wanted = self._select(value, fields)
        deadline = Deadline(timeout)
        link: Link | None = getattr(self._window, "link", None)
        reads = 0
        while True:
            last_chance = deadline.passed  # asked before the read: one read follows the deadline
            raw = self._read(self._offset)
            self._check_present(raw)
            if raw & mask == wanted:
                return self.declaration.decode(raw)
            if link and (last_chance or reads >= IMMEDIATE_READS):
                link.check_alive()
            if last_chance:
                if link:
                    link.check_present()
                raise self._timeout(raw, wanted, fields, timeout, link)
            reads += 1
            if reads > IMMEDIATE_READS:
                pause = FIRST_PAUSE * 2 ** min(reads - IMMEDIATE_READS, 20)
                time.sleep(min(pause, interval, deadline.remaining()))

    def _timeout(
        self, raw: int, wanted: int, fields: dict[str, Any], timeout: float, link: Link | None
    ) -> DeviceTimeout:
        show = self.declaration.show
        expected = show(wanted)
        if self._kind and fields:
            expected = " ".join(self._kind.FIELDS[name].show(wanted) for name in fields)
        error = DeviceTimeout(
            f"{self._where}: {expected} not seen within {timeout:.3f} s; last read {show(raw)}"
        )
        if link and link.timeout_note:
            error.add_note(link.timeout_note)
        return error

    def _check_present(self, raw: int) -> None:
        """Raise `DeviceGone` if all bits are one, those that the table leaves undefined too."""
        if raw == self._ones and self._kind and raw != self._kind.DEFINED:
            raise DeviceGone(
                f"{self._where}: reads all ones ({raw:#x}), which {self._kind.__name__} cannot "
                "hold; the device is unplugged, powered down, or has memory access switched off"
            )


class Writable(Accessor[T]):
    """A register that can be written."""

    __slots__ = ()

    def write(self, value: T | SupportsIndex | None = None, /, **fields: Any) -> None:
        """Store a value, or these fields and 0 in all others.

        Raises `RegisterValueError` for what does not fit or does not exist.
        """
        number = value._raw if type(value) is self._kind else value
        if fields or type(number) is not int or not 0 <= number <= self._ones:
            number = self._select(value, fields)[1]
        self._write(self._offset, number)


class ReadWrite(Readable[T], Writable[T]):
    """A register that can be read and written."""

    __slots__ = ()

    def update(self, **fields: Any) -> None:
        """Change these fields and keep the others: one load, one store, not atomic."""
        mask, bits = self._select(None, fields)
        self._write(self._offset, self._read(self._offset) & ~mask | bits)


class Clearable(Readable[T]):
    """A register whose bits are cleared by writing ones to them."""

    __slots__ = ()

    def clear(self, value: T | SupportsIndex | None = None, /, **fields: Any) -> None:
        """Clear the bits that are one in this value (as read before) or in these fields.

        One store; all other bits are written as 0, which leaves them alone.
        """
        self._write(self._offset, self._select(value, fields)[1])
