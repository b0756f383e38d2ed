"""`uspace doctor`: which ways to a device this machine has, and what would open the others."""

from __future__ import annotations

import click
from rich.text import Text

from uspace_drv.cli.group import as_typed, examples
from uspace_drv.cli.output import json_option, show_facts, show_json, show_table, tick
from uspace_drv.doctor import Diagnosis, State, Verdict, diagnose
from uspace_drv.doctor.facts import Facts
from uspace_drv.doctor.observer import Observer
from uspace_drv.pci.address import DeviceAddress

EXIT_NO_WAY = 1

# Colours by name: a terminal shows its own shade of them, for a dark or a light background.
STYLES = {State.WORKS: "green", State.AFTER: "yellow", State.CANNOT: "red"}
WORDS = {State.WORKS: "works", State.AFTER: "after lines", State.CANNOT: "cannot"}


@click.command(
    "doctor",
    epilog=examples(
        "uspace doctor",
        "uspace doctor 0000:00:04.0",
        "uspace doctor --json | jq -r '.ways[] | select(.verdict == \"after\") | .lines[]'",
    ),
)
@click.argument("address", metavar="[ADDR]", required=False)
@json_option
@click.pass_context
def doctor(context: click.Context, address: str | None, as_json: bool) -> None:
    """Explain this machine, or one device of it, to whoever wants to drive a device from here.

    Takes no rights and changes nothing; it looks as the user who runs it, so ask as the one who
    will run the driver. For each way: it works, it works after these lines, or it cannot, and why.
    Without ADDR that is said of the machine: of any device once it is handed over (uspace bind).
    Exit code 0 if some way to hardware works or will after lines, 1 if there is none; models
    (virtual, vfio-user, guest) do not count.

    \b
    --json prints an object:
      kernel      release, options_from, no_modules (why none can be loaded), modules (name:
                  state), parts (option: true, false, null), command_line
      machine     architecture, processor, virtual, container, sealed, lockdown, secure_boot,
                  huge_page_size, free_huge_pages, has_kvm
      user        number, name, capabilities, memlock (soft and hard, bytes), is_root
      iommu       tables, units, words, groups, remaps_interrupts, allows_unsafe_interrupts, is_on
      candidates  addresses that could be handed over
      uio_nodes   of the board's devices, like uio:uio0
      rights      node: whether this user may open it
      shared_groups  number: members whose drivers keep VFIO from handing the group out
      function    address, driver, iommu_group, siblings, uses, intx_pin, irq, needs_identity;
                  null without ADDR
      ways        each with way, verdict (works, after, cannot), is_real, why, lines
      request     what to ask a provider for, or null
    What cannot be known is null.
    """
    where = None if address is None else DeviceAddress.parse(address)
    diagnosis = diagnose(Observer(), where)
    if as_json:
        show_json(diagnosis.as_data())
    else:
        _show(diagnosis)
    if not diagnosis.has_a_way:
        context.exit(EXIT_NO_WAY)


def _show(diagnosis: Diagnosis) -> None:
    facts = diagnosis.facts
    show_facts(_of_function(facts) or _of_machine(facts))
    click.echo()
    show_table(("", "way", "verdict", "why"), [_row(each) for each in diagnosis.verdicts])
    for verdict in diagnosis.verdicts:
        if verdict.lines:
            click.echo(f"\n{verdict.way} works after:")
            for line in verdict.lines:
                click.echo(f"  {as_typed(line)}")
    if facts.subject is None and facts.candidates and diagnosis.has_a_way:
        named = facts.candidates[0]
        click.echo(f"\nEach device is handed over by itself; ask: uspace doctor {named}")
    if diagnosis.request:
        click.echo(f"\nTo ask your provider:\n{diagnosis.request}")


def _row(verdict: Verdict) -> list[str | Text]:
    style = STYLES[verdict.state]
    mark = {State.AFTER: "->"}.get(verdict.state) or tick(verdict.state is State.WORKS)
    why = "; ".join(verdict.why)
    return [Text(mark, style), verdict.way, Text(WORDS[verdict.state], style), why]


def _of_machine(facts: Facts) -> dict[str, str | list[str]]:
    machine, kernel, user = facts.machine, facts.kernel, facts.user
    modules = [f"{name}: {state}" for name, state in kernel.modules.items()]
    soft = user.memlock[0]
    pages = f"{machine.free_huge_pages} free of {machine.huge_page_size >> 10} KiB"
    listed = ", ".join(facts.candidates) or "none"
    return {
        "kernel": [kernel.release, kernel.no_modules or ""],
        "options": kernel.options_from or "told nowhere",
        "drivers": modules,
        "machine": _kind(facts),
        "lockdown": _locks(facts),
        "user": f"{user.name} ({user.number}), memlock "
        + ("without limit" if soft is None or user.is_root else f"{soft >> 10} KiB"),
        "IOMMU": _iommu(facts),
        "blocked groups": [f"{n}: {', '.join(who)}" for n, who in facts.shared_groups.items()],
        "nodes": [f"{path}: {'yours' if may else 'closed'}" for path, may in facts.rights.items()],
        "huge pages": pages if machine.huge_page_size else "none",
        "to spare": f"{listed} (of {facts.function_count} PCI functions)",
    }


def _of_function(facts: Facts) -> dict[str, str | list[str]] | None:
    subject = facts.subject
    if subject is None:
        return None
    function = subject.function
    group = function.group
    siblings = [f"{each.address} ({each.driver}) blocks it" for each in subject.siblings]
    number = "none" if group is None else f"{group.number}, {group.type or 'no IOMMU behind it'}"
    return {
        "function": subject.address,
        "driver": function.driver or "none",
        "IOMMU group": [number, *siblings],
        "in use": [f"never hand it over: {use}" for use in subject.uses] or "no",
        "INTx": "unknown" if subject.pin is None else "ABCD"[subject.pin - 1 : subject.pin] or "no",
        "user": facts.user.name,
    }


def _kind(facts: Facts) -> str:
    machine = facts.machine
    kind = machine.virtual or "a real one"
    inside = f", in a container ({machine.container})" if machine.container else ""
    return f"{kind}, {machine.architecture}{inside}"


def _locks(facts: Facts) -> str:
    secure = {True: "on", False: "off", None: "none"}[facts.machine.secure_boot]
    return f"{facts.machine.lockdown or 'none'}, Secure Boot: {secure}"


def _iommu(facts: Facts) -> list[str]:
    iommu = facts.iommu
    remaps = {True: "remapped", False: "NOT remapped", None: "remapping unknown"}
    if iommu.is_on:
        units = ", ".join(iommu.units)
        return [f"on: {units}; {iommu.groups} groups; interrupts {remaps[iommu.remaps_interrupts]}"]
    shown = ", ".join(iommu.tables) or "none"
    words = " ".join(iommu.words) or "nothing"
    return [f"off; shown by the firmware: {shown}; on the kernel's line: {words}"]
