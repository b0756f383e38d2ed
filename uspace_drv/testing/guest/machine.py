"""A guest: a whole machine in software, with a real kernel and QEMU's devices, for one command.

Options follow QEMU's manual, chapters "Invocation" and "9pfs" (QEMU docs/system). It sees the
host's files (read-only, with a layer of memory over them), so there is no image to build.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uspace_drv.errors import HostError, UnsupportedError

from . import initramfs
from .kernel import Kernel, debian_kernel
from .modules import BOOT_MODULES, DRIVER_MODULES, load_modules
from .process import GuestFailed, Sink, supervise
from .programs import find_program
from .qemu import VFIO_USER_DEVICE, qemu_command

_IOMMU_DEVICES = {"none": [], "intel": ["-device", "intel-iommu,intremap=on,caching-mode=on"]}
_IOMMU_WORDS = {"none": "intel_iommu=off", "intel": "intel_iommu=on"}
_VFIO_USER_SLOT = 0x10
_LINES_SAID = 3
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

    `devices` are words of QEMU's -device ("edu,addr=4": the function 0000:00:04.0), `memory` a
    size for its -m, `hugepages` a count of 2 MiB pages, `modules` more kernel modules to load,
    `words` more of the kernel's command line. `vfio_user` are sockets of programs that each play a
    device, the functions 0000:00:10.0, 0000:00:11.0 and so on; the memory is then shared with them,
    and QEMU is fetched if the installed one is older than 10.1. `shares` are folders of the host
    that the command may write, at the same path. `kernel` is Debian's own where none is given.
    """

    devices: Sequence[str] = ()
    iommu: Literal["none", "intel"] = "none"
    memory: str = "1G"
    hugepages: int = 0
    vfio_user: Sequence[Path] = ()
    shares: Sequence[Path] = ()
    modules: Sequence[str] = ()
    words: Sequence[str] = ()
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
        qemu = qemu_command(vfio_user=bool(self.vfio_user))
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
            names = (*BOOT_MODULES, *DRIVER_MODULES, *self.modules)
            modules = load_modules(kernel.modules, names)
        shares = {f"share{number}": path.resolve() for number, path in enumerate(self.shares)}
        return initramfs.build(modules, shares, script)

    def command(self, qemu: Sequence[str], folder: Path, kernel: Kernel, output: int) -> list[str]:
        """Return the whole command line of `qemu`, started by these words.

        The guest's output goes to the file descriptor `output`.
        """
        words = [_KERNEL_WORDS, _IOMMU_WORDS[self.iommu], f"hugepages={self.hugepages}"]
        return [
            # Should this process be killed outright, the host's kernel ends QEMU as well.
            str(find_program("setpriv")), "--pdeathsig", "KILL",
            *qemu,
            *_memory(self.memory, shared=bool(self.vfio_user)),
            "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-display", "none",
            "-nodefaults", "-no-user-config", "-no-reboot",
            "-kernel", str(kernel.image), "-initrd", str(folder / "initramfs"),
            "-append", " ".join([*words, *self.words]),
            "-serial", f"file:{folder / 'kernel.log'}",
            *_IOMMU_DEVICES[self.iommu],
            # Its own functions sit at the end of the bus: the first slots are for `devices`.
            "-device", "virtio-serial-pci,id=ports,addr=0x1e",
            *_port("output", f"/dev/fd/{output}"), *_port("exit", str(folder / "exit")),
            *_tree("root", Path("/"), 0, "on"),
            *(word for number, path in enumerate(self.shares)
              for word in _tree(f"share{number}", path.resolve(), number + 1, "off")),
            *(word for device in self.devices for word in ("-device", device)),
            *(word for number, path in enumerate(self.vfio_user)
              for word in ("-device", _vfio_user_device(path, _VFIO_USER_SLOT + number))),
        ]  # fmt: skip


def _memory(size: str, *, shared: bool) -> list[str]:
    machine = "q35,kernel-irqchip=off"
    if not shared:
        return ["-M", machine, "-m", size]
    backend = f"memory-backend-memfd,id=memory,size={size},share=on"
    return ["-M", f"{machine},memory-backend=memory", "-m", size, "-object", backend]


def _vfio_user_device(path: Path, slot: int) -> str:
    """Return the words of a -device, as JSON: a socket's address is no plain word."""
    socket = {"type": "unix", "path": str(path.resolve())}
    return json.dumps({"driver": VFIO_USER_DEVICE, "socket": socket, "addr": f"{slot:x}"})


def _port(name: str, path: str) -> list[str]:
    return [
        "-chardev", f"file,id={name},path={path}",
        "-device", f"virtserialport,bus=ports.0,chardev={name},name={name}",
    ]  # fmt: skip


def _tree(tag: str, path: Path, number: int, readonly: str) -> list[str]:
    doubled = str(path).replace(",", ",,")  # QEMU's way to write a comma within a value
    options = f"security_model=none,multidevs=remap,readonly={readonly}"
    return [
        "-fsdev", f"local,id={tag},path={doubled},{options}",
        "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag},addr={0x1D - number:#x}",
    ]  # fmt: skip


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
