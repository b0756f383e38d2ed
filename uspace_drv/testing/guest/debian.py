"""Debian packages of another suite than this machine's, fetched and not installed.

Follows apt.conf(5) for a download that leaves the machine's package system as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uspace_drv.errors import HostError

from .programs import apt_line, run_program

SUITE = "trixie"
BACKPORTS = f"{SUITE}-backports"

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

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


def private_apt(folder: Path, suites: Sequence[str], purpose: str) -> tuple[str | Path, ...]:
    """Give apt a state of its own in `folder`, with fresh lists of `suites`; return its options.

    In that state nothing is installed. `purpose` is what the packages are for, in the words of the
    error. Raises `HostError` if the machine knows no Debian mirror or it cannot be read.
    """
    mirror = _mirror(purpose)
    lines = [f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n" for suite in suites]
    (folder / "sources.list").write_text("".join(lines))
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # nothing is installed: every dependency comes along
    configuration = folder / "apt.conf"
    configuration.write_text(_APT_CONFIGURATION.format(folder=folder))
    options = ("-q", "-c", configuration)
    try:
        run_program("apt-get", *options, "--error-on=any", "update")
    except HostError as failure:
        raise HostError(
            f"{failure}; Debian {suites[-1]} has {purpose}; if Debian's keys on this machine are"
            f" too old to read it, run: {apt_line('install debian-archive-keyring')}"
        ) from failure
    return options


def _mirror(purpose: str) -> str:
    """Return the address of the Debian mirror that this machine's apt is set up for."""
    words = ("--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian")
    mirrors = run_program("apt-get", "indextargets", *words).split()
    if not mirrors:
        raise HostError(
            f"apt knows no Debian mirror to fetch {purpose} from; run: {apt_line('update')}"
        )
    return mirrors[0]
