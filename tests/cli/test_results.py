"""What verbs return, as it is printed: facts, tables, and plain numbers for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import pytest
from click.testing import CliRunner

from uspace_drv import Driver
from uspace_drv.cli.run import Verbs
from uspace_drv.verbs import Size, Unit

if TYPE_CHECKING:
    from decimal import Decimal


class Kind(Enum):
    FAST = 1


@dataclass
class Disk:
    id: int
    size: Size
    temperature: Annotated[int | None, Unit("C")] = None
    kind: Kind = Kind.FAST
    is_new: bool = True
    warnings: list[str] = field(default_factory=list)
    caches: tuple[Size, ...] = ()


@dataclass
class Priced:
    price: Decimal


DISKS = [
    Disk(1, 1 << 30),
    Disk(2, 512, 41, warnings=["hot", "worn"], is_new=False, caches=(1024, 4096)),
]


class Sample(Driver):
    """Returns every kind of thing."""

    def one(self) -> Disk:
        return DISKS[1]

    def many(self) -> list[Disk]:
        return DISKS

    def none(self) -> list[Disk]:
        return []

    def mixed(self) -> list[object]:
        return [DISKS[0], "text"]

    def priced(self) -> Priced:
        return Priced(3)  # type: ignore[arg-type] # nobody can look the type up at run time


def run(*words: str) -> str:
    result = CliRunner().invoke(Verbs("sample", Sample, "virtual:edu"), words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_one_is_facts() -> None:
    assert run("one").splitlines() == [
        "id           2",
        "size         512 B",
        "temperature  41 C",
        "kind         FAST",
        "is new       no",
        "warnings     hot",
        "             worn",
        "caches       1.0 KiB",
        "             4.0 KiB",
    ]


def test_many_are_a_table() -> None:
    assert run("many").splitlines() == [
        "id  size     temperature  kind  is new  warnings   caches",
        "1   1.0 GiB  -            FAST  yes     -          -",
        "2   512 B    41 C         FAST  no      hot, worn  1.0 KiB, 4.0 KiB",
    ]


def test_json_has_plain_numbers() -> None:
    found = json.loads(run("many", "--json"))["result"]
    assert (found[0]["size"], found[1]["temperature"]) == (1 << 30, 41)
    assert (found[0]["temperature"], found[0]["is_new"], found[1]["kind"]) == (None, True, "FAST")
    assert json.loads(run("none", "--json"))["result"] == []


@pytest.mark.parametrize(
    ("verb", "expected"),
    [("none", ""), ("mixed", f"{DISKS[0]}\ntext\n"), ("priced", "price  3\n")],
)
def test_what_is_no_table(verb: str, expected: str) -> None:
    assert run(verb) == expected
