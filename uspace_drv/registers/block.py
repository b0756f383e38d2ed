"""A block of registers: where each lies and what may be done with it, bound to a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar, Unpack, overload

from uspace_drv.errors import LayoutError, RegisterValueError
from uspace_drv.registers.accessors import Clearable, Readable, ReadWrite, Window, Writable
from uspace_drv.registers.declaration import (
    Access,
    ArrayDeclaration,
    BlockEntry,
    Declaration,
    Options,
)
from uspace_drv.registers.table import Table, check_spans, entries
from uspace_drv.registers.value import Register

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R", bound=Register)


@overload
def ro(
    offset: int, doc: str = "", /, **options: Unpack[Options]
) -> Declaration[Readable[int], int]: ...
@overload
def ro(
    offset: int, kind: type[R], doc: str = "", /, **options: Unpack[Options]
) -> Declaration[Readable[R], R]: ...
def ro(offset: int, *what: Any, **options: Any) -> Declaration[Any, Any]:
    """Declare a register that software only reads."""
    return Declaration(Readable, Access.RO, offset, *what, **options)


@overload
def rw(
    offset: int, doc: str = "", /, **options: Unpack[Options]
) -> Declaration[ReadWrite[int], int]: ...
@overload
def rw(
    offset: int, kind: type[R], doc: str = "", /, **options: Unpack[Options]
) -> Declaration[ReadWrite[R], R]: ...
def rw(offset: int, *what: Any, **options: Any) -> Declaration[Any, Any]:
    """Declare a register that software reads and writes."""
    return Declaration(ReadWrite, Access.RW, offset, *what, **options)


@overload
def wo(
    offset: int, doc: str = "", /, **options: Unpack[Options]
) -> Declaration[Writable[int], int]: ...
@overload
def wo(
    offset: int, kind: type[R], doc: str = "", /, **options: Unpack[Options]
) -> Declaration[Writable[R], R]: ...
def wo(offset: int, *what: Any, **options: Any) -> Declaration[Any, Any]:
    """Declare a register that software only writes."""
    return Declaration(Writable, Access.WO, offset, *what, **options)


@overload
def w1c(
    offset: int, doc: str = "", /, **options: Unpack[Options]
) -> Declaration[Clearable[int], int]: ...
@overload
def w1c(
    offset: int, kind: type[R], doc: str = "", /, **options: Unpack[Options]
) -> Declaration[Clearable[R], R]: ...
def w1c(offset: int, *what: Any, **options: Any) -> Declaration[Any, Any]:
    """Declare a register whose bits software reads, and clears by writing ones to them."""
    return Declaration(Clearable, Access.W1C, offset, *what, **options)


def array(first: Declaration[A, T], *, count: int, stride: int) -> ArrayDeclaration[A, T]:
    """Declare `count` registers like `first`, each `stride` bytes after the one before."""
    return ArrayDeclaration(first, count, stride)


class RegisterBlock(metaclass=Table):
    """The registers in `SIZE` bytes of a window, from `offset` on.

    On the class a register is its declaration, on an instance its accessor. Raises
    `RegisterValueError` for a window that is too small.
    """

    SIZE: ClassVar[int] = 0
    TABLE: ClassVar[Mapping[str, BlockEntry]] = {}

    def __init_subclass__(cls, *, size: int | None = None) -> None:
        cls.SIZE = cls.SIZE if size is None else size
        cls.TABLE = {**cls.TABLE, **entries(cls, BlockEntry)}
        if cls.SIZE < 1:
            raise LayoutError(f"{cls.__name__}: say how many bytes the block has: size=0x100")
        # What is only read and what is only written may share a place, and in old devices does.
        for right in ("readable", "writable"):
            spans = [each.span for each in cls.registers() if getattr(each.access, right)]
            check_spans(cls.__name__, spans, cls.SIZE, "bytes")

    def __init__(self, window: Window, offset: int = 0) -> None:
        if offset < 0 or offset + self.SIZE > window.size:
            raise RegisterValueError(
                f"{window.name}: {type(self).__name__} needs {self.SIZE:#x} bytes at "
                f"{offset:#x}, but the window has {window.size:#x}"
            )
        for name, entry in self.TABLE.items():
            vars(self)[name] = entry.bind(window, offset)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.TABLE:
            raise AttributeError(
                f"{type(self).__name__}.{name} is a register; write it by .{name}.write(…)"
            )
        super().__setattr__(name, value)

    @classmethod
    def registers(cls) -> Iterator[Declaration[Any, Any]]:
        """Return all registers in the order of the table, the elements of arrays one by one."""
        for entry in cls.TABLE.values():
            yield from entry.elements()
