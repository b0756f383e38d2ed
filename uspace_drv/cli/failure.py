"""How a command that fails ends: what is printed of an error, and output that cannot be written."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TypeGuard

import click

from uspace_drv.errors import UspaceError

OWN = ("click.", "uspace_drv.cli.")
"""The command line's own modules, and what it is made with."""

LEADING = (*OWN, "uspace_drv.bench.runner", "uspace_drv.bench.ways")
"""The modules that lead to a plugin's code, and say nothing about what went wrong in there."""


def report(headline: str, error: BaseException) -> None:
    """Print one line, and the notes of the error below it."""
    notes = [f"  {note}" for note in getattr(error, "__notes__", ())]
    for line in filter(None, [headline, *notes]):
        click.echo(line, err=True)


def show_traceback(error: BaseException, trace: TracebackType | None) -> None:
    """Print the error with the frames of `trace`."""
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def frames_of_plugin(error: BaseException) -> TracebackType | None:
    """Return the traceback from the first frame that does not merely lead to the plugin."""
    trace = error.__traceback__
    while trace and _module(trace).startswith(LEADING):
        trace = trace.tb_next
    return trace or error.__traceback__


def is_about_output(error: BaseException) -> TypeGuard[OSError]:
    """Whether something could not be printed: it was raised by the code that prints."""
    if not isinstance(error, OSError) or isinstance(error, UspaceError) or error.filename:
        return False
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and _module(trace).startswith((*OWN, "rich."))


def give_output_up(error: OSError) -> None:
    """Say so once; what is buffered goes nowhere, else Python would fail with it at its end."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    report(f"error: cannot write to standard output: {error.strerror}", error)


def _module(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals["__name__"])
