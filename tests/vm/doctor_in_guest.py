"""The doctor's word against what the kernel does: each verdict is tried out, as root and as a user.

Runs in the guest alone: edu at 4, and edu and e1000 behind a bridge in one IOMMU group.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.backends.as_user import USER, as_user
from uspace_drv.cli import main
from uspace_drv.doctor import State, Verdict, diagnose
from uspace_drv.errors import UspaceError
from uspace_drv.opening import open_backend
from uspace_drv.pci.address import DeviceAddress, PciAddress
from uspace_drv.pci.binding import VFIO, Terms, bind, restore_all
from uspace_drv.pci.sysfs import DEVICES

EDU, BRIDGE, SHARED = "0000:00:04.0", "0000:00:06.0", "0000:01:01.0"
NOIOMMU = Path("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
WAYS = (
    *("vfio-cdev", "vfio-type1", "vfio-compat", "vfio-noiommu-cdev", "vfio-noiommu"),
    *("uio", "sysfs"),
)
EXPECTED = set(os.environ["WORKING_WAYS"].split())

Ask = Callable[[Callable[[], Any]], Any]


def as_root(work: Callable[[], Any]) -> Any:
    return work()


def as_other(work: Callable[[], Any]) -> Any:
    work()  # loads all modules; what the user may read is not much
    there, here = os.pipe()
    assert as_user(lambda: os.write(here, json.dumps(work()).encode()))
    os.close(here)
    with os.fdopen(there, "rb") as answer:
        return json.load(answer)


@pytest.fixture(params=[as_root, as_other], ids=["root", "user"])
def ask(request: pytest.FixtureRequest) -> Ask:
    found: Ask = request.param
    return found


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    assert [each for each in restore_all() if isinstance(each, Exception)] == []
    if NOIOMMU.exists():
        NOIOMMU.write_text("0")
    for path in Path(f"{DEVICES}/{EDU}").iterdir():
        os.chown(path, 0, 0)


def verdicts(ask: Ask, address: str) -> dict[str, Verdict]:
    def examine() -> list[dict[str, Any]]:
        found = diagnose(where=DeviceAddress.parse(address)).as_data()["ways"]
        return list(found)

    return {
        each["way"]: Verdict(
            each["way"], State[each["verdict"].upper()], tuple(each["why"]), tuple(each["lines"])
        )
        for each in ask(examine)
    }


def refusal(ask: Ask, address: str, way: str) -> str | None:
    """Open it, and say why that did not go."""

    def attempt() -> str | None:
        try:
            with closing(open_backend(address, via=way)):
                return None
        except UspaceError as error:
            return f"{type(error).__name__}: {error}"

    answer: str | None = ask(attempt)
    return answer


@pytest.fixture
def _bridge_as_it_was() -> Iterator[None]:
    """What was unbound by hand is no matter of `restore`."""
    driver = Path(f"{DEVICES}/{BRIDGE}/driver")
    before = driver.resolve() if driver.exists() else None
    yield
    if before is not None and not driver.exists():
        (before / "bind").write_text(BRIDGE)


def type_in(lines: tuple[str, ...]) -> None:
    """The guest has no sudo, and needs none."""
    for line in lines:
        words = line.replace("sudo ", "")
        if words.startswith("uspace "):  # here a new python takes seconds to start
            result = CliRunner().invoke(main, words.split()[1:], prog_name="uspace")
            assert result.exit_code == 0, result.output
        else:
            subprocess.run(["/bin/sh", "-c", words], check=True, timeout=60)


def do_our_best(ask: Ask, address: str) -> None:
    """All that might make a way work after all that is said to be none."""
    if NOIOMMU.exists():
        NOIOMMU.write_text("1")
    user = None if ask is as_root else str(USER)
    try:
        bind(PciAddress.parse(address), VFIO, Terms(user=user))
    except UspaceError as error:
        print(f"not bound: {error}")


@pytest.mark.parametrize("way", WAYS)
def test_the_verdict_is_true(ask: Ask, way: str) -> None:
    verdict = verdicts(ask, EDU)[way]
    reason = refusal(ask, EDU, way)
    print(way, verdict, reason)
    assert (reason is None) is (verdict.state is State.WORKS)
    if verdict.state is State.CANNOT:
        do_our_best(ask, EDU)
        assert refusal(ask, EDU, way) is not None
        return
    type_in(verdict.lines)
    assert refusal(ask, EDU, way) is None
    assert verdicts(ask, EDU)[way].state is State.WORKS
    assert way in EXPECTED


def test_it_misses_no_way() -> None:
    found = verdicts(as_root, EDU)
    assert {way for way, each in found.items() if each.state is not State.CANNOT} == EXPECTED


@pytest.mark.usefixtures("_bridge_as_it_was")
@pytest.mark.skipif("vfio-type1" not in EXPECTED, reason="this kernel has no IOMMU")
def test_siblings_are_named(ask: Ask) -> None:
    verdict = verdicts(ask, SHARED)["vfio-type1"]
    assert "0000:01:02.0 (e1000)" in " ".join(verdict.why)
    type_in(verdict.lines[-1:])
    assert "is shared with" in (refusal(ask, SHARED, "vfio-type1") or "")
    type_in(verdict.lines)
    assert refusal(ask, SHARED, "vfio-type1") is None
    assert verdicts(ask, SHARED)["vfio-type1"].state is State.WORKS


@pytest.mark.parametrize("words", [(), (EDU,), ("--json",)])
def test_the_command(ask: Ask, words: tuple[str, ...]) -> None:
    def run() -> tuple[int, str]:
        result = CliRunner().invoke(main, ["doctor", *words], prog_name="uspace")
        return result.exit_code, result.output

    code, output = ask(run)
    print(output)
    assert code == 0
    assert "vfio-type1" in output
