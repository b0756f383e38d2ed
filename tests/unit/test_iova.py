"""Where mappings go: never over one another, always inside, a freed place rests."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as some

from uspace_drv.errors import HostError
from uspace_drv.iova import IovaAllocator
from uspace_drv.port import Iova, IovaRange

PAGE = 0x1000
MIB = 1 << 20
ANYTHING = [IovaRange(0, (1 << 64) - 1)]


def allocator(ranges: list[IovaRange] = ANYTHING, reach: int = (1 << 64) - 1) -> IovaAllocator:
    return IovaAllocator(ranges, PAGE, reach, "bell")


def test_page_zero_is_nobodys_and_the_rest_follows_in_order() -> None:
    iovas = allocator()
    assert [iovas.alloc(size) for size in (PAGE, 3 * PAGE, PAGE)] == [PAGE, 2 * PAGE, 5 * PAGE]


def test_freed_place_rests_until_the_end_was_reached() -> None:
    iovas = allocator(reach=5 * PAGE - 1)
    first = iovas.alloc(PAGE)
    iovas.give_back(first, PAGE)
    assert [iovas.alloc(PAGE) for _ in range(4)] == [2 * PAGE, 3 * PAGE, 4 * PAGE, first]


@pytest.mark.parametrize("bits", [13, 28, 32])
def test_reach_of_the_device_is_the_end(bits: int) -> None:
    iovas = allocator(reach=(1 << bits) - 1)
    assert iovas.alloc((1 << bits) - PAGE) == PAGE
    with pytest.raises(HostError) as caught:
        iovas.alloc(PAGE)
    assert str(caught.value) == (
        f"bell: no 0x1000 bytes of IOVA are free up to {(1 << bits) - 1:#x}; "
        "1 mappings exist: close some"
    )


def test_more_than_there_can_be() -> None:
    with pytest.raises(HostError, match="0 mappings exist: ask for less"):
        allocator(reach=(1 << 28) - 1).alloc(1 << 28)
    with pytest.raises(HostError):
        allocator(reach=0xFFF).alloc(PAGE)


def test_holes_of_the_host_are_left_out() -> None:
    hole = [IovaRange(0, 0x2FFF), IovaRange(0x5800, 0x8FFF)]
    iovas = allocator(hole)
    assert [iovas.alloc(PAGE) for _ in range(4)] == [0x1000, 0x2000, 0x6000, 0x7000]


@dataclass
class Twin:
    """The slow and obvious way: a set of the pages that are taken."""

    usable: set[int]
    taken: dict[int, int] = field(default_factory=dict)

    def pages(self) -> set[int]:
        return {page for iova, size in self.taken.items() for page in range(iova, iova + size)}

    def fits(self, size: int) -> bool:
        free = self.usable - self.pages()
        return any(all(page + n in free for n in range(size)) for page in free)


sizes = some.integers(1, 6)
halves = some.integers(0, 0x60).map(lambda count: count * PAGE // 2)
bounds = some.lists(halves, min_size=2, max_size=6, unique=True).map(sorted)
steps = some.lists(some.one_of(sizes, some.none()), max_size=60)


@given(bounds, some.integers(0, 0x30 * PAGE), steps, some.randoms(use_true_random=False))
def test_against_the_twin(
    edges: list[int], reach: int, plan: list[int | None], luck: object
) -> None:
    ranges = [IovaRange(*edges[n : n + 2]) for n in range(0, len(edges) - 1, 2)]
    iovas = allocator(ranges, reach)
    twin = Twin(
        {
            page
            for each in ranges
            for page in range(1, 0x31)
            if each.start <= page * PAGE and (page + 1) * PAGE - 1 <= min(each.end, reach)
        }
    )
    for step in plan:
        if step is None:
            if twin.taken:
                iova = luck.choice(sorted(twin.taken))  # type: ignore[attr-defined]
                iovas.give_back(Iova(iova * PAGE), twin.taken.pop(iova) * PAGE)
            continue
        try:
            found = iovas.alloc(step * PAGE)
        except HostError:
            assert not twin.fits(step)
            continue
        assert found % PAGE == 0
        wanted = set(range(found // PAGE, found // PAGE + step))
        assert wanted <= twin.usable - twin.pages()
        twin.taken[found // PAGE] = step


@given(some.lists(sizes, min_size=1, max_size=20))
def test_nothing_is_handed_out_again_before_the_end_was_reached(plan: list[int]) -> None:
    iovas = allocator()
    ends = [0]
    for size in plan:
        found = iovas.alloc(size * PAGE)
        assert found >= ends[-1]
        ends.append(found + size * PAGE)
        iovas.give_back(found, size * PAGE)


def test_thousands_of_mappings() -> None:
    iovas = allocator()
    taken = [iovas.alloc(PAGE) for _ in range(20_000)]
    assert taken == list(range(PAGE, 20_001 * PAGE, PAGE))
    for iova in taken[::2] + taken[1::2]:
        iovas.give_back(iova, PAGE)
    assert iovas.count == 0


def first_place(free: list[tuple[int, int]], size: int, address: int, unit: int) -> int | None:
    """The lowest place in `free` (start and end) that is as far into a `unit` as the address."""
    for start, end in free:
        place = start + (address - start) % unit
        if place + size <= end:
            return place
    return None


def gaps(ranges: list[IovaRange], reach: int, taken: dict[int, int]) -> list[tuple[int, int]]:
    """What is free, as start and end."""
    found = []
    for each in ranges:
        at, end = max(PAGE, each.start), min(each.end, reach) + 1
        for iova, size in sorted(taken.items()):
            if at <= iova < end:
                found.append((at, iova))
                at = iova + size
        found.append((at, end))
    return found


def whole_ones(address: int, size: int, unit: int) -> int:
    """How many units, each at a multiple of its size, are in the memory."""
    return (address + size) // unit - -(-address // unit)


page_counts = some.one_of(
    sizes, some.sampled_from([511, 512, 513, 1023, 4096, 1 << 18]), some.integers(1, 1 << 19)
)
memory = some.tuples(page_counts, some.integers(0, 1 << 20))


@given(
    some.sampled_from([23, 28, 32, 39, 64]),
    some.sampled_from([0, MIB, 40 * MIB, 3 << 30]),
    some.lists(some.one_of(memory, some.none()), max_size=40),
    some.randoms(use_true_random=False),
)
def test_huge_pages_lie_as_in_memory_where_they_can(
    bits: int, hole: int, plan: list[tuple[int, int] | None], luck: object
) -> None:
    ranges = [IovaRange(0, 0x7F_FFFF), IovaRange(0x80_0000 + hole, (1 << 64) - 1)]
    reach = (1 << bits) - 1
    iovas = allocator(ranges, reach)
    taken: dict[int, int] = {}
    for step in plan:
        if step is None:
            if taken:
                iova = luck.choice(sorted(taken))  # type: ignore[attr-defined]
                iovas.give_back(Iova(iova), taken.pop(iova))
            continue
        size, address = step[0] * PAGE, step[1] * PAGE
        free = gaps(ranges, reach, taken)
        unit = next(
            (
                unit
                for unit in (1 << 30, 2 * MIB)
                if whole_ones(address, size, unit) > 0
                and first_place(free, size, address, unit) is not None
            ),
            PAGE,
        )
        try:
            found = iovas.alloc(size, address)
        except HostError:
            assert first_place(free, size, 0, PAGE) is None
            continue
        assert (found - address) % unit == 0
        assert any(start <= found and found + size <= end for start, end in free)
        taken[found] = size


@pytest.mark.parametrize(
    ("size", "address", "expected"),
    [
        (2 * MIB, 0, 2 * MIB),
        (2 * MIB, 0x7F12_3400_0000, 2 * MIB),
        (4 * MIB, 0x7F12_341F_F000, 2 * MIB - PAGE),  # holds one, and begins a page before it
        (2 * MIB, PAGE, PAGE),  # holds none: packed as small pages are
        (2 * MIB - PAGE, 0, PAGE),
        (1 << 30, 0x7F00_0000_0000, 1 << 30),
        (1 << 30, 0x7F00_0020_0000, 2 * MIB),
    ],
)
def test_places_for_huge_pages(size: int, address: int, expected: int) -> None:
    assert allocator().alloc(size, address) == expected


def test_a_small_space_is_packed_rather_than_refused() -> None:
    iovas = allocator(reach=4 * MIB - 1)
    assert iovas.alloc(2 * MIB) == 2 * MIB
    assert iovas.alloc(2 * MIB - PAGE) == PAGE
    iovas = allocator(reach=4 * MIB - 1)
    assert iovas.alloc(4 * MIB - PAGE) == PAGE
    iovas = allocator(reach=6 * MIB - 1)
    assert [iovas.alloc(MIB) for _ in range(2)] == [PAGE, PAGE + MIB]
    assert iovas.alloc(2 * MIB) == 4 * MIB
    assert iovas.alloc(2 * MIB - 2 * PAGE) == PAGE + 2 * MIB  # the gap that was left


def test_last_page_of_all() -> None:
    iovas = allocator([IovaRange((1 << 64) - 2 * PAGE, (1 << 64) - 1)])
    assert [iovas.alloc(PAGE), iovas.alloc(PAGE)] == [(1 << 64) - 2 * PAGE, (1 << 64) - PAGE]
    with pytest.raises(HostError, match="2 mappings exist"):
        iovas.alloc(PAGE)


def test_what_was_not_taken_cannot_be_given_back() -> None:
    iovas = allocator()
    first = iovas.alloc(2 * PAGE)
    for iova, size in ((first, PAGE), (first + PAGE, PAGE), (5 * PAGE, PAGE), (first, 0)):
        with pytest.raises(ValueError, match="was not taken"):
            iovas.give_back(iova, size)
    with pytest.raises(ValueError, match="a size of 0"):
        iovas.alloc(0)
