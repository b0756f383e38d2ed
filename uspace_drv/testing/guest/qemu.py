"""The QEMU that a guest runs in: this machine's own, or a newer one beside it, not installed.

Follows apt.conf(5) for a download that leaves the machine's package system as it is, and ld.so(8)
for a program that runs with its own C library.
"""

from __future__ import annotations

from pathlib import Path

from uspace_drv.errors import HostError

from .cache import cache_folder, fetch
from .programs import PACKAGES, apt_line, find_program, run_program

VFIO_USER_DEVICE = "vfio-user-pci"
"""QEMU's name for a device that a program behind a socket plays; it came with QEMU 10.1."""

_SUITE = "trixie"
_BACKPORTS = f"{_SUITE}-backports"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PROGRAM = "qemu-system-x86_64"

# What the machine runs after an update is not for this one, which leaves no trace of itself.
_APT_CONFIGURATION = """
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Sandbox::User "root";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def qemu_command(*, vfio_user: bool = False) -> list[str]:
    """Return the words that start QEMU; with `vfio_user` one that has `VFIO_USER_DEVICE`.

    If the installed QEMU is older than that, Debian's newer one is taken from the cache; the first
    time it is downloaded (about 50 MB). Raises `HostError` if there is none, or apt fails.
    """
    if vfio_user and not _installed_has_vfio_user():
        return _start_beside(_cached() or fetch(_download))
    return [str(find_program(_PROGRAM))]


def qemu_version(command: list[str]) -> str:
    """Return the version of the QEMU that `command` starts, such as "QEMU 11.1.3"."""
    program, *words = command
    said = run_program(program, *words, "--version")
    return f"QEMU {said.split()[3]}"


def _installed_has_vfio_user() -> bool:
    try:
        return f'"{VFIO_USER_DEVICE}"' in run_program(_PROGRAM, "-device", "help")
    except HostError:
        return False  # it is not installed, or cannot run


def _cached() -> Path | None:
    return max(
        cache_folder().glob("qemu-*"), key=lambda folder: folder.stat().st_mtime, default=None
    )


def _start_beside(root: Path) -> list[str]:
    libraries = root / "usr/lib/x86_64-linux-gnu"
    # It would also try the installed QEMU's modules, which abort it: it shall find its own first.
    return [
        str(find_program("env")), f"QEMU_MODULE_DIR={libraries / 'qemu'}",
        str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", str(libraries),
        str(root / "usr/bin" / _PROGRAM),
        "-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios"),
    ]  # fmt: skip


def _download(folder: Path) -> str:
    """Put QEMU's packages and all that they need into `folder`; return a name with its version."""
    lines = [
        f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n" for suite in (_SUITE, _BACKPORTS)
    ]
    (folder / "sources.list").write_text("".join(lines))
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # nothing is installed: every dependency comes along
    configuration = folder / "apt.conf"
    configuration.write_text(_APT_CONFIGURATION.format(folder=folder))
    words = ("-q", "-c", configuration)
    package = PACKAGES[_PROGRAM]
    try:
        run_program("apt-get", *words, "--error-on=any", "update")
        run_program(
            "apt-get", *words, "-y", "-t", _BACKPORTS, "--no-install-recommends",
            "--download-only", "install", package,
        )  # fmt: skip
    except HostError as failure:
        raise HostError(
            f"{failure}; the installed QEMU has no {VFIO_USER_DEVICE}, and the one of Debian"
            f" {_BACKPORTS} could not be fetched; install QEMU 10.1 or newer, or, if Debian's keys"
            f" are too old, run: {apt_line('install debian-archive-keyring')}"
        ) from failure
    (archive,) = folder.glob(f"cache/archives/{package}_*.deb")
    version = run_program("dpkg-deb", "--field", archive, "Version").strip()
    return f"qemu-{version.rpartition(':')[2]}"


def _mirror() -> str:
    """Return the address of the Debian mirror that this machine's apt is set up for."""
    words = ("--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian")
    mirrors = run_program("apt-get", "indextargets", *words).split()
    if not mirrors:
        raise HostError(
            f"apt knows no Debian mirror to fetch a QEMU with {VFIO_USER_DEVICE} from; run:"
            f" {apt_line('update')}, or install QEMU 10.1 or newer"
        )
    return mirrors[0]
