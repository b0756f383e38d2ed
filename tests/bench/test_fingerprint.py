"""The fingerprint: from made-up machines, from this one, and that it does not say whose it is."""

from __future__ import annotations

import getpass
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from uspace_drv.bench import fingerprint as fingerprint_module
from uspace_drv.bench.fingerprint import fingerprint
from uspace_drv.doctor.observer import Observer

CPU = "sys/devices/system/cpu"
FILES = {
    "proc/cpuinfo": (
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"
        "model name\t: Fast CPU @ 3.00GHz\nstepping\t: 7\nmicrocode\t: 0x5\nflags\t\t: fpu\n"
    ),
    "proc/meminfo": "MemTotal:       16777216 kB\nHugePages_Free:  3\nHugepagesize:  2048 kB\n",
    "proc/cmdline": (
        "BOOT_IMAGE=/boot/vmlinuz root=UUID=1234-5678 ip=10.1.2.3 hostname=secret mitigations=off"
        " isolcpus=2-3 intel_iommu=on iommu.strict=0 nvme.poll_queues=4 quiet mem=/secret\n"
    ),
    f"{CPU}/smt/active": "1\n",
    f"{CPU}/isolated": "2-3\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
    f"{CPU}/intel_pstate/no_turbo": "1\n",
    f"{CPU}/vulnerabilities/mds": "Not affected\n",
    f"{CPU}/vulnerabilities/meltdown": "Mitigation: PTI\n",
    f"{CPU}/vulnerabilities/spectre_v2": "Vulnerable\n",
    "sys/devices/system/node/online": "0-1\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "sys/class/iommu/dmar0/uevent": "",
    "sys/class/iommu/dmar1/uevent": "",
    "sys/kernel/iommu_groups/5/type": "DMA-FQ\n",
    "sys/kernel/iommu_groups/5/devices/0000:01:00.0/x": "",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "64\n",
    "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x8086\n",
    "sys/bus/pci/devices/0000:01:00.0/device": "0x0a54\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x010802\n",
    "sys/bus/pci/devices/0000:01:00.0/current_link_speed": "8.0 GT/s PCIe\n",
    "sys/bus/pci/devices/0000:01:00.0/current_link_width": "4\n",
}


@pytest.fixture
def host(tmp_path: Path) -> Observer:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0/driver").symlink_to("../../drivers/nvme")
    return Observer(tmp_path)


def test_a_machine_in_words(host: Observer) -> None:
    facts = fingerprint("01:00.0", host=host).facts
    expected = {
        "processor": "Fast CPU @ 3.00GHz (cpu family 6, model 85, stepping 7, microcode 0x5)",
        "memory": "16.0 GiB",
        "frequency governor": "performance, intel_pstate, no turbo",
        "clock source": "tsc",
        "virtualisation": "none",
        "kernel options": (
            "mitigations=off isolcpus=2-3 intel_iommu=on iommu.strict=0 nvme.poll_queues=4"
        ),
        "mitigations": "meltdown: Mitigation: PTI | spectre_v2: Vulnerable",
        "IOMMU": "dmar, DMA-FQ",
        "huge pages": "64 of 2048kB, transparent: madvise",
        "device": (
            "vendor 0x8086, device 0x0a54, class 0x010802,"
            " current link speed 8.0 GT/s PCIe, current link width 4, driver nvme"
        ),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    assert {name: facts.get(name) for name in expected} == expected
    assert facts["processors"].endswith("two threads a core, isolated: 2-3, NUMA nodes: 0-1")
    assert next(iter(facts)) == "processor"


def test_what_tells_whose_it_is_stays_out_of_the_kernel_options(host: Observer) -> None:
    told = " ".join(fingerprint(host=host).facts.values())
    for secret in ("secret", "UUID", "10.1.2.3", "BOOT_IMAGE", "/boot"):
        assert secret not in told


def test_a_machine_that_tells_nothing_has_fewer_facts(tmp_path: Path) -> None:
    facts = fingerprint("01:00.0", host=Observer(tmp_path)).facts
    assert {"kernel", "Python", "uspace_drv", "numpy"} <= set(facts)
    assert not {"memory", "mitigations", "device", "huge pages", "clock source"} & set(facts)
    assert all(facts.values())


def test_an_unknown_processor_is_its_architecture(tmp_path: Path) -> None:
    assert fingerprint(host=Observer(tmp_path)).facts["processor"] == platform.machine()


@pytest.mark.parametrize("device", ["../../../proc", "vfio-user:/run/x", "09:00.0", "", ".."])
def test_what_is_no_function_here_is_no_fact(host: Observer, device: str) -> None:
    assert "device" not in fingerprint(device, host=host).facts


def test_this_machine_does_not_tell_whose_it_is() -> None:
    told = " ".join(fingerprint().facts.values())
    assert not re.search(r"(^|[\s(])/\w+/", told), "a path"
    assert not re.search(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", told), "a MAC address"
    assert not re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b", told.replace(platform.release(), ""))
    names = {platform.node(), str(Path.home())}
    if (user := getpass.getuser()) != "root":
        names.add(user)
    names |= {each.address for all_of in psutil.net_if_addrs().values() for each in all_of}
    words = set(told.split())
    assert not {name for name in names if len(name) > 3} & words


def failing(words: list[str], error: Exception | None) -> Any:
    def run(*_: Any, **__: Any) -> Any:
        if error:
            raise error
        return subprocess.CompletedProcess(words, 0, "nonsense", "")

    return run


@pytest.mark.parametrize(
    "error",
    [
        None,
        OSError(8, "Exec format error"),
        subprocess.TimeoutExpired("fio", 10),
        subprocess.CalledProcessError(1, "git"),
    ],
)
def test_programs_that_do_not_say_their_version_are_no_fact(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", failing([], error))
    facts = fingerprint().facts
    assert not {"fio", "QEMU"} & set(facts)
    assert " " not in facts["uspace_drv"], "no commit"


def test_programs_say_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "fio": "fio-3.33\n",
        "qemu-system-x86_64": "QEMU emulator version 11.1.3 (Debian)\nCopyright\n",
        "git": "0123456789ab + changes\n",
    }

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, said[Path(words[0]).name], "")

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(Path, "exists", lambda _: True)
    facts = fingerprint().facts
    assert (facts["fio"], facts["QEMU"]) == ("3.33", "11.1.3")
    assert facts["uspace_drv"].endswith(" 0123456789ab + changes")


def test_the_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(fingerprint_module, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert fingerprint_module._commit() == "", "no checkout"

    def run(*words: str) -> None:
        settings = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        done = [git, *settings, "-C", str(tmp_path), *words]
        subprocess.run(done, check=True, capture_output=True)

    run("init", "-q")
    assert fingerprint_module._commit() == "", "no commit yet"
    (tmp_path / "file").write_text("one")
    run("add", "file")
    run("commit", "-q", "-m", "first")
    run("tag", "secret-name")
    clean = fingerprint_module._commit()
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (tmp_path / "file").write_text("two")
    assert fingerprint_module._commit() == f"{clean} + changes"


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert fingerprint_module._version("no-such-package") == ""
    assert fingerprint_module._version("numpy") == sys.modules["numpy"].__version__
