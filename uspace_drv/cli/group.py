"""Groups of commands that are looked up when they are named, and guess what was meant."""

from __future__ import annotations

import os
import re
import shutil
import sys
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import click


class LazyGroup(click.Group):
    """A group that knows names and summaries, and makes a command when it is asked for.

    `kind` is what errors call one of them, `title` what help calls them all.
    """

    kind = "command"
    title = "Commands"

    def summaries(self) -> dict[str, str]:
        """What there is: name and one line for each, in the order of the help."""
        raise NotImplementedError

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(self.summaries())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named first, or say which one may have been meant."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(self._unknown(name))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without making any."""
        with formatter.section(self.title):
            formatter.write_dl(list(self.summaries().items()))

    def _unknown(self, name: str) -> str:
        known = list(self.summaries())
        close = get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
        return f"no {self.kind} is called {name!r}; {hint}"


@cache
def started_as() -> str:
    """Return how this command is typed here: its path where it is not found by its name."""
    program = sys.argv[0]
    found = shutil.which("uspace")
    if Path(program).name != "uspace" or (found and Path(found).samefile(program)):
        return "uspace"
    return min(os.path.relpath(program), program, key=len)


def as_typed(lines: str) -> str:
    """Return command lines as they can be typed here."""
    return re.sub(r"(?<![/\w])uspace (?=[a-z])", lambda _: f"{started_as()} ", lines)


def examples(*lines: str) -> str:
    """Return the epilog that shows these command lines."""
    return as_typed("\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines))
