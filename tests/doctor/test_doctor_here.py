"""The doctor on the machine that runs the tests, as who runs them and as nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from tests.backends.as_user import USER, as_user
from uspace_drv.cli import main

KEYS = {
    *("kernel", "machine", "user", "iommu", "candidates", "uio_nodes", "rights", "shared_groups"),
    *("function", "ways", "request"),
}
WAYS = [
    *("vfio-cdev", "vfio-type1", "vfio-compat", "vfio-noiommu-cdev", "vfio-noiommu"),
    *("uio", "uio-platform", "sysfs", "vfio-user", "virtual", "guest"),
]

WATCHED = """
import os, sys

def hook(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        print("WROTE", arguments)
    elif event in {"os.chmod", "os.chown", "os.remove", "os.rename", "os.mkdir"}:
        print("CHANGED", event, arguments)
    elif event in {"subprocess.Popen", "os.system", "os.exec", "fcntl.ioctl", "fcntl.flock"}:
        print("DID", event, arguments)

from uspace_drv.cli import main
sys.addaudithook(hook)
main(["doctor", *sys.argv[1:]])
"""


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["doctor", *words], prog_name="uspace")
    return result.exit_code, result.output


def check(found: dict[str, Any], code: int) -> None:
    assert set(found) == KEYS
    assert [each["way"] for each in found["ways"]] == WAYS
    for each in found["ways"]:
        assert each["verdict"] in {"works", "after", "cannot"}
        assert bool(each["lines"]) is (each["verdict"] == "after")
        assert each["why"] or each["verdict"] != "cannot"
    some = any(each["is_real"] and each["verdict"] != "cannot" for each in found["ways"])
    assert code == (0 if some else 1)
    assert {each["verdict"] for each in found["ways"][-3:-1]} == {"works"}


def test_here() -> None:
    code, output = run("--json")
    check(json.loads(output), code)
    assert json.loads(output)["user"]["number"] == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_a_user_without_rights() -> None:
    run()  # loads all modules
    there, here = os.pipe()

    def work() -> None:
        for words in ((), ("--json",)):
            code, output = run(*words)
        os.write(here, json.dumps([code, output]).encode())

    assert as_user(work)
    os.close(here)
    with os.fdopen(there, "rb") as answer:
        code, output = json.load(answer)
    found = json.loads(output)
    check(found, code)
    assert (found["user"]["number"], found["user"]["capabilities"]) == (USER, 0)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_nothing_is_changed(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, *words],
        text=True, capture_output=True, check=False, timeout=50,
    )  # fmt: skip
    assert "virtual" in done.stdout, done.stderr
    seen = [line for line in done.stdout.splitlines() if line.startswith(("WROTE", "CHAN", "DID"))]
    assert seen == []


def as_lines(command: Callable[..., tuple[int, str]], *words: str) -> list[str]:
    return command(*words)[1].splitlines()


def test_what_people_see() -> None:
    lines = as_lines(run)
    for way in WAYS:
        assert any(way in line for line in lines)
    assert not any("\x1b" in line for line in lines)  # no colours where nobody looks


def test_an_address_that_is_none() -> None:
    code, output = run("virtual:edu")
    assert code == 1
    assert "no hardware of this machine" in output
