"""A driver's signatures as command lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from uspace_drv import Direction, Driver, Iova, interrupt
from uspace_drv.cli.run import Verbs
from uspace_drv.cli.verbs import verbs_of

if TYPE_CHECKING:
    from decimal import Decimal


class Speed(Enum):
    SLOW = 1
    FAST = 2


@dataclass
class Counters:
    good: int
    bad: int


class Ancestor(Driver):
    def inherited(self) -> str:
        """Comes from a class between."""
        return "inherited"


class Sample(Ancestor):
    """Takes every kind of argument."""

    limit = 3

    def probe(self) -> None: ...

    def resume(self) -> None: ...

    def show(self, n: int, share: float, flag: bool, data: bytes, name: str = "x") -> str:
        """Show what arrived.

        And more.
        """
        return f"{n!r} {share!r} {flag!r} {data!r} {name!r}"

    def tune(
        self,
        *steps: int,
        speed: Speed = Speed.SLOW,
        quiet: bool = False,
        where: Iova | None = None,
        mode: Literal["a", "b"] = "a",
        folder: Path = Path(),
    ) -> str:
        return f"{steps} {speed.name} {quiet} {where} {mode} {folder}"

    def need(self, *, very_much: int) -> int:
        return very_much

    def way(self, direction: Direction) -> Direction:
        return direction

    def count(self, to: int) -> Iterator[int]:
        yield from range(to)

    def counters(self) -> Counters:
        return Counters(good=2, bad=0)

    def array(self) -> npt.NDArray[np.uint8]:
        return np.arange(3, dtype=np.uint8)

    def rows(self) -> list[dict[str, Speed]]:
        return [{"speed": Speed.FAST}]

    def impossible(self, device: Driver) -> None: ...

    def unloaded(self, price: Decimal) -> None: ...

    def via(self, via: str = "own") -> str:
        return via

    async def later(self) -> None: ...

    @interrupt(0)
    def on_interrupt(self) -> None: ...

    @property
    def colour(self) -> str:
        return "red"

    def _private(self) -> None: ...


def run(*words: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(Verbs("sample", Sample, "virtual:edu"), words, input=stdin)


def test_verbs_are_public_methods_and_nothing_else() -> None:
    assert list(verbs_of(Sample)) == [
        *("inherited", "show", "tune", "need", "way", "count", "counters", "array", "rows"),
        *("impossible", "unloaded", "via"),
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["5", "0.5", "true", "beef"], r"5 0.5 True b'\xbe\xef' 'x'"),
        (["0x1f", "2", "no", "text:hi", "--name", "y"], "31 2.0 False b'hi' 'y'"),
        (["--name", "y", "0b11", "1e-3", "on", "0x00 01"], r"3 0.001 True b'\x00\x01' 'y'"),
        (["--", "-7", "-1.5", "off", ""], "-7 -1.5 False b'' 'x'"),
    ],
)
def test_arguments_are_typed(words: list[str], expected: str) -> None:
    assert run("show", *words).stdout == f"{expected}\n"


def test_bytes_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\x00\xff")
    rest = ["1", "1", "on"]
    assert r"b'\x00\xff'" in run("show", *rest, f"@{tmp_path}/data").stdout
    assert r"b'\x01in'" in run("show", *rest, "@-", stdin=b"\x01in").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "() SLOW False None a ."),
        (["1", "0x2", "--speed", "FAST", "--quiet"], "(1, 2) FAST True None a ."),
        (["--no-quiet", "--where", "0x1000", "--mode", "b"], "() SLOW False 4096 b ."),
        (["--folder", "/tmp"], "() SLOW False None a /tmp"),
    ],
)
def test_options_are_typed(words: list[str], expected: str) -> None:
    assert run("tune", *words).stdout == f"{expected}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "five", "1", "on", ""], "'five' is not an integer like 5 or 0x1f"),
        (["show", "5", "much", "on", ""], "'much' is not a number like 2 or 0.5"),
        (["show", "5", "1", "maybe", ""], "'maybe' is neither true nor false"),
        (["show", "5", "1", "on", "hello"], "is not hexadecimal; give deadbeef, text:hello or @"),
        (["show", "5", "1", "on", "@/none"], "cannot read /none: No such file or directory"),
        (["show", "5", "1", "on"], "Missing argument 'DATA'"),
        (["tune", "--speed", "medium"], "'medium' is not one of slow|fast"),
        (["tune", "--spede", "fast"], "--spede"),
        (["need"], "Missing option '--very-much'"),
        (["impossible", "x"], "impossible cannot be run from here: no text stands for its device"),
        (["unloaded", "1"], "unloaded cannot be run from here: name 'Decimal' is not defined"),
        (["contuers"], "no verb is called 'contuers'; did you mean counters?"),
    ],
)
def test_wrong_usage_says_what_would_be_right(words: list[str], expected: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["need", "--very-much", "3"], "3\n"),
        (["way", "to_device"], "TO_DEVICE\n"),
        (["count", "3"], "0\n1\n2\n"),
        (["counters"], "good  2\nbad   0\n"),
        (["array"], "[0 1 2]\n"),
        (["rows"], "speed: FAST\n"),
        (["inherited"], "inherited\n"),
    ],
)
def test_results_for_people(words: list[str], expected: str) -> None:
    assert run(*words).stdout == expected


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("counters", '"result": {\n    "good": 2,\n    "bad": 0\n  }'),
        ("array", '"result": [\n    0,\n    1,\n    2\n  ]'),
        ("rows", '"speed": "FAST"'),
    ],
)
def test_results_for_programs(verb: str, expected: str) -> None:
    assert expected in run(verb, "--json").stdout


def test_help_of_a_verb_shows_arguments_and_defaults() -> None:
    text = run("show", "--help").stdout
    assert "[OPTIONS] N SHARE FLAG DATA" in text
    assert "DATA   bytes: deadbeef, text:WORDS, @FILE" in text
    assert "And more." in text
    text = " ".join(run("tune", "--help").stdout.split())
    assert "--speed SLOW|FAST one of slow|fast [default: (slow)]" in text


def test_an_option_of_the_verb_wins_over_one_of_the_session() -> None:
    assert run("via", "--via", "anything").stdout == "anything\n"
