"""The value of a register: an immutable number whose bits have names.

Fields are declared high bit first, as datasheets print them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import Enum, Flag
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Never,
    Self,
    SupportsIndex,
    TypeVar,
    overload,
)

from uspace_drv.errors import LayoutError, RegisterValueError
from uspace_drv.registers.table import Entry, Span, Table, check_spans, entries

T_co = TypeVar("T_co", covariant=True)
K = TypeVar("K", bound=Enum)


def to_number(value: object, width: int, where: object) -> int:
    """Return `value` as a Python int that fits `width` bits, or raise `RegisterValueError`.

    `where` says in the error what it was for; it is not printed otherwise.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # this is the check
    except TypeError:
        raise RegisterValueError(f"{where}: {value!r} is not an integer") from None
    if not 0 <= number < 1 << width:
        bits = "1 bit" if width == 1 else f"{width} bits"
        raise RegisterValueError(f"{where}: {number:#x} does not fit {bits}")
    return number


class Field(Entry, property, Generic[T_co]):
    """Bits `high` down to `low` of a register: the field on the class, its content on a value.

    `width` counts its bits, `mask` is where they are in the register. It is a property because
    that is the fastest attribute written in Python.
    """

    def __init__(self, high: int, low: int, kind: type[Enum] | None, doc: str) -> None:
        if not high >= low >= 0:
            raise LayoutError(f"field({high}, {low}): give the high bit, then the low bit")
        self.high = high
        self.low = low
        self.width = high - low + 1
        self.mask = (1 << self.width) - 1 << low
        self.kind = kind
        self.doc = doc
        super().__init__(self._getter(), doc=doc)

    def _getter(self) -> Callable[[Register], Any]:
        low, ones = self.low, self.mask >> self.low
        if self.kind is None:
            return lambda value: value._raw >> low & ones
        members = {member.value: member for member in self.kind}

        def member(value: Register) -> object:
            number = value._raw >> low & ones
            return members.get(number, number)

        return member

    @property
    def label(self) -> str:
        """Name and place, for errors."""
        bits = f"bit {self.low}" if self.width == 1 else f"bits {self.high}:{self.low}"
        return f"{self.name} ({bits})"

    def __str__(self) -> str:
        return f"{self.owner} {self.label}"

    def encode(self, value: object) -> int:
        """Return the bits of the register that say `value`, or raise `RegisterValueError`."""
        if self.kind and isinstance(value, self.kind):
            value = value.value
        return to_number(value, self.width, self) << self.low

    def show(self, raw: int) -> str:
        """Return `name=content` of a register that holds `raw`."""
        number = (raw & self.mask) >> self.low
        names = [member.name for member in self.kind or () if member.value == number]
        shown = f"{number}" if number < 10 else f"{number:#x}"
        return f"{self.name}={(names or [shown])[0]}"

    if TYPE_CHECKING:

        @overload
        def __get__(self, value: None, owner: type | None = None, /) -> Self: ...
        @overload
        def __get__(self, value: Register, owner: type | None = None, /) -> T_co: ...
        def __get__(self, value: Any, owner: type | None = None, /) -> Any: ...
        def __set__(self, value: Any, content: Never, /) -> None: ...


class Bit(Field[bool]):
    """A field of one bit."""

    def _getter(self) -> Callable[[Register], bool]:
        mask = self.mask
        return lambda value: value._raw & mask != 0


def bit(position: int, doc: str = "", /) -> Field[bool]:
    """Declare one bit: a bool."""
    return Bit(position, position, None, doc)


@overload
def field(high: int, low: int, doc: str = "", /) -> Field[int]: ...
@overload
def field(high: int, low: int, kind: type[K], doc: str = "", /) -> Field[K]: ...
def field(high: int, low: int, kind: type[Enum] | str = "", doc: str = "", /) -> Field[Any]:
    """Declare bits `high` down to `low`: an int, or a member of the enum `kind`.

    A number that `kind` does not know is read as that int: hardware may be newer than its table.
    """
    if isinstance(kind, str):
        return Field(high, low, None, kind)
    if not issubclass(kind, Enum) or issubclass(kind, Flag):
        raise LayoutError(
            f"field({high}, {low}): {kind.__name__} is no Enum of exclusive values; "
            "declare flags as one bit each"
        )
    for member in kind:
        if not isinstance(member.value, int) or not 0 <= member.value < 1 << high - low + 1:
            raise LayoutError(f"field({high}, {low}): {member!r} does not fit")
    return Field(high, low, kind, doc)


class Register(metaclass=Table):
    """A value of a register: `Status(0x80)`, `Status(computing=True)`; other fields are 0.

    Subclasses declare the fields; they have 32 bits unless they say `width=`. Raises
    `RegisterValueError` for a number that does not fit and a field that does not exist.
    """

    __slots__ = ("_raw",)
    RESERVED = frozenset({"timeout", "interval"})  # keywords of `wait` beside the fields
    WIDTH: ClassVar[int] = 32
    DEFINED: ClassVar[int] = 0
    FIELDS: ClassVar[Mapping[str, Field[Any]]] = {}
    _raw: int

    def __init_subclass__(cls, *, width: int | None = None) -> None:
        cls.WIDTH = width or cls.WIDTH
        if cls.WIDTH not in {8, 16, 32, 64}:
            raise LayoutError(f"{cls.__name__}: width={cls.WIDTH}, but it is 8, 16, 32 or 64")
        cls.FIELDS = {**cls.FIELDS, **entries(cls, Field)}
        spans = [Span(each.low, each.high + 1, each.label) for each in cls.FIELDS.values()]
        check_spans(cls.__name__, spans, cls.WIDTH, "bits")
        cls.DEFINED = sum(each.mask for each in cls.FIELDS.values())

    def __init__(self, raw: SupportsIndex = 0, /, **fields: Any) -> None:
        mask, bits = self.encode(fields)
        self._raw = to_number(raw, self.WIDTH, type(self).__name__) & ~mask | bits

    @classmethod
    def encode(cls, fields: Mapping[str, object]) -> tuple[int, int]:
        """Return which bits the named fields are, and what these bits hold for their values."""
        mask = bits = 0
        for name, value in fields.items():
            each = cls.FIELDS.get(name)
            if each is None:
                raise RegisterValueError(cls._unknown(name))
            mask |= each.mask
            bits |= each.encode(value)
        return mask, bits

    @classmethod
    def _unknown(cls, name: str) -> str:
        close = [f"did you mean {each}?" for each in get_close_matches(name, cls.FIELDS, 1)]
        known = ", ".join(each.label for each in cls.FIELDS.values()) or "none"
        return "; ".join([f"{cls.__name__} has no field {name}", *close, f"its fields: {known}"])

    @property
    def raw(self) -> int:
        """The whole register."""
        return self._raw

    def replace(self, **fields: Any) -> Self:
        """Return the same value but for these fields."""
        return type(self)(self._raw, **fields)

    def __int__(self) -> int:
        return self._raw

    def __bool__(self) -> bool:
        return self._raw != 0

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and int(other) == self._raw

    def __hash__(self) -> int:
        return hash((type(self), self._raw))

    def __repr__(self) -> str:
        number = f"{self._raw:#0{self.WIDTH // 4 + 2}x}"
        return f"{type(self).__name__}({' '.join([number, *self.shown()])})"

    def shown(self) -> list[str]:
        """Return `name=content` of each field, in the order of the table."""
        return [each.show(self._raw) for each in self.FIELDS.values()]
