"""The command line in this process, a machine made of files, and plugins made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.bench_suites import FakeSuites, write_fake_report
from uspace_drivers.edu import EduModel
from uspace_drv import opening, plugins
from uspace_drv.bench.results import Machine as Fingerprint
from uspace_drv.cli import bench_run, bench_show, info, listing, main, session
from uspace_drv.pci.sysfs import PciBus

Uspace = Callable[..., Result]

EDU, NEIGHBOUR = "0000:00:04.0", "0000:00:04.1"


@pytest.fixture
def uspace() -> Uspace:
    """Run `uspace` with these words."""

    def run(*words: str, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(main, words, input=stdin, prog_name="uspace")

    return run


@pytest.fixture(autouse=True)
def only_our_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide what else is installed on this machine: our own and what a test adds are left."""

    def ours(group: str) -> list[EntryPoint]:
        packages = {"uspace_drivers", *(path.stem for path in tmp_path.glob("*_plugin.py"))}
        found = entry_points(group=group)
        return [each for each in found if each.module.partition(".")[0] in packages]

    monkeypatch.setattr(plugins, "entry_points", ours)
    plugins.installed_plugins.cache_clear()
    yield
    plugins.installed_plugins.cache_clear()


@pytest.fixture
def add_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a plugin: a module and the metadata that names it; returns the folder."""

    def add(name: str, source: str) -> Path:
        (tmp_path / f"{name}_plugin.py").write_text(source)
        metadata = tmp_path / f"{name}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        entry = f"[{plugins.GROUP}]\n{name} = {name}_plugin:plugin\n"
        (metadata / "entry_points.txt").write_text(entry)
        return tmp_path

    monkeypatch.syspath_prepend(tmp_path)
    return add


class Machine:
    """A file tree in which there are an edu device and its neighbour in the IOMMU group."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._function(EDU, "vfio-pci", bytes(EduModel().config.read(n, 1) for n in range(256)))
        self._function(NEIGHBOUR, "e1000e", b"\xff" * 64)
        self.file("sys/kernel/iommu_groups/7/type", "DMA-FQ\n")

    def file(self, path: str, content: str | bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def _function(self, address: str, driver: str, config: bytes) -> None:
        folder = f"sys/bus/pci/devices/{address}"
        ids = {"vendor": "0x1234", "device": "0x11e8", "class": "0x00ff00", "revision": "0x10"}
        extra = {"numa_node": "0", "enable": "1", "reset_method": "flr bus"}
        extra["resource"] = "0xfea00000 0xfeafffff 0x40200\n0x0 0x0 0x0"
        for name, text in (ids | extra).items():
            self.file(f"{folder}/{name}", text)
        self.file(f"{folder}/config", config)
        links = {"driver": f"drivers/{driver}", "iommu_group": "iommu_groups/7"}
        for name, target in links.items():
            (self.root / folder / name).symlink_to(target)
        members = self.root / "sys/kernel/iommu_groups/7/devices"
        (members / address).mkdir(parents=True)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Let commands see that machine instead of this one."""
    made = Machine(tmp_path / "machine")
    for module in (opening, info, listing, session):
        monkeypatch.setattr(module, "PciBus", partial(PciBus, made.root))
    return made


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSuites:
    """Hide the installed suites of benchmarks, and measure in an empty folder."""
    made = FakeSuites({"kernel": "fake"})
    for module in (bench_run, bench_show):
        monkeypatch.setattr(module, "installed_suites", lambda: made.installed)
        monkeypatch.setattr(module, "write_report", write_fake_report)
    monkeypatch.setattr(
        bench_run, "fingerprint", lambda _device: Fingerprint(facts=dict(made.machine))
    )
    folder = tmp_path / "measured"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return made
