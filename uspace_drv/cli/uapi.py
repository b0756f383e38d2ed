"""`uspace uapi`: how much of the kernel's interface is covered, point by point."""

from __future__ import annotations

import click

from uspace_drv.cli.group import examples
from uspace_drv.cli.output import json_option, show_json, show_table
from uspace_drv.testing.uapi_points import POINTS


@click.command("uapi", epilog=examples("uspace uapi", "uspace uapi --json"))
@json_option
def uapi(as_json: bool) -> None:
    """Show which calls of VFIO and iommufd this framework makes, and which tests make them.

    A call counts when it is wrapped and when a test makes it on a real kernel, in a guest.

    \b
    --json prints an object: score, of, and points, a list of
      object, name, since, wrapped, test, unsupported
    """
    points = [(kind, point) for kind, group in POINTS.items() for point in group]
    score = sum(point.counts for _, point in points)
    if as_json:
        found = [
            {
                "object": kind,
                "name": point.name,
                "since": f"Linux {point.since}",
                "wrapped": point.wrapped,
                "test": point.test,
                "unsupported": point.unsupported or None,
            }
            for kind, point in points
        ]
        show_json({"score": score, "of": len(points), "points": found})
        return
    rows = (
        (
            point.name,
            point.since,
            (point.wrapped or "-").removeprefix("uspace_drv."),
            point.test.rpartition("::")[2] if point.test else point.unsupported,
        )
        for _, point in points
    )
    show_table(("call", "Linux", "wrapped by", "tested in the guest by"), rows)
    click.echo(f"\n{score} of {len(points)} are wrapped and tested on a real kernel")
