"""Descriptors: structures in memory that a device reads and writes, as checked numpy dtypes.

Little-endian like PCI; `be16` and its like are for network protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, SupportsInt, TypeAlias, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from uspace_drv.errors import LayoutError, RegisterValueError
from uspace_drv.registers import Register
from uspace_drv.registers.table import Entry, Span, Table, check_spans, entries

T = TypeVar("T")
R = TypeVar("R", bound=Register)

Structures: TypeAlias = NDArray[np.void]
"""A structured array: `array["length"][3]`, `array[3]["length"]`."""


class Member(Entry, Generic[T]):
    """A member of a descriptor: `offset` and `size` in bytes, numpy `dtype` and `count`."""

    def __init__(self, code: str, offset: int, kind: type[T] | str, doc: str, count: int) -> None:
        self.offset = offset
        self.scalar = np.dtype(code)
        self.count = count
        self.kind = None if isinstance(kind, str) else cast("type[Register]", kind)
        self.doc = kind if isinstance(kind, str) else doc
        if count < 1:
            raise LayoutError(f"member at {offset:#x}: count={count}, but one is the least")
        if self.kind and self.scalar.itemsize * 8 != self.kind.WIDTH:
            seen = f"{self.kind.__name__} has {self.kind.WIDTH} bits"
            raise LayoutError(f"member at {offset:#x}: {self.scalar} for {seen}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """What one descriptor holds: the scalar, or `count` of them."""
        return self.scalar if self.count == 1 else np.dtype((self.scalar, self.count))

    @property
    def size(self) -> int:
        """Bytes."""
        return self.scalar.itemsize * self.count

    @property
    def span(self) -> Span:
        """The bytes that it covers."""
        label = f"{self.name} ({self.offset:#x}, {self.size} bytes)"
        return Span(self.offset, self.offset + self.size, label)

    def decode(self, number: SupportsInt) -> T:
        """Return the Python value of a number from an array: a `Register` value or an int."""
        return cast("T", self.kind(int(number)) if self.kind else int(number))


class _Scalar:
    """The declaring function of one scalar type: `u32(offset, Kind, "doc", count=…)`."""

    def __init__(self, code: str) -> None:
        self._code = code

    @overload
    def __call__(self, offset: int, doc: str = "", /, *, count: int = 1) -> Member[int]: ...
    @overload
    def __call__(
        self, offset: int, kind: type[R], doc: str = "", /, *, count: int = 1
    ) -> Member[R]: ...
    def __call__(
        self, offset: int, kind: type[Any] | str = "", doc: str = "", /, *, count: int = 1
    ) -> Member[Any]:
        """Declare a member `offset` bytes into the descriptor."""
        return Member(self._code, offset, kind, doc, count)


u8, u16, u32, u64 = (_Scalar(code) for code in ("u1", "<u2", "<u4", "<u8"))
i8, i16, i32, i64 = (_Scalar(code) for code in ("i1", "<i2", "<i4", "<i8"))
be16, be32, be64 = (_Scalar(code) for code in (">u2", ">u4", ">u8"))


class Layout(metaclass=Table):
    """A descriptor of `SIZE` bytes. Its class holds the members; memory is seen through `view`.

    Members lie on multiples of their own size and so does the end, unless `packed=True`.
    """

    SIZE: ClassVar[int] = 0
    MEMBERS: ClassVar[Mapping[str, Member[Any]]] = {}
    dtype: ClassVar[np.dtype[np.void]]

    def __init_subclass__(cls, *, size: int, packed: bool = False) -> None:
        cls.SIZE = size
        cls.MEMBERS = {**cls.MEMBERS, **entries(cls, Member)}
        if not cls.MEMBERS:
            raise LayoutError(f"{cls.__name__}: has no members")
        members = cls.MEMBERS.values()
        check_spans(cls.__name__, [each.span for each in members], size, "bytes")
        if not packed:
            cls._check_alignment()
        cls.dtype = np.dtype(
            {
                "names": list(cls.MEMBERS),
                "formats": [each.dtype for each in members],
                "offsets": [each.offset for each in members],
                "itemsize": size,
            }
        )

    @classmethod
    def _check_alignment(cls) -> None:
        for each in cls.MEMBERS.values():
            step = each.scalar.itemsize
            if each.offset % step or cls.SIZE % step:
                raise LayoutError(
                    f"{cls.__name__}: {each.span.label} lies across its natural alignment: "
                    f"offset and size={cls.SIZE} are multiples of {step}, or say packed=True"
                )

    @classmethod
    def view(cls, memory: Any) -> Structures:
        """Return contiguous memory (any buffer or array) as an array of these; nothing is copied.

        Raises `RegisterValueError` if its size in bytes is not a multiple of `SIZE`.
        """
        size = memoryview(memory).nbytes
        if size % cls.SIZE:
            raise RegisterValueError(
                f"{cls.__name__}: {size} bytes are no whole number of {cls.SIZE}-byte descriptors"
            )
        return np.frombuffer(memory, cls.dtype)

    @classmethod
    def array(cls, count: int) -> Structures:
        """Return `count` zeroed descriptors in ordinary memory."""
        return np.zeros(count, cls.dtype)
