"""The top of the command line: its commands, and how every error leaves it.

Exit codes: 0 done, 1 the device or the host failed, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import click

from uspace_drv.cli.failure import (
    frames_of_plugin,
    give_output_up,
    is_about_output,
    report,
    show_traceback,
)
from uspace_drv.cli.group import LazyGroup, examples, started_as
from uspace_drv.errors import UspaceError

# Summaries are kept here, so that `uspace --help` imports none of the modules.
COMMANDS = {
    "demo": ("demo:demo", "Show the main job, step by step, on a model or a device."),
    "list": ("listing:list_devices", "List PCI functions, UIO nodes and device models."),
    "info": ("info:info", "Show what a device is and has."),
    "doctor": ("doctor:doctor", "Explain which ways to a device this machine has, and what helps."),
    "bind": ("binding:bind_function", "Hand a PCI function to vfio-pci or uio_pci_generic."),
    "restore": ("binding:restore_function", "Give a PCI function back to its kernel driver."),
    "vfs": ("binding:virtual_functions", "Create or remove virtual functions (SR-IOV)."),
    "broker": ("broker:broker", "Lend a device to driver processes without any rights."),
    "drivers": ("drivers:drivers", "List the installed driver plugins."),
    "dump": ("dump:dump", "Read a device's registers, decoded by its plugin's table."),
    "run": ("run:run", "Run a driver's verb on a device."),
    "bench": ("bench:bench", "Measure against the kernel's path, with a report."),
    "serve": ("serve:serve", "Serve a device model to drivers and virtual machines."),
    "uapi": ("uapi:uapi", "Show how much of the kernel's interface is covered, call by call."),
}
EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + 2  # as a shell reports SIGINT


class Commands(LazyGroup):
    """Imports a command's module when the command is used, and reports errors in one place."""

    def summaries(self) -> dict[str, str]:
        """Return every command with its summary."""
        return {name: summary for name, (_, summary) in COMMANDS.items()}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, command = COMMANDS[cmd_name][0].partition(":")
        found = getattr(import_module(f"{__package__}.{module}"), command)
        return cast("click.Command", found)

    def main(self, *words: Any, prog_name: str | None = None, **extra: Any) -> Any:
        """Run the command line, in whose help the program is called as it was started."""
        run: Callable[..., Any] = super().main
        try:
            return run(*words, prog_name=prog_name or started_as(), **extra)
        except OSError as error:
            if not is_about_output(error):
                raise
            give_output_up(error)
            sys.exit(EXIT_FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error is one line, its notes below it.

        What is no `UspaceError` came out of a plugin: its frames are shown, with --debug all.
        """
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # here its failure is still an error like others
            return result  # noqa: TRY300
        except (UspaceError, KeyboardInterrupt) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            if ctx.params["debug"]:
                show_traceback(error, error.__traceback__)
            else:
                report("interrupted" if interrupted else f"error: {error}", error)
            ctx.exit(EXIT_INTERRUPTED if interrupted else EXIT_FAILED)
        except SystemExit as leaving:  # SIGTERM: what went wrong on the way out is in its notes
            report("", leaving)
            raise
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise  # click's own ways to leave
        except Exception as error:
            if is_about_output(error):
                raise
            whole = ctx.params["debug"]
            show_traceback(error, error.__traceback__ if whole else frames_of_plugin(error))
            ctx.exit(EXIT_FAILED)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "uspace demo                                 nothing but this computer needed",
        "uspace run edu virtual:edu factorial 5      a driver's verb on a device model",
        "uspace list; uspace bind 0000:00:04.0       find a device, take it from the kernel",
    ),
)
@click.version_option(package_name="uspace-drv", prog_name="uspace")
@click.option("--debug", is_flag=True, envvar="USPACE_DEBUG", help="Show errors with tracebacks.")
def main(debug: bool) -> None:
    """Run device drivers in user space: on PCI functions, UIO nodes and device models.

    A device is named by its address: 0000:00:04.0 (or 00:04.0), uio:uio0, virtual:edu, or
    vfio-user:PATH for the socket of a server (uspace serve).
    """
