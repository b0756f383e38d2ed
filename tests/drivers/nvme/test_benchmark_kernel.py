"""fio as the judge of the kernel's side: how it is run, what it says, and how it fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from uspace_drivers.nvme.benchmark import devices, kernel_side, suite
from uspace_drivers.nvme.benchmark.devices import find_disk
from uspace_drivers.nvme.benchmark.kernel_side import (
    ENGINES,
    IO_URING,
    latencies_of,
    read_by_kernel,
    require_fio,
    usable_engines,
)
from uspace_drivers.nvme.benchmark.work import ALL, QUICK, Work
from uspace_drivers.nvme.verbs.bench import Pattern
from uspace_drv import DeviceError, HostError
from uspace_drv.bench import Setting

SAID = Path(__file__).with_name("fio_output.txt").read_text()
"""What fio 3.33 printed after Ctrl-C, without the members that nobody reads."""

FAKE = """#!{python} -S
import os, signal, sys
folder = {folder!r}
def log(words):
    with open(folder + "/calls", "a") as file:
        file.write("\\n".join(words) + "\\n")
if sys.argv[1] == "--enghelp":
    print("Available IO engines:\\n\\tio_uring\\n\\tlibaio\\n\\tpsync")
    sys.exit()
def leave(number, frame):
    print(open(folder + "/said").read())
    sys.stdout.flush()
    os._exit({code})
signal.signal(signal.SIGINT, leave)
log(sys.argv[1:])
{trouble}
reads = 0
stat = os.open(folder + "/disk/stat", os.O_WRONLY)
sectors = int(sys.argv[[word[:5] for word in sys.argv].index("--bs=")][5:]) // 512
while True:
    reads += {step}
    # The disk takes little at once, so that the kernel makes many reads of each.
    os.pwrite(stat, b"%12d 0 %12d 0" % (1000 * reads, sectors * reads), 0)
    signal.sigtimedwait([], 0.001)
"""


class FakeFio:
    """A program called fio that reads nothing, and says what a real one said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "disk/queue").mkdir(parents=True)
        (folder / "disk/stat").write_text(f"{0:12} 0 {0:12} 0")
        (folder / "disk/queue/io_poll").write_text("1\n")
        (folder / "said").write_text(SAID)
        self.install()

    def install(self, *, trouble: str = "", step: int = 3, code: int = 128) -> None:
        program = self.folder / "bin/fio"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            FAKE.format(
                python=sys.executable,
                folder=str(self.folder),
                trouble=trouble,
                step=step,
                code=code,
            )
        )
        program.chmod(0o755)

    @property
    def words(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def fio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFio:
    fake = FakeFio(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(kernel_side, "BLOCK", tmp_path)
    monkeypatch.setattr(kernel_side, "WARM", 0.01)
    return fake


def test_the_latencies_that_fio_said() -> None:
    found = latencies_of(SAID)
    assert found.count == 133
    assert found.percentile(50) == pytest.approx(85504, rel=2e-3)
    assert found.percentile(99.9) == pytest.approx(3391488, rel=2e-3)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("{", "", "no JSON"),
        ('"bins"', '"bin"', "missing required field `bins`"),
        ('"total_ios": 133', '"total_ios": "many"', "Expected `int`, got `str`"),
        ('"error": 0', '"error": 5', "failed with error 5"),
    ],
)
def test_output_that_makes_no_sense(before: str, after: str, message: str) -> None:
    assert before in SAID
    with pytest.raises(HostError, match=message):
        latencies_of(SAID.replace(before, after))


def test_output_of_no_reads() -> None:
    with pytest.raises(HostError, match="counted no reads"):
        latencies_of('{"jobs": []}')


def test_a_sample_is_a_window_in_the_middle(fio: FakeFio) -> None:
    sample = read_by_kernel("disk", IO_URING, Work(32, queues=2), 0.05)
    assert sample.operations % 3 == 0
    assert 0.05 <= sample.seconds < 1
    assert sample.operations < sample.seconds * 3000 * 2
    assert sample.latencies is not None
    assert sample.latencies.count == 133
    assert sample.own is not None
    assert {
        "--readonly", "--direct=1", "--ioengine=io_uring", "--rw=randread", "--bs=4096",
        "--iodepth=32", "--randrepeat=0", "--numjobs=2", "--output-format=json+",
        "--filename=/dev/disk",
    } <= set(fio.words)  # fmt: skip


def test_what_an_engine_adds(fio: FakeFio) -> None:
    polled = next(each for each in ENGINES if each.polls)
    read_by_kernel("disk", polled, Work(8, 1 << 17, Pattern.SEQUENTIAL), 0.2)
    assert {"--hipri", "--fixedbufs", "--registerfiles", "--rw=read", "--bs=131072"} <= set(
        fio.words
    )


def test_fio_that_fails_at_once(fio: FakeFio) -> None:
    fio.install(trouble="sys.exit('fio: engine io_uring not loadable')")
    with pytest.raises(HostError, match="exit code 1: fio: engine io_uring not loadable"):
        read_by_kernel("disk", IO_URING, Work(1), 0.01)


def test_fio_that_fails_at_the_end(fio: FakeFio) -> None:
    fio.install(code=1)
    with pytest.raises(HostError, match=r"fio ended early, with exit code 1: .*terminating"):
        read_by_kernel("disk", IO_URING, Work(1), 0.01)


def test_fio_that_never_ends(fio: FakeFio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_side, "PATIENCE", 0.2)
    fio.install(trouble="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    with pytest.raises(HostError, match=r"(did not end within|has read nothing)"):
        read_by_kernel("disk", IO_URING, Work(1), 0.01)


def test_fio_that_reads_nothing(fio: FakeFio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_side, "PATIENCE", 0.1)
    fio.install(step=0)
    with pytest.raises(HostError, match=r"fio has read nothing within 0 s, or .*queue/iostats"):
        read_by_kernel("disk", IO_URING, Work(1), 0.01)


def test_a_disk_that_stops(fio: FakeFio) -> None:
    fio.install(
        trouble=(
            "os.pwrite(os.open(folder + '/disk/stat', os.O_WRONLY), b'%12d 0 %12d' % (9, 72), 0)\n"
            "while True: signal.pause()"
        )
    )
    with pytest.raises(DeviceError, match=r"answered no read within 0\.01 s"):
        read_by_kernel("disk", IO_URING, Work(1), 0.01)


def test_which_engines_there_are(fio: FakeFio) -> None:
    setting = Setting()
    assert usable_engines("disk", setting) == ENGINES
    assert setting.skipped == []
    (fio.folder / "disk/queue/io_poll").write_text("0\n")
    assert not any(each.polls for each in usable_engines("disk", setting))
    [skipped] = setting.skipped
    assert (skipped.what, "nvme.poll_queues=1" in skipped.why) == ("io_uring, polled", True)


def test_an_engine_that_fio_has_not(fio: FakeFio) -> None:
    program = fio.folder / "bin/fio"
    program.write_text(program.read_text().replace("\\n\\tlibaio", ""))
    setting = Setting()
    assert "libaio" not in [each.name for each in usable_engines("disk", setting)]
    assert setting.skipped[0].why == "this fio has no engine libaio"


def test_fio_that_does_not_say_its_engines(fio: FakeFio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_side, "PATIENCE", 0.05)
    program = fio.folder / "bin/fio"
    program.write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(HostError, match="fio --enghelp did not end within"):
        usable_engines("disk", Setting())


def test_no_fio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is looked at, even whether there is such a device."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="fio is not installed; run: apt-get install fio"):
        require_fio()
    with pytest.raises(HostError, match="apt-get install fio"):
        next(suite.compare(Setting(device="0000:ff:1f.7")))


def test_what_is_read_has_a_name() -> None:
    assert [work.name for work in ALL][::5] == [
        "4 KiB random reads, 1 at once",
        "4 KiB random reads, 32 at once in each of 2 queues",
    ]
    assert ALL[4].name == "128 KiB sequential reads, 8 at once"
    assert [work.axes for work in QUICK] == [{"depth": 1}, {"depth": 32}]
    assert ALL[-1].axes == {"depth": 32, "queues": 2}


@pytest.mark.parametrize(
    ("there", "disk"), [("nvme0n1", "nvme0n1"), ("nvme3c1n2", "nvme3n2")], ids=["plain", "paths"]
)
def test_the_disk_of_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, disk: str
) -> None:
    (tmp_path / "0000:00:04.0/nvme/nvme3" / there).mkdir(parents=True)
    (tmp_path / "0000:00:04.0/nvme/nvme3/power").mkdir()
    (tmp_path / disk).touch()
    monkeypatch.setattr(devices, "FUNCTIONS", tmp_path)
    monkeypatch.setattr(devices, "DEV", tmp_path)
    assert find_disk("0000:00:04.0") == disk


def test_a_function_without_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "FUNCTIONS", tmp_path)
    monkeypatch.setattr(devices, "PATIENCE", 0.0)
    with pytest.raises(HostError, match="the kernel has no disk of it"):
        find_disk("0000:00:04.0")
