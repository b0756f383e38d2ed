"""The registers of a model: what they hold, and the methods that react to reads and writes.

A register without a method behaves as its right of access says: what was written is read back,
ones clear what is write-one-to-clear, a read-only one keeps what the model set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from uspace_drv.errors import DeviceError, LayoutError, UspaceError
from uspace_drv.models.bars import Bar
from uspace_drv.registers import Access, Declaration

T = TypeVar("T")
M = TypeVar("M")
Place = tuple[int, int, int]
"""BAR, offset, width in bytes."""

HALF = 0xFFFF_FFFF


def on_write(
    register: Declaration[Any, T],
) -> Callable[[Callable[[M, T], None]], Callable[[M, T], None]]:
    """Declare what happens when the driver writes: the method gets the value and decides."""

    def mark(method: Callable[[M, T], None]) -> Callable[[M, T], None]:
        method.__on_write__ = register  # type: ignore[attr-defined]
        return method

    return mark


def on_read(
    register: Declaration[Any, T],
) -> Callable[[Callable[[M], T]], Callable[[M], T]]:
    """Declare what the driver reads: the method returns it."""

    def mark(method: Callable[[M], T]) -> Callable[[M], T]:
        method.__on_read__ = register  # type: ignore[attr-defined]
        return method

    return mark


class RegisterFile:
    """All registers of a model by place; `values` holds what they hold, 0 where nothing is."""

    def __init__(self, name: str, model: object, bars: Mapping[int, Bar]) -> None:
        self.values: dict[Declaration[Any, Any], int] = {}
        self._name = name
        self._readers = _methods(model, "__on_read__")
        self._writers = _methods(model, "__on_write__")
        places = [
            ((number, register.offset, register.width // 8), register)
            for number, bar in bars.items()
            if bar.registers is not None
            for register in bar.registers.registers()
        ]
        self._readable = {place: each for place, each in places if each.access.readable}
        self._writable = {place: each for place, each in places if each.access.writable}
        _check_reactions("on_read", self._readers, self._readable.values())
        _check_reactions("on_write", self._writers, self._writable.values())
        self._plain = {
            place: each for place, each in self._readable.items() if each not in self._readers
        }
        self._readable_halves = _halves(self._readable)
        self._writable_halves = _halves(self._writable)
        self._latched: dict[Declaration[Any, Any], int] = {}

    def clear(self) -> None:
        """Let all hold 0."""
        self.values.clear()
        self._latched.clear()

    def read(self, place: Place) -> int | None:
        """What a read gives; None where no register is."""
        register = self._plain.get(place)  # the usual case first: it delays each message
        if register is not None:
            return self.values.get(register, 0)
        register = self._readable.get(place)
        if register is not None:
            return self._load(register)
        half = self._readable_halves.get(place)
        if half is not None:
            register, shift = half
            return self._load(register) >> shift & HALF
        return None

    def write(self, place: Place, value: int) -> bool:
        """Write; False where no register is."""
        register = self._writable.get(place)
        if register is not None:
            self._store(register, value)
            return True
        half = self._writable_halves.get(place)
        if half is not None:
            self._store_half(*half, value)
            return True
        return False

    def _load(self, register: Declaration[Any, Any]) -> int:
        reader = self._readers.get(register)
        if reader is None:
            return self.values.get(register, 0)
        return register.encode(self._ask("read", register, reader))

    def _store(self, register: Declaration[Any, Any], value: int) -> None:
        writer = self._writers.get(register)
        if writer is not None:
            self._ask("write", register, writer, register.decode(value))
        elif register.access is Access.W1C:
            self.values[register] = self.values.get(register, 0) & ~value
        else:
            self.values[register] = value

    def _store_half(self, register: Declaration[Any, Any], shift: int, value: int) -> None:
        """A declared split takes effect with its second half; else each half does by itself."""
        if register.access is Access.W1C:
            self._store(register, value << shift)
            return
        whole = self._latched.pop(register, self.values.get(register, 0))
        whole = whole & ~(HALF << shift) | value << shift
        first = {"low first": 0, "high first": 32, None: None}[register.split]
        if shift == first:
            self._latched[register] = whole
        else:
            self._store(register, whole)

    def _ask(
        self, verb: str, register: Declaration[Any, Any], method: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a method of the model; what goes wrong in it names the access that led there."""
        try:
            return method(*args)
        except UspaceError:
            raise
        except Exception as error:
            raise DeviceError(
                f"{self._name}: the model failed at a {verb} of {register.label}: "
                f"{type(error).__name__}: {error}"
            ) from error


def _methods(model: object, mark: str) -> dict[Declaration[Any, Any], Callable[..., Any]]:
    kind = type(model)
    names = (name for name in dir(kind) if hasattr(getattr(kind, name), mark))
    found: dict[Declaration[Any, Any], Callable[..., Any]] = {}
    for method in (getattr(model, name) for name in names):
        register = getattr(method, mark)
        if register in found:
            raise LayoutError(f"{kind.__name__}: two methods react to {register.label}")
        found[register] = method
    return found


def _check_reactions(
    mark: str,
    methods: Mapping[Declaration[Any, Any], Callable[..., Any]],
    registers: Iterable[Declaration[Any, Any]],
) -> None:
    """A method that could never be called is a mistake."""
    reachable = set(registers)
    for register, method in methods.items():
        if register not in reachable:
            label = getattr(register, "label", repr(register))
            raise LayoutError(
                f"{method.__qualname__}: @{mark}({label}) would never be called: no BAR of the "
                "model has that register with that right of access"
            )


def _halves(
    registers: Mapping[Place, Declaration[Any, Any]],
) -> dict[Place, tuple[Declaration[Any, Any], int]]:
    """The two 32-bit halves of each 64-bit register: many a bus has nothing wider."""
    return {
        (bar, offset + shift // 8, 4): (register, shift)
        for (bar, offset, width), register in registers.items()
        if width == 8
        for shift in (0, 32)
    }
