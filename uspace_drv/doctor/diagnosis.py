"""Gathers, judges, and sums up: the whole of what `uspace doctor` has to say, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from uspace_drv.doctor.facts import Facts, gather
from uspace_drv.doctor.observer import Observer
from uspace_drv.doctor.other_ways import (
    judge_guest,
    judge_platform,
    judge_sysfs,
    judge_uio,
    judge_vfio_user,
    judge_virtual,
)
from uspace_drv.doctor.provider import request_to_provider
from uspace_drv.doctor.subject import Subject
from uspace_drv.doctor.verdict import State, Verdict
from uspace_drv.doctor.vfio_ways import MODULES, judge_vfio
from uspace_drv.pci.address import DeviceAddress


@dataclass(frozen=True)
class Diagnosis:
    """The facts, one verdict for each way, and what to ask a provider for (None: nothing)."""

    facts: Facts
    verdicts: Sequence[Verdict]
    request: str | None

    @property
    def has_a_way(self) -> bool:
        """Whether some way to hardware works, or will after the lines that are given for it."""
        return any(each.is_real and each.state is not State.CANNOT for each in self.verdicts)

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        facts = self.facts
        user = asdict(facts.user) | {"is_root": facts.user.is_root}
        return {
            "kernel": asdict(facts.kernel),
            "machine": asdict(facts.machine),
            "user": user,
            "iommu": asdict(facts.iommu) | {"is_on": facts.iommu.is_on},
            "candidates": list(facts.candidates),
            "uio_nodes": [f"uio:{node.node}" for node in facts.nodes],
            "rights": dict(facts.rights),
            "shared_groups": {str(key): list(value) for key, value in facts.shared_groups.items()},
            "function": None if facts.subject is None else _function(facts.subject),
            "ways": [
                {
                    "way": each.way,
                    "verdict": each.state.name.lower(),
                    "is_real": each.is_real,
                    "why": list(each.why),
                    "lines": list(each.lines),
                }
                for each in self.verdicts
            ],
            "request": self.request,
        }


def diagnose(host: Observer | None = None, where: DeviceAddress | None = None) -> Diagnosis:
    """Examine this machine, or one device of it; nothing is changed.

    Raises `NoDevice` where there is nothing at that address, `UnsupportedError` where it is not
    one of this machine's hardware.
    """
    facts = gather(host or Observer(), where)
    verdicts = _judge(facts)
    return Diagnosis(facts, verdicts, request_to_provider(facts, verdicts))


def _judge(facts: Facts) -> list[Verdict]:
    if facts.node is not None:
        return [judge_platform(facts)]
    ways = [*(judge_vfio(way, facts) for way in MODULES), judge_uio(facts)]
    if facts.subject is not None:
        return [*ways, judge_sysfs(facts)]
    rest = (judge_platform, judge_sysfs, judge_vfio_user, judge_virtual, judge_guest)
    return [*ways, *(judge(facts) for judge in rest)]


def _function(subject: Subject) -> dict[str, Any]:
    function = subject.function
    group = function.group
    return {
        "address": subject.address,
        "driver": function.driver,
        "iommu_group": group and (None if group.is_noiommu else group.number),
        "siblings": [asdict(sibling) for sibling in subject.siblings],
        "uses": list(subject.uses),
        "intx_pin": subject.pin,
        "irq": function.irq,
        "needs_identity": subject.needs_identity,
    }
