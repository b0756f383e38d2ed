"""`uspace drivers`: the plugins that are installed, the broken ones too."""

from __future__ import annotations

import click

from uspace_drv.cli.group import examples
from uspace_drv.cli.identity import describe_driver
from uspace_drv.cli.output import Facts, json_option, show_facts, show_json
from uspace_drv.cli.verbs import verbs_of
from uspace_drv.plugins import Installed, installed_plugins


@click.command("drivers", epilog=examples("uspace drivers", "uspace drivers --json"))
@json_option
def drivers(as_json: bool) -> None:
    """List the installed driver plugins: what they match, their verbs, their model.

    A plugin that cannot be loaded is listed with the reason.

    \b
    --json prints a list of objects:
      name, origin, description, matches, verbs, registers (BARs with a table),
      model (its address, or null), broken (the reason, or null)
    """
    found = [_facts(installed) for installed in installed_plugins()]
    if as_json:
        show_json(found)
        return
    if not found:
        click.echo("no driver plugins are installed")
    for number, facts in enumerate(found):
        about = "broken" if facts["broken"] else facts["description"]
        click.echo("\n" * bool(number) + ": ".join(filter(None, [facts["name"], about])))
        _show(facts)


def _facts(installed: Installed) -> Facts:
    plugin = installed.plugin
    has_model = plugin is not None and plugin.model is not None
    return {
        "name": installed.name,
        "origin": installed.origin,
        "description": describe_driver(plugin.driver) if plugin else "",
        "matches": [str(entry) for entry in plugin.driver.id_table] if plugin else [],
        "verbs": list(verbs_of(plugin.driver)) if plugin else [],
        "registers": sorted(plugin.registers) if plugin else [],
        "model": f"virtual:{installed.name}" if has_model else None,
        "broken": installed.reason,
    }


def _show(facts: Facts) -> None:
    show_facts(
        {
            "  reason": facts["broken"] or "",
            "  matches": ", ".join(facts["matches"]),
            "  verbs": ", ".join(facts["verbs"]).replace("_", "-"),
            "  registers": ", ".join(f"BAR {number}" for number in facts["registers"]),
            "  model": facts["model"] or "",
            "  from": facts["origin"],
        }
    )
