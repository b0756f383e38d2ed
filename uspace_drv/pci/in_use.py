"""What of this machine lives on a PCI function: file systems, swap, networks, its host. Read-only.

Follows Linux Documentation/filesystems/proc.rst (mountinfo, swaps), Documentation/ABI/stable/
sysfs-block (slaves), sysfs-class-net and ABI/testing/sysfs-fs-virtiofs. Not seen: pools that name
no block device (ZFS), virtiofs before Linux 6.9, IPv4 routes outside the main table, routes of
other network namespaces, and mounts of processes that this user may not look into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from uspace_drv.errors import HostError, NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host

_IFF_UP = 1  # Linux include/uapi/linux/if.h
_RTF_OWN = 0x80100200  # RTF_LOCAL, RTF_ANYCAST, RTF_REJECT of include/uapi/linux/ipv6_route.h
_NEAR = ("fe8", "fe9", "fea", "feb", "ff")  # link-local and multicast, as /proc prints them
_VIRTIO = "/sys/bus/virtio/devices"
_SHARES = {  # by kind of mount: where its devices are listed, and their tag and device in there
    "9p": (_VIRTIO, "mount_tag", ""),
    "virtiofs": ("/sys/fs/virtiofs", "tag", "device"),
}
_VSOCK = 19  # Virtual I/O Device (VIRTIO) 1.2, section 5
_CONTROLLER = re.compile(r"nvme\d+")


@dataclass(frozen=True)
class Use:
    """One thing that would be lost with the function, in words: '/ (vda1) is mounted from it'."""

    address: PciAddress
    what: str

    def __str__(self) -> str:
        return f"{self.address}: {self.what}"


@dataclass(frozen=True)
class _Mount:
    device: str  # major:minor
    point: str
    kind: str
    source: str


def uses_of(address: PciAddress, host: Host | None = None) -> list[Use]:
    """Find what lives on the function, or on one behind it if it is a bridge."""
    host = host or Host()
    found = [*_mounted(host), *_swapped(host), *_connected(host), *_reached(host)]
    uses = [Use(address, words) for path, words in found if address in _functions_on(path)]
    return list(dict.fromkeys(uses))  # a disk reached by two ways is still one use


def _functions_on(path: str) -> set[PciAddress]:
    """Every function on a sysfs path: the device's own and the bridges above it."""
    found = set()
    for part in PurePosixPath(path).parts:
        try:
            found.add(PciAddress.parse(part))
        except NoDevice:
            continue  # virtio1, block, vda: not a PCI function
    return found


def _mounted(host: Host) -> Iterator[tuple[str, str]]:
    """Sysfs path and words for each disk under each mounted file system."""
    for mount, by_whom in _mounts_anywhere(host).items():
        for name in sorted(_block_names(host, mount)):
            for path in _disks_under(host, name):
                yield path, f"{mount.point} ({name}) is mounted from it{by_whom}"
        for path in _shares(host, mount):
            yield path, f"{mount.point} ({mount.source}) is mounted from it{by_whom}"


def _shares(host: Host, mount: _Mount) -> Iterator[str]:
    """Sysfs paths of the virtio devices whose tag a mount of a host's folder names."""
    if mount.kind not in _SHARES:
        return
    folder, tag, device = _SHARES[mount.kind]
    for name in host.names(folder):
        # 9p's ends with a NUL.
        if (host.read(f"{folder}/{name}/{tag}") or "").rstrip("\0") == mount.source:
            yield host.resolve(f"{folder}/{name}/{device}")


def _swapped(host: Host) -> Iterator[tuple[str, str]]:
    for line in (host.read("/proc/swaps") or "").splitlines()[1:]:
        file, kind = line.split()[:2]
        file = _unescape(file)
        names = [_node_name(host, file)] if kind == "partition" else _names_below(host, file)
        for name in names:
            for path in _disks_under(host, name):
                yield path, f"swap ({file}) is on it"


def _connected(host: Host) -> Iterator[tuple[str, str]]:
    for top in sorted(_routed(host)):
        if not (host.read_int(f"/sys/class/net/{top}/flags") or 0) & _IFF_UP:
            continue
        for name in _interfaces_under(host, top):
            over = "" if name == top else f" (under {top})"
            yield (
                host.resolve(f"/sys/class/net/{name}"),
                f"network interface {name}{over} is up with a route",
            )


def _reached(host: Host) -> Iterator[tuple[str, str]]:
    """List the sockets between a virtual machine and its host, through which that one steers it."""
    for name in host.names(_VIRTIO):
        if host.read_int(f"{_VIRTIO}/{name}/device") == _VSOCK:
            yield (
                host.resolve(f"{_VIRTIO}/{name}"),
                "the host talks with this machine through it (vsock)",
            )


def _mounts_anywhere(host: Host) -> dict[_Mount, str]:
    """Every mount, and by which process where neither this one nor the first one sees it."""
    found = dict.fromkeys((*_mounts(host), *_mounts(host, "1")), "")
    seen = {None, host.link("/proc/self/ns/mnt"), host.link("/proc/1/ns/mnt")}
    for process in sorted(filter(str.isdecimal, host.names("/proc")), key=int):
        space = host.link(f"/proc/{process}/ns/mnt")  # all processes in it see the same
        if space in seen:
            continue
        try:
            mounts = _mounts(host, process)
        except HostError:
            mounts = []  # it ended meanwhile
        if mounts:  # else another one may speak for the namespace
            seen.add(space)
        for mount in mounts:
            found.setdefault(mount, f" by process {process}")
    return found


def _mounts(host: Host, process: str = "self") -> list[_Mount]:
    """Return what that process can reach; one that was put into a folder (chroot) sees less."""
    mounts = []
    for line in (host.read(f"/proc/{process}/mountinfo") or "").splitlines():
        front, _, back = line.partition(" - ")
        words, tail = front.split(), back.split()
        kind, source = tail[0], _unescape(tail[1])
        mounts.append(_Mount(words[2], _unescape(words[4]), kind, source))
    return mounts


def _unescape(text: str) -> str:
    """Decode a path: the kernel writes a blank in it as an octal escape of three digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _block_names(host: Host, mount: _Mount) -> set[str]:
    """Block devices of a mount: by number, by source, and all members of a btrfs."""
    names = set()
    if host.exists(f"/sys/dev/block/{mount.device}"):
        names.add(PurePosixPath(host.resolve(f"/sys/dev/block/{mount.device}")).name)
    elif mount.source.startswith("/dev/"):
        names.add(_node_name(host, mount.source))
    if mount.kind == "btrfs":
        for pool in host.names("/sys/fs/btrfs"):
            members = set(host.names(f"/sys/fs/btrfs/{pool}/devices"))
            names |= members if members & names else set()
    return names


def _node_name(host: Host, node: str) -> str:
    """'/dev/mapper/root' is a link to '../dm-0'; the kernel's name is what it ends at."""
    return PurePosixPath(host.resolve(node)).name


def _names_below(host: Host, file: str) -> set[str]:
    """Block devices of the file system that holds a file: that of the longest mount point."""
    path = PurePosixPath(file)
    above = [mount for mount in _mounts(host) if path.is_relative_to(mount.point)]
    return _block_names(host, max(above, key=lambda mount: len(mount.point))) if above else set()


def _disks_under(host: Host, name: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Sysfs paths of the real disks below a block device: dm, md, loop, partition, NVMe paths."""
    path = host.resolve(f"/sys/class/block/{name}")
    if name in seen or not host.exists(path):
        return
    yield path
    parent = str(PurePosixPath(path).parent)
    yield from _controllers(host, parent)
    lower = set(host.names(f"{path}/slaves"))
    if host.exists(f"{path}/partition"):
        lower.add(PurePosixPath(parent).name)
    if (backing := host.read(f"{path}/loop/backing_file")) is not None:
        lower |= _names_below(host, backing)
    for below in sorted(lower):
        yield from _disks_under(host, below, seen | {name})


def _controllers(host: Host, folder: str) -> Iterator[str]:
    """List the controllers of an NVMe subsystem: its namespaces' path has no PCI function."""
    if "/nvme-subsystem/" in folder:
        for name in filter(_CONTROLLER.fullmatch, host.names(folder)):
            yield host.resolve(f"{folder}/{name}")


def _routed(host: Host) -> set[str]:
    """Interfaces that carry a route; link-local, multicast and the machine's own do not count."""
    routed = {line.split()[0] for line in (host.read("/proc/net/route") or "").splitlines()[1:]}
    for line in (host.read("/proc/net/ipv6_route") or "").splitlines():
        words = line.split()
        leads_out = not int(words[8], 16) & _RTF_OWN
        if leads_out and not words[0].startswith(_NEAR):
            routed.add(words[9])
    return routed - {"lo"}


def _interfaces_under(host: Host, name: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """List the interface and those that a bridge, bond or VLAN stands on."""
    if name in seen:
        return
    yield name
    for link in host.names(f"/sys/class/net/{name}"):
        if link.startswith("lower_"):
            yield from _interfaces_under(host, link.removeprefix("lower_"), seen | {name})
