"""A guest: a whole machine in software, with a real kernel and QEMU's devices, for one command.

Options follow QEMU's manual, chapters "Invocation" and "9pfs" (QEMU docs/system). It sees the
host's files (read-only, with a layer of memory over them), so there is no image to build.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uspace_drv.errors import HostError, UnsupportedError

from . import initramfs
from .arguments import (
    acpi_words,
    memory_words,
    monitor_words,
    port_words,
    tree_words,
    vfio_user_device,
)
from .iommu import IOMMUS, IommuKind
from .kernel import Kernel, debian_kernel
from .modules import BOOT_MODULES, DRIVER_MODULES, load_modules
from .process import GuestFailed, Sink, supervise
from .programs import find_program
from .qemu import qemu_command

_VFIO_USER_SLOT = 0x10
_ROOT_SLOT = 0x1C  # of the host's tree; those of the shares are below it
_LINES_SAID = 3
PROCESSORS = Path("/run/processors")
"""Where a command finds QEMU's threads if the guest `shows_processors`."""

_KERNEL_WORDS = "console=ttyS0 panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable"


@dataclass(frozen=True)
class Result:
    """What a command did in the guest; `output` is its standard output and error together."""

    exit_code: int
    output: str
    kernel_log: str


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A machine to be booted, anew for each `run`; needs neither KVM nor root.

    Hardware: `devices` are words of QEMU's -device ("edu,addr=4": the function 0000:00:04.0).
    `drives` are words of -blockdev ("file,node-name=disk,filename=PATH") for `devices` that want
    one ("nvme,drive=disk,serial=1").
    `iommu_option` are more properties of the IOMMU ("aw-bits=39"), `memory` a size for QEMU's -m,
    `hugepages` a count of 2 MiB pages. `vfio_user` are sockets of programs that each play a device,
    the functions 0000:00:10.0, 0000:00:11.0 and so on; the memory is then shared with them.
    `acpi_tables` are files for -acpitable: an SSDT declares a platform device.

    Software: `kernel` is Debian's where none is given, `modules` are more of its modules to load,
    `words` more of its command line. `qemu` "newest" fetches Debian's newer one if the installed
    one is older than 10.1; igb and ufs want that, and `vfio_user` implies it.

    Ways to the outside: `shares` are folders of the host that the command may write, at the same
    path. `monitor` is a socket that QEMU makes, for `order`. With `shows_processors` the command
    sees the host's /proc/PID/task of QEMU as `PROCESSORS`: how long the emulated processors have
    run, which the guest's own kernel knows in ticks only.
    """

    devices: Sequence[str] = ()
    drives: Sequence[str] = ()
    iommu: IommuKind = "none"
    iommu_option: str = ""
    processors: int = 2
    memory: str = "1G"
    hugepages: int = 0
    vfio_user: Sequence[Path] = ()
    shares: Sequence[Path] = ()
    modules: Sequence[str] = ()
    words: Sequence[str] = ()
    acpi_tables: Sequence[Path] = ()
    monitor: Path | None = None
    shows_processors: bool = False
    qemu: Literal["installed", "newest"] = "installed"
    kernel: Kernel | None = None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 120.0,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        sink: Sink | None = None,
    ) -> Result:
        """Boot, run `argv` in `directory` (the current one), and end the machine.

        `timeout` seconds cover boot and command. Raises `GuestFailed` if the guest did not
        finish the command, `HostError` if this machine cannot run one.
        """
        if platform.machine() != "x86_64":
            raise UnsupportedError(
                f"guest: runs the host's own programs on x86-64, not on {platform.machine()};"
                " use a model, for example virtual:edu"
            )
        self._check_paths()
        kernel = self.kernel or debian_kernel()
        script = initramfs.command_script(
            argv, _environment() | dict(environment or {}), directory or Path.cwd()
        )
        qemu = qemu_command(newest=self.qemu == "newest" or bool(self.vfio_user))
        with tempfile.TemporaryDirectory(prefix="uspace-guest-") as name:
            folder = Path(name)
            (folder / "initramfs").write_bytes(self._initramfs(kernel, script))
            code, output, ended = supervise(
                lambda descriptor: self.command(qemu, folder, kernel, descriptor),
                folder / "qemu.log", timeout, sink,
            )  # fmt: skip
            late = None if ended else f"the command was not finished within {timeout:g} s"
            return _result(folder, code, output.decode(errors="replace"), late)

    def _check_paths(self) -> None:
        for path in self.shares:
            if not path.is_dir():
                raise HostError(f"{path}: no such folder to share with the guest")
        for path in self.vfio_user:
            if not path.is_socket():
                raise HostError(
                    f"{path}: no such socket of a device; to serve one of our models there,"
                    f" run: uspace serve MODEL {path}"
                )

    def _initramfs(self, kernel: Kernel, script: str) -> bytes:
        modules: dict[str, bytes] = {}
        if kernel.modules is not None:
            names = (
                *BOOT_MODULES, *IOMMUS[self.iommu].modules, *DRIVER_MODULES, *self.modules,
            )  # fmt: skip
            modules = load_modules(kernel.modules, names)
        shares = {f"share{number}": path.resolve() for number, path in enumerate(self.shares)}
        if self.shows_processors:
            shares["processors"] = PROCESSORS
        return initramfs.build(modules, shares, script)

    def command(self, qemu: Sequence[str], folder: Path, kernel: Kernel, output: int) -> list[str]:
        """Return the whole command line of `qemu`, started by these words.

        The guest's output goes to the file descriptor `output`.
        """
        words = [_KERNEL_WORDS, IOMMUS[self.iommu].words, f"hugepages={self.hugepages}"]
        return [
            # Should this process be killed outright, the host's kernel ends QEMU as well.
            str(find_program("setpriv")), "--pdeathsig", "KILL",
            *qemu,
            *memory_words(self.memory, shared=bool(self.vfio_user)),
            "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(self.processors),
            "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
            "-kernel", str(kernel.image), "-initrd", str(folder / "initramfs"),
            "-append", " ".join([*words, *self.words]),
            "-serial", f"file:{folder / 'kernel.log'}",
            *monitor_words(self.monitor),
            *(word for path in self.acpi_tables for word in acpi_words(path)),
            # Slots behind root ports are for pciehp: a card can go with and without warning.
            "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
            *IOMMUS[self.iommu].arguments(self.iommu_option),
            # Its own functions sit at the end of the bus: the first slots are for `devices`.
            "-device", "virtio-serial-pci,id=ports,addr=0x1e",
            *port_words("output", f"/dev/fd/{output}"),
            *port_words("exit", str(folder / "exit")),
            *self._trees(), *self._cards(),
        ]  # fmt: skip

    def _trees(self) -> list[str]:
        words = tree_words("root", Path("/"), _ROOT_SLOT, "on")
        for number, path in enumerate(self.shares):
            words += tree_words(f"share{number}", path.resolve(), _ROOT_SLOT - 1 - number, "off")
        if self.shows_processors:
            slot = _ROOT_SLOT - 1 - len(self.shares)
            words += tree_words("processors", Path("/proc/self/task"), slot, "on")  # QEMU's self
            words += ["-name", "guest,debug-threads=on"]  # threads say in comm which they are
        return words

    def _cards(self) -> list[str]:
        cards = list(self.devices)
        for number, path in enumerate(self.vfio_user):
            cards.append(vfio_user_device(path, _VFIO_USER_SLOT + number))
        words = [word for drive in self.drives for word in ("-blockdev", drive)]
        return words + [word for card in cards for word in ("-device", card)]


def _environment() -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "TERM": "dumb"}


def _result(folder: Path, code: int, output: str, late: str | None) -> Result:
    """Read what QEMU left in `folder`; raise `GuestFailed` if the command came to no end."""
    texts = {}
    for name in ("kernel.log", "qemu.log", "exit"):
        path = folder / name
        texts[name] = path.read_text(errors="replace").strip() if path.exists() else ""
    if late is None and texts["exit"].isdigit():
        return Result(int(texts["exit"]), output, texts["kernel.log"])
    reason = late or f"QEMU ended (exit code {code}) before the command did"
    raise GuestFailed(f"{reason}{_said(texts['qemu.log'])}", output, texts["kernel.log"])


def _said(text: str) -> str:
    """Return the first lines of what QEMU said: after them may come all of a CPU's registers."""
    lines = text.splitlines()
    rest = f"\n({len(lines) - _LINES_SAID} more lines)" if len(lines) > _LINES_SAID else ""
    return ", and said: " + "\n".join(lines[:_LINES_SAID]) + rest if lines else ""
