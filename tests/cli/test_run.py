"""A driver's verbs on the model, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from uspace_drv.cli.values import hex_dump

Uspace = Callable[..., Result]
EDU = ("run", "edu", "virtual:edu")


def test_a_result_and_nothing_else(uspace: Uspace) -> None:
    result = uspace(*EDU, "factorial", "5")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "120\n", "")


def test_options_may_stand_anywhere(uspace: Uspace) -> None:
    before = uspace("run", "--irq", "intx", "edu", "virtual:edu", "factorial", "0x5")
    between = uspace("run", "edu", "--irq", "intx", "virtual:edu", "factorial", "5")
    after = uspace(*EDU, "factorial", "--timeout", "2", "5", "--irq", "intx")
    assert before.stdout == between.stdout == after.stdout == "120\n"


def test_the_way_to_signal_is_taken_seriously(uspace: Uspace) -> None:
    result = uspace(*EDU, "factorial", "5", "--irq", "msix")
    assert result.exit_code == 1
    assert "no msix interrupts through virtual; it offers intx, msi" in result.stderr


def test_registers_print_themselves(uspace: Uspace) -> None:
    assert uspace(*EDU, "identify").stdout == "Ident(0x010000ed major=1 minor=0 magic=0xed)\n"


def test_json(uspace: Uspace) -> None:
    assert json.loads(uspace(*EDU, "identify", "--json").stdout) == {
        "driver": "edu",
        "address": "virtual:edu",
        "verb": "identify",
        "result": {"value": "0x010000ed", "fields": {"major": 1, "minor": 0, "magic": 237}},
    }
    assert json.loads(uspace(*EDU, "load", "--size", "2", "--json").stdout)["result"] == "0000"
    assert json.loads(uspace(*EDU, "self_test", "--json").stdout)["result"] is None


def test_bytes_go_into_a_pipe_as_they_are(uspace: Uspace) -> None:
    assert uspace(*EDU, "load", "--size", "3").stdout_bytes == b"\0\0\0"


def test_bytes_on_a_terminal_are_a_hex_dump() -> None:
    assert list(hex_dump(b"A\0" + bytes(range(14)) + b"B" * 33)) == [
        "00000000  41 00 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d  |A...............|",
        "00000010  42 42 42 42 42 42 42 42 42 42 42 42 42 42 42 42  |BBBBBBBBBBBBBBBB|",
        "*",
        "00000030  42                                               |B|",
        "00000031",
    ]


def test_nothing_is_printed_for_nothing(uspace: Uspace) -> None:
    result = uspace(*EDU, "store", "text:hello")
    assert (result.exit_code, result.stdout) == (0, "")


def test_without_a_verb_they_are_listed(uspace: Uspace) -> None:
    result = uspace(*EDU)
    assert result.exit_code == 0
    assert "factorial  Compute n! modulo 2**32." in result.stdout
    assert "probe" not in result.stdout


def test_help_of_a_verb(uspace: Uspace) -> None:
    text = uspace(*EDU, "factorial", "--help").stdout
    assert text.startswith("Usage: uspace run edu virtual:edu factorial [OPTIONS] N\n")
    assert "--timeout NUMBER" in text
    assert "[default: 1.0]" in text


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("run", "edo", "virtual:edu"), 2, "no driver is called 'edo'; did you mean edu?"),
        ((*EDU, "factoral", "5"), 2, "no verb is called 'factoral'; did you mean factorial?"),
        (("run", "edu", "nonsense", "factorial", "5"), 1, "error: 'nonsense' is not a device"),
        (("run", "edu", "virtual:nope", "identify"), 1, "error: no driver is called 'nope'"),
        ((*EDU, "factorial", "--", "-1"), 1, "error: virtual:edu bar 0 factorial (0x8): -0x1"),
        ((*EDU, "store", "00" * 4096), 1, "error: virtual:edu: 4096 bytes are more than"),
    ],
)
def test_errors(uspace: Uspace, words: tuple[str, ...], code: int, expected: str) -> None:
    result = uspace(*words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_dashes_are_fine(uspace: Uspace) -> None:
    assert uspace(*EDU, "is-alive").stdout == "True\n"
