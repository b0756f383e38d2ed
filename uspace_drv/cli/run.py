"""`uspace run DRIVER ADDR VERB`: a driver's public methods as commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click

from uspace_drv.cli.group import LazyGroup, examples
from uspace_drv.cli.identity import describe_driver
from uspace_drv.cli.output import show_json
from uspace_drv.cli.progress import progress_bar
from uspace_drv.cli.results import show_result
from uspace_drv.cli.session import Session, session_options, yes_option
from uspace_drv.cli.values import jsonable
from uspace_drv.cli.verbs import VerbCommand, summary_of, takes_progress, verbs_of
from uspace_drv.driver import Driver
from uspace_drv.pci.address import DeviceAddress
from uspace_drv.plugins import installed_plugins, plugin_named
from uspace_drv.verbs import is_destructive, loss_of

SELF_TEST = "self_test"
"""The verb that says nothing when all is well, which is said for it."""


class Verbs(LazyGroup):
    """`uspace run DRIVER ADDR`: the verbs of a driver."""

    kind = "verb"
    title = "Verbs"

    def __init__(self, name: str, driver: type[Driver], address: str) -> None:
        super().__init__(
            address,
            help=f"{describe_driver(driver)}\n\nVERB --help shows the arguments of a verb.",
            params=[*session_options(with_json=True)],
            subcommand_metavar="VERB [ARGS]...",
            invoke_without_command=True,
            callback=_list_verbs,
        )
        self._name = name
        self._driver = driver
        self._address = address

    def summaries(self) -> dict[str, str]:
        """Return the verbs, as one types them, with the first line of their docstrings."""
        found = verbs_of(self._driver)
        return {_typed(name): summary_of(function) for name, function in found.items()}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Make the command of a verb; 'is-alive' is is_alive."""
        verb = cmd_name.replace("-", "_")
        function = verbs_of(self._driver).get(verb)
        if function is None:
            return None
        options = session_options(with_json=True)
        if is_destructive(function):
            options.append(yes_option())
        call = partial(self._confirm_and_call, verb, function)
        return VerbCommand(_typed(verb), function, call, options)

    def _confirm_and_call(
        self, verb: str, function: Callable[..., Any], *positional: Any, **named: Any
    ) -> None:
        session = click.get_current_context().ensure_object(Session)
        loss = loss_of(function, positional, named)
        if loss and not session.yes:
            _ask(f"{_typed(verb)} on {self._address}: {loss}")
        with session.attach(self._address, self._driver) as driver:
            method = getattr(driver, verb)
            if takes_progress(function):
                with progress_bar(_typed(verb), wanted=not session.json) as progress:
                    result = method(*positional, **named, progress=progress)
            else:
                result = method(*positional, **named)
            # What a verb yields is shown as it comes, while the device is still there.
            for each in result if isinstance(result, Iterator) else [result]:
                if session.json:
                    head = {"driver": self._name, "address": self._address, "verb": verb}
                    show_json({**head, "result": jsonable(each)})
                else:
                    show_result("passed" if verb == SELF_TEST and each is None else each)


class Addresses(LazyGroup):
    """`uspace run DRIVER`: any address follows."""

    kind = "address"
    title = "Verbs"

    def __init__(self, name: str, driver: type[Driver]) -> None:
        super().__init__(
            name,
            help=describe_driver(driver),
            params=[*session_options(with_json=True)],
            subcommand_metavar="ADDR VERB [ARGS]...",
        )
        self._driver = driver

    def summaries(self) -> dict[str, str]:
        """Return the verbs: they are what comes next."""
        return Verbs(self.name or "", self._driver, "").summaries()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the group of verbs at that address; `NoDevice` if it is none."""
        return Verbs(self.name or "", self._driver, str(DeviceAddress.parse(cmd_name)))


class Drivers(LazyGroup):
    """`uspace run`: the name of a driver follows."""

    kind = "driver"
    title = "Drivers"

    def summaries(self) -> dict[str, str]:
        """Return the plugins with the first line of their drivers' docstrings."""
        return {
            found.name: describe_driver(found.plugin.driver)
            if found.plugin
            else f"broken: {found.reason}"
            for found in installed_plugins()
        }

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the group of a driver; `NoDriver` if its plugin is broken."""
        if cmd_name not in self.summaries():
            return None
        return Addresses(cmd_name, plugin_named(cmd_name).driver)


run = Drivers(
    "run",
    help="""Start DRIVER on the device at ADDR, call VERB, print what it returns, and leave.

    Verbs are the driver's public methods; without a VERB they are listed. What a method needs is
    an argument, what has a default is an option: factorial(n, timeout=1.0) is
    `factorial 5 --timeout 2`. The options below may also stand after the verb.

    \b
    int    5, 0x1f, 0b101           bool   --flag, --no-flag
    bytes  deadbeef, text:WORDS, @FILE, @- (standard input)
    size   4096, 4K, 64M, 1G        enum   the name of a member
    a negative number comes after --

    A verb that destroys data asks first, and without a terminal it wants --yes. A long one shows
    on a terminal how far it is. Bytes are printed as a hex dump on a terminal, and as they are into
    a file or pipe.

    --json prints an object with driver, address, verb and result: registers as value and fields,
    bytes in hexadecimal; one object for each item of a verb that yields.
    """,
    short_help="Run a driver's verb on a device.",
    params=[*session_options(with_json=True)],
    subcommand_metavar="DRIVER ADDR VERB [ARGS]...",
    epilog=examples(
        "uspace run edu virtual:edu                      lists the verbs",
        "uspace run edu virtual:edu factorial 5          prints 120",
        "uspace run edu 0000:00:04.0 factorial 0x0a --timeout 2 --irq msi",
        "uspace run edu 0000:00:04.0 load --size 64 > buffer",
        "uspace run nvme 0000:03:00.0 copy-in disk.img   asks first: what was there is lost",
    ),
)


def _typed(verb: str) -> str:
    """How help and messages spell it; `copy_in` is understood as well."""
    return verb.replace("_", "-")


def _list_verbs() -> None:
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _ask(loss: str) -> None:
    """Leave unless somebody who is there wants it; where nobody is, nothing is destroyed."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{loss}; nobody is there to ask, so give --yes if that is wanted")
    click.confirm(f"{loss}. Go on?", abort=True, err=True)
