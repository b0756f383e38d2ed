"""What a table says about one register: name, offset, width, right of access, meaning of the bits.

Drivers, models, dump and trace all read the same declarations.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from enum import Enum
from typing import Any, Generic, Literal, Self, SupportsIndex, TypedDict, TypeVar, cast, overload

from uspace_drv.errors import LayoutError, RegisterValueError
from uspace_drv.registers.table import Entry, Span
from uspace_drv.registers.value import Register, to_number

A = TypeVar("A")
T = TypeVar("T")

Split = Literal["low first", "high first"]


class Access(Enum):
    """What software may do with a register."""

    RO = "ro"
    RW = "rw"
    WO = "wo"
    W1C = "w1c"

    @property
    def readable(self) -> bool:
        """Whether a read means something."""
        return self is not Access.WO

    @property
    def writable(self) -> bool:
        """Whether a write means something."""
        return self is not Access.RO


class Options(TypedDict, total=False):
    """What a declaration may say beyond offset, kind and documentation.

    `width`: 8, 16, 32 or 64 bits, where there is no kind to say it; 32 by default. `split`: the
    order of the two 32-bit accesses to a 64-bit register on a bus that has no wider ones.
    `side_effects`: a read changes the device, so nobody may read it out of curiosity.
    """

    width: Literal[8, 16, 32, 64]
    split: Split
    side_effects: bool


class BlockEntry(Entry):
    """A line of a register block: one register or an array of them."""

    def bind(self, window: Any, base: int = 0, /) -> Any:
        """Return what an instance shows, of a block that starts at `base` of the window."""
        raise NotImplementedError

    def elements(self) -> tuple[Declaration[Any, Any], ...]:
        """Return its registers."""
        raise NotImplementedError


class Declaration(BlockEntry, Generic[A, T]):
    """A register of a block: the declaration on the class, an accessor `A` on an instance.

    `offset` is in bytes from the start of the block, `width` in bits, `T` what a read gives.
    """

    def __init__(
        self,
        face: Callable[[Declaration[A, T], Any, int], A],
        access: Access,
        offset: int,
        kind: type[T] | str = "",
        doc: str = "",
        /,
        **options: Any,
    ) -> None:
        self._face = face
        self.access = access
        self.offset = offset
        self.kind = None if isinstance(kind, str) else _register(kind, offset)
        self.doc = kind if isinstance(kind, str) else doc
        self.width: int = options.get("width") or (self.kind.WIDTH if self.kind else 32)
        self.split: Split | None = options.get("split")
        self.side_effects: bool = options.get("side_effects", False)
        self._check()

    def _check(self) -> None:
        where = f"register at {self.offset:#x}"
        if self.width not in {8, 16, 32, 64}:
            raise LayoutError(f"{where}: width={self.width}, but it is 8, 16, 32 or 64")
        if self.kind and self.width != self.kind.WIDTH:
            seen = f"{self.kind.__name__} has {self.kind.WIDTH}"
            raise LayoutError(f"{where}: width={self.width}, but {seen}")
        if self.split not in {None, "low first", "high first"} or (self.split and self.width != 64):
            raise LayoutError(
                f"{where}: split={self.split!r}, width={self.width}; only a 64-bit "
                "register is split, 'low first' or 'high first'"
            )
        step = 4 if self.split else self.width // 8
        if self.offset % step:
            raise LayoutError(f"{where}: {self.width} bits need an offset that {step} divides")

    @property
    def label(self) -> str:
        """Name and place, for errors."""
        return f"{self.name} ({self.offset:#x})"

    def __str__(self) -> str:
        return self.label

    @property
    def span(self) -> Span:
        """The bytes that it covers."""
        return Span(self.offset, self.offset + self.width // 8, f"{self.label}, {self.width} bits")

    def bind(self, window: Any, base: int = 0, /) -> A:
        """Return the accessor of this register in a block that starts at `base` of the window."""
        return self._face(self, window, base)

    def elements(self) -> tuple[Declaration[A, T], ...]:
        """Return this register."""
        return (self,)

    def moved(self, offset: int) -> Self:
        """Return the same register at another offset."""
        other = copy(self)
        other.offset = offset
        other._check()
        return other

    def decode(self, raw: int) -> T:
        """Return what a read of `raw` gives."""
        return cast("T", self.kind(raw) if self.kind else raw)

    def encode(self, value: T | SupportsIndex | None = None, /, **fields: Any) -> int:
        """Return the number that says `value`, or these fields and 0 in all others."""
        return self.select(value, fields)[1]

    def select(self, value: object, fields: dict[str, Any]) -> tuple[int, int]:
        """Return which bits a value or some fields speak of, and what they hold.

        Exactly one of both must be given. Raises `RegisterValueError`.
        """
        if (value is None) is not bool(fields):
            raise RegisterValueError(f"{self.label}: give either a value or fields")
        if value is not None:
            number = value.raw if self.kind and type(value) is self.kind else value
            return (1 << self.width) - 1, to_number(number, self.width, self)
        if not self.kind:
            raise RegisterValueError(
                f"{self.label}: has no fields, it is a plain number; declare a Register for it"
            )
        return self.kind.encode(fields)

    def show(self, raw: int) -> str:
        """Return `raw` as a person reads it."""
        return repr(self.kind(raw)) if self.kind else f"{raw:#0{self.width // 4 + 2}x}"

    @overload
    def __get__(self, block: None, owner: type) -> Self: ...
    @overload
    def __get__(self, block: object, owner: type) -> A: ...
    def __get__(self, block: object | None, owner: type) -> Self | A:
        # Without __set__ the accessor in the instance comes first: this runs for the class only.
        return self if block is None else cast("A", vars(block)[self.name])


def _register(kind: type[Any], offset: int) -> type[Register]:
    if not issubclass(kind, Register):
        raise LayoutError(f"register at {offset:#x}: {kind.__name__} is no Register; leave it out")
    return kind


class ArrayDeclaration(BlockEntry, Generic[A, T]):
    """Equal registers at a fixed distance: declarations on the class, accessors on an instance."""

    def __init__(self, first: Declaration[A, T], count: int, stride: int) -> None:
        if count < 1:
            raise LayoutError(f"array at {first.offset:#x}: count={count}, but one is the least")
        self._elements = tuple(first.moved(first.offset + i * stride) for i in range(count))

    def set_name(self, name: str, owner: str) -> None:
        """Take the names that the class body gives, and name the elements after them."""
        super().set_name(name, owner)
        for index, element in enumerate(self._elements):
            element.set_name(f"{name}[{index}]", owner)

    def __len__(self) -> int:
        return len(self._elements)

    def __getitem__(self, index: int) -> Declaration[A, T]:
        return self._elements[index]

    def elements(self) -> tuple[Declaration[A, T], ...]:
        """Return all elements."""
        return self._elements

    def bind(self, window: Any, base: int = 0, /) -> tuple[A, ...]:
        """Return the accessors of all elements."""
        return tuple(element.bind(window, base) for element in self._elements)

    @overload
    def __get__(self, block: None, owner: type) -> Self: ...
    @overload
    def __get__(self, block: object, owner: type) -> tuple[A, ...]: ...
    def __get__(self, block: object | None, owner: type) -> Self | tuple[A, ...]:
        return self if block is None else cast("tuple[A, ...]", vars(block)[self.name])
