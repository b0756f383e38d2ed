"""`uspace bench`: measures suites, lists them, and compares and shows what was measured before."""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

import click

from uspace_drv.cli.group import LazyGroup, as_typed, examples
from uspace_drv.errors import HostError
from uspace_drv.opening import VIAS

EXTRA = ("hdrh", "jinja2", "matplotlib", "msgspec", "psutil")
"""The modules of the extra `bench`: all else works without them."""

SUMMARIES = {
    "run": "Measure suites; this word may be left out.",
    "list": "List the installed suites.",
    "compare": "Set two results files side by side.",
    "report": "Write the report of a results file again.",
}
FILE = click.Path(dir_okay=False, path_type=Path)
HELP = ("-h", "--help")


def _named(_context: click.Context, _option: click.Parameter, name: Path | None) -> Path | None:
    """Refuse a name that is none: the suffixes would have nothing to follow."""
    if name is not None and not name.name:
        raise click.BadParameter(f"{str(name)!r} names no file; for example: --output before")
    return name


def _finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    """Refuse what is no number, and a time that never ends."""
    if value is not None and not isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


class Bench(LazyGroup):
    """A group whose command `run` is meant where none is named."""

    def summaries(self) -> dict[str, str]:
        """Return the commands."""
        return SUMMARIES

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of the commands below."""
        made = {"run": run, "list": list_suites, "compare": compare, "report": report}
        return made.get(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the word `run` before what is the name of a suite, an option or nothing."""
        if not args or args[0] not in {*SUMMARIES, *HELP}:
            args.insert(0, "run")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of `run`, too: they follow here as well."""
        options = [each for each in run.params if isinstance(each, click.Option)]
        records = [each.get_help_record(ctx) for each in options]
        with formatter.section("Options"):
            formatter.write_dl([each for each in records if each])
        self.format_commands(ctx, formatter)


@click.group(
    "bench",
    cls=Bench,
    subcommand_metavar="[SUITE]... | COMMAND [ARGS]...",
    short_help="Measure against the kernel's path, with a report.",
    epilog=examples(
        "uspace bench --quick                     everything, in two minutes",
        "uspace bench nvme --vm                   against the kernel, in a virtual machine",
        "uspace bench nvme --device 0000:03:00.0 --beside 0000:04:00.0",
        "uspace bench mmio irq --output before    before.json, before.html, before.png",
        "uspace bench compare before.json after.json",
    ),
)
def bench() -> None:
    """Measure user space against the kernel's path, and write a report.

    Each SUITE compares ways to do the same thing, in turns: uspace bench list. Without one, all
    installed are measured. Figures come as ratios to a baseline, with 95 % intervals; what else
    the machine did is noted beside them. NAME.json has everything that was measured,
    NAME.html, NAME.png and NAME-dark.png show it.

    Without --device and --vm, a suite measures what needs no device: models, memory, sockets.
    An interrupted run keeps what it has. Exit code 0 if all was measured or said to be skipped.
    """


@click.command("run", short_help=SUMMARIES["run"])
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@click.option(
    "--quick", is_flag=True, help="The comparisons that say most, for a tenth of the time."
)
@click.option("--vm", is_flag=True, help="Measure in a guest with QEMU's devices; no KVM needed.")
@click.option("--device", metavar="ADDR", help="The device to measure, of one SUITE.")
@click.option("--beside", metavar="ADDR", help="An equal one that stays with its kernel driver.")
@click.option("--via", type=click.Choice(VIAS), help="How to open the device.")
@click.option(
    "--unsafe-dma-without-iommu",
    is_flag=True,
    help="Let the device reach all of the machine's memory, where no IOMMU translates.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    callback=_finite,
    help="For each comparison: 30, with --quick 3; each way is measured a few times in any case.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="NAME",
    callback=_named,
    help="Write NAME.json and so on, instead of ./uspace-bench-DATE-TIME.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results file, not tables.")
@click.option("--lines", is_flag=True, hidden=True)
def run(suites: tuple[str, ...], *, vm: bool, **options: Any) -> None:
    """Measure suites, print tables, and write a report: see uspace bench --help."""
    if options["device"] or options["beside"] or options["via"]:
        if len(set(suites)) != 1:
            raise click.UsageError("--device, --beside and --via belong to one SUITE: name it")
        if vm and (options["device"] or options["beside"]):
            raise click.UsageError("--vm has devices of its own: leave --device and --beside out")
    if options["via"] and not (options["device"] or vm):
        raise click.UsageError("--via opens a --device, or one of --vm: give one of them, too")
    if options["beside"] and not options["device"]:
        raise click.UsageError("--beside stands beside a --device: give that, too")
    require_extra()
    from uspace_drv.cli.bench_run import Wishes, measure  # noqa: PLC0415 - needs the extra

    measure(Wishes(names=suites, vm=vm, **options))


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_suites(as_json: bool) -> None:
    """List the installed suites, those that cannot be loaded with the reason.

    --json prints a list of objects: name, summary, origin, reason (null for one that works),
    devices (QEMU's, that --vm adds).
    """
    require_extra()
    from uspace_drv.cli.bench_show import show_suites  # noqa: PLC0415

    show_suites(as_json=as_json)


@click.command("compare")
@click.argument("before", type=FILE, metavar="A.json")
@click.argument("after", type=FILE, metavar="B.json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(before: Path, after: Path, as_json: bool) -> None:
    """Set two results files side by side: what both measured, and how the machines differ."""
    require_extra()
    from uspace_drv.cli.bench_compare import show_comparison  # noqa: PLC0415

    show_comparison(before, after, as_json=as_json)


@click.command("report")
@click.argument("file", type=FILE, metavar="FILE.json")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="NAME",
    callback=_named,
    help="Write NAME.html.",
)
@click.option("--markdown", is_flag=True, help="Print it as a page of Markdown, write nothing.")
def report(file: Path, output: Path | None, markdown: bool) -> None:
    """Write the HTML page and the images of a results file again; those of old are replaced.

    With --output they get another name, which must be free.
    """
    require_extra()
    from uspace_drv.cli.bench_show import print_markdown, rewrite_report  # noqa: PLC0415

    if markdown:
        print_markdown(file)
    else:
        rewrite_report(file, output)


def require_extra() -> None:
    """Raise `HostError` if a module that is needed here alone is missing, with the cure."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        setup = Path(__file__).parents[2] / "scripts" / "setup"
        cure = f"{setup} bench" if setup.exists() else "pip install 'uspace-drv[bench]'"
        plural = "s" if len(missing) > 1 else ""
        raise HostError(
            f"{as_typed('uspace bench')} needs the Python package{plural} {', '.join(missing)};"
            f" run: {cure}"
        )
