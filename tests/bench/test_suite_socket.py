from __future__ import annotations

import os
import shutil
import socket as sockets
from pathlib import Path
from threading import Thread

import psutil
import pytest

from uspace_drv.bench import Comparison, Figure, Setting
from uspace_drv.bench.suites import echo_process, socket
from uspace_drv.bench.suites.echo import bare_round_trips
from uspace_drv.bench.suites.processors import Place
from uspace_drv.bench.suites.served import serve
from uspace_drv.bench.suites.socket_models import Plain
from uspace_drv.errors import HostError
from uspace_drv.native import Channel
from uspace_drv.vfiouser.numbers import Flag

TINY = 0.005
HERE = Place(min(os.sched_getaffinity(0)), min(os.sched_getaffinity(0)))

pytestmark = pytest.mark.usefixtures("nothing_left", "no_child_left")


def measure(comparison: Comparison) -> None:
    before = os.sched_getaffinity(0)
    for name, way in comparison.ways.items():
        sample = way()
        assert sample.operations > 0, name
        assert 0 < sample.figure(comparison.figure) < 1e8, name
        if comparison.figure is Figure.LATENCY:
            assert sample.latencies is not None
            assert sample.latencies.count == sample.operations
    assert os.sched_getaffinity(0) == before


def one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "places", lambda: [HERE])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_the_quick_ones_are_one_core_and_two_that_poll() -> None:
    setting = Setting(seconds=TINY, quick=True)
    names = []
    for comparison in socket.suite.compare(setting):
        names.append(comparison.name)
        measure(comparison)
    assert names == [
        "round trip, one core",
        "posted write, one core",
        "round trip, two cores, busy-polled",
        "posted write, two cores, busy-polled",
    ]
    assert [each.what for each in setting.skipped if shutil.which("cc")] == []


def test_all_of_them_with_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    one_processor(monkeypatch)
    setting = Setting(seconds=TINY)
    names = []
    for comparison in socket.suite.compare(setting):
        names.append(comparison.name)
        measure(comparison)
    assert names == [
        "round trip, one core",
        "posted write, one core",
        "read of a mapped BAR",
        "start of a server",
    ]
    assert [each.what for each in setting.skipped if shutil.which("cc")] == ["two cores"]


def test_without_a_compiler_the_echo_is_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> Path:
        raise HostError("no cc; run: apt-get install gcc")

    one_processor(monkeypatch)
    monkeypatch.setattr(socket, "compile_floor", no_compiler)
    setting = Setting(seconds=TINY, quick=True)
    comparisons = socket.suite.compare(setting)
    comparison = next(comparisons)
    assert comparison.baseline == socket.ECHO
    assert list(comparison.ways) == [socket.ECHO, socket.SERVED]
    assert (socket.BARE, "no cc; run: apt-get install gcc") in [
        (each.what, each.why) for each in setting.skipped
    ]
    comparisons.close()  # type: ignore[attr-defined]


def test_whoever_stops_early_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    one_processor(monkeypatch)
    comparisons = socket.suite.compare(Setting(seconds=TINY, quick=True))
    next(comparisons)
    assert len(psutil.Process().children()) == 2  # the echo and the model
    comparisons.close()  # type: ignore[attr-defined]


def test_a_floor_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho recv: no >&2\nexit 1\n")
    program.chmod(0o755)
    way = bare_round_trips(Setting(seconds=TINY), program, HERE, 0.0)
    with pytest.raises(HostError, match="broken: failed: recv: no"):
        way()


def test_the_echo_answers_what_wants_an_answer_and_ends_with_its_client() -> None:
    near, far = sockets.socketpair()
    words = [str(HERE.theirs), str(far.detach()), "0.0"]
    thread = Thread(target=echo_process.main, args=[words])
    thread.start()
    client = Channel("test", near.detach(), echo_process.MOST_BYTES, 0)
    client.send(1, 9, Flag.NO_REPLY, 0, b"dropped")
    answer = client.exchange(2, 10, b"taken", (), 5.0)
    assert answer is not None
    assert (answer.id, answer.command, answer.payload) == (2, 10, b"taken")
    client.close()
    thread.join(5.0)
    assert not thread.is_alive()


def test_a_write_that_does_not_arrive_is_an_error() -> None:
    class Forgetful:
        name = "forgetful"

        def write32(self, offset: int, value: int) -> None:
            pass

        def read32(self, offset: int) -> int:
            return 7

    way = socket._posted_writes(Setting(seconds=TINY), Forgetful())  # type: ignore[arg-type]
    with pytest.raises(HostError, match="the last of 1000 writes did not arrive: reads 7"):
        way()


def test_an_echo_that_is_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "PATIENCE", 0.01)
    near, far = sockets.socketpair()
    with far:
        channel = Channel("silent", near.detach(), 4096, 0)
        with pytest.raises(HostError, match=r"silent: no answer within 0\.01 s"):
            socket._exchange(channel, 0.0)
        channel.close()


def test_a_quiet_server_says_why_it_did_not_start(capfd: pytest.CaptureFixture[str]) -> None:
    class Nowhere(Plain):
        """No other process can import it."""

    with pytest.raises(HostError, match=r"its reason is: .*Nowhere") as caught:
        serve(Nowhere, HERE.theirs).__enter__()
    assert "uspace serve" in str(caught.value)
    assert capfd.readouterr().err == ""
