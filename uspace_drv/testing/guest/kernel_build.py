"""The guests' own kernel: Debian's newest source, built with what Debian's kernels leave out.

Those have no `/dev/iommu`, VFIO device files, VFIO without an IOMMU, or UIO platform driver. The
build follows Linux Documentation/kbuild/kconfig.rst; its options are in `kernel.config`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from uspace_drv.errors import HostError

from .cache import cache_folder, fetch, writable_cache
from .debian import BACKPORTS, private_apt
from .kernel import Kernel
from .programs import apt_line, find_program, run_program

Tell = Callable[[str], object]
"""Takes a line about the progress of a build."""

_META_PACKAGE = "linux-source"
_PURPOSE = "the source of the guests' own kernel"
_BUILD_PROGRAMS = ("make", "gcc", "ld", "strip", "flex", "bison", "bc", "tar", "xz")
_ELF_HEADER = Path("/usr/include/gelf.h")  # of libelf-dev, for the kernel's objtool
_SPACE = 3 << 30  # bytes: the source 2 GB packed and unpacked, the objects, and some air
_STEPS = 2300  # lines that make prints
_STEPS_TOLD = 200
_LINES_SAID = 8


def own_kernel(tell: Tell | None = None) -> Kernel:
    """Return the guests' own kernel; the first call downloads 170 MB and builds for 5-15 minutes.

    It is kept in the cache until `kernel.config` changes. `tell` hears of the progress; without
    it, lines go to standard error. Raises `HostError` if something that the build needs is
    missing, or if it fails: then with its last lines.
    """
    wanted = files(__package__).joinpath("kernel.config").read_text()
    return _kept(wanted) or _build(wanted, tell or _to_standard_error)


def options_lost(wanted: str, got: str) -> list[str]:
    """Return the lines of the configuration `wanted` that the complete one, `got`, contradicts.

    A build drops without a word what needs an option that is off or what does not exist.
    """
    lines = set(got.splitlines())
    return [line for line in wanted.splitlines() if not _holds(line, lines)]


def _holds(line: str, lines: set[str]) -> bool:
    if line.endswith(" is not set"):  # an option that cannot even be chosen is not mentioned
        name = line.split()[1]
        return f"{name}=y" not in lines and f"{name}=m" not in lines
    return line in lines or not line.startswith("CONFIG_")


def _kept(wanted: str) -> Kernel | None:
    key = _key(wanted)
    folders = cache_folder().glob(f"own-kernel-*-{key}")
    folder = max(folders, key=lambda one: one.stat().st_mtime, default=None)
    if folder is None:
        return None
    version = folder.name.removeprefix("own-kernel-").removesuffix(f"-{key}")
    return Kernel(folder / "vmlinux", next(folder.glob("lib/modules/*")), f"own {version}")


def _key(wanted: str) -> str:
    options = sorted(line for line in wanted.splitlines() if "CONFIG_" in line)
    return sha256("\n".join(options).encode()).hexdigest()[:12]  # comments build nothing


def _to_standard_error(line: str) -> None:
    sys.stderr.write(f"guest kernel: {line}\n")
    sys.stderr.flush()


def _build(wanted: str, tell: Tell) -> Kernel:
    _check_tools()
    with _only_builder(writable_cache(), tell):
        found = _kept(wanted)  # by the process that was waited for
        if found is None:
            tell("fetching its source, 170 MB")
            fetch(
                lambda folder: f"own-kernel-{_download(folder)}-{_key(wanted)}",
                lambda whole: _compile(whole, wanted, tell), prefix="build-",
            )  # fmt: skip
            found = _kept(wanted)
    if found is None:
        raise HostError(f"{cache_folder()}: the kernel just built is gone; run this again")
    return found


def _check_tools() -> None:
    for program in _BUILD_PROGRAMS:
        find_program(program)
    if not _ELF_HEADER.exists():
        raise HostError(
            f"{_ELF_HEADER}: not found, the build of the guests' own kernel needs it (package"
            f" libelf-dev); run: {apt_line('install libelf-dev')}"
        )


@contextmanager
def _only_builder(cache: Path, tell: Tell) -> Iterator[None]:
    """Wait until no other process builds, and remove what one left that was killed."""
    with (cache / "own-kernel.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process builds it; waiting for that one")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for scratch in cache.glob("build-*"):
            shutil.rmtree(scratch)
        free = shutil.disk_usage(cache).free
        if free < _SPACE:
            raise HostError(
                f"{cache}: {free >> 20} MB free, the build of the guests' own kernel needs"
                f" {_SPACE >> 20} MB for a while; set XDG_CACHE_HOME to a folder with more"
            )
        yield


def _download(folder: Path) -> str:
    """Put the newest source package into `folder`; return its version."""
    options = private_apt(folder, [BACKPORTS], _PURPOSE)
    meta = run_program("apt-cache", *options, "depends", _META_PACKAGE)
    package = next((word for word in meta.split() if word.startswith("linux-source-")), None)
    if package is None:
        raise HostError(f"{_META_PACKAGE}: Debian {BACKPORTS} has no such package any more")
    run_program("apt-get", *options, "download", package, directory=folder)
    (archive,) = folder.glob(f"{package}_*.deb")
    return run_program("dpkg-deb", "--field", archive, "Version").strip()


def _compile(whole: Path, wanted: str, tell: Tell) -> None:
    """Turn the unpacked package `whole` into a kernel, its modules and its configuration."""
    tree = whole / "tree"
    tree.mkdir()
    (archive,) = whole.glob("usr/src/linux-source-*.tar.xz")
    tell("unpacking")
    run_program("tar", "-C", tree, "--strip-components=1", "-xf", archive)
    _configure(tree, wanted)
    _make(tree, cache_folder() / "own-kernel.log", tell)
    run_program("strip", "-s", "-o", whole / "vmlinux", tree / "vmlinux")
    shutil.copy(tree / ".config", whole / "config")
    run_program(
        "make", "-C", tree, "modules_install", f"INSTALL_MOD_PATH={whole}", "INSTALL_MOD_STRIP=1",
        "DEPMOD=true",
    )  # fmt: skip
    for link in whole.glob("lib/modules/*/build"):
        link.unlink()
    shutil.rmtree(whole / "usr")
    shutil.rmtree(tree)


def _configure(tree: Path, wanted: str) -> None:
    run_program("make", "-C", tree, "tinyconfig")
    with (tree / ".config").open("a") as configuration:  # of two values the later one counts
        configuration.write(wanted)
    run_program("make", "-C", tree, "olddefconfig")
    lost = options_lost(wanted, (tree / ".config").read_text())
    if lost:
        raise HostError(
            f"kernel.config: this kernel source does not take {', '.join(lost)}: an option that"
            " it needs is off, or its name has changed; see the Kconfig files of the source"
        )


def _make(tree: Path, log: Path, tell: Tell) -> None:
    """Build in `tree`, with a processor for each job; what make says goes to `log`."""
    jobs = len(os.sched_getaffinity(0))
    tell(f"building with {jobs} processors; its output is in {log}")
    said: deque[str] = deque(maxlen=_LINES_SAID)
    with (
        log.open("w") as written,
        subprocess.Popen(
            # Should this process be killed outright, the build ends as well.
            [find_program("setpriv"), "--pdeathsig", "KILL",
             find_program("make"), "-C", tree, f"-j{jobs}", "vmlinux", "modules"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            for count, line in enumerate(process.stdout or (), start=1):
                written.write(line)
                said.append(line)
                if count % _STEPS_TOLD == 0:
                    tell(f"{count} of about {_STEPS} steps")
        finally:
            process.terminate()  # nothing happens to one that has ended
    if process.returncode != 0:
        raise HostError(
            f"the build of the guests' own kernel failed (make's exit code {process.returncode});"
            f" the end of {log}:\n{''.join(said).rstrip()}"
        )
