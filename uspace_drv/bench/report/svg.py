"""A plot as SVG that stands inside an HTML page: no ids that clash, colours from its style sheet.

HTML Living Standard, section 4.8.17: inline SVG needs no XML prologue and no name spaces.
"""

from __future__ import annotations

import re
from io import BytesIO
from xml.etree import ElementTree as Xml

from matplotlib.figure import Figure

from uspace_drv.bench.report.canvas import drawing
from uspace_drv.bench.report.panels import WIDTH, Panel
from uspace_drv.bench.report.theme import PAGE, variables

NAME_SPACE = re.compile(r"\{[^}]*\}")
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
REFERENCE = re.compile(r"(?<=url\()#")
COLOURS = {colour: f"var({name})" for name, colour in variables(PAGE).items()}
COLOUR = re.compile("|".join(COLOURS))


def inline_svg(panel: Panel, prefix: str) -> str:
    """Return a plot as an `<svg>` element; all ids in it begin with `prefix`.

    Text stays text, and every colour is a variable of the page, so it follows dark and light.
    """
    with drawing(PAGE):
        figure = Figure(figsize=(WIDTH, panel.height), layout="constrained")
        panel.draw(figure, PAGE)
        file = BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    root = Xml.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in [each for each in parent if each.tag.endswith("}metadata")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = NAME_SPACE.sub("", element.tag)
        element.attrib = _attributes(element.attrib, prefix)
    label = NOT_XML.sub(" ", f"Plot: {panel.title}. The tables of this suite have its figures.")
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Xml.tostring(root, encoding="unicode").strip()


def _attributes(found: dict[str, str], prefix: str) -> dict[str, str]:
    """Return attributes whose ids and references carry the prefix, with the page's colours."""
    made = {}
    for name, value in found.items():
        local = NAME_SPACE.sub("", name)
        if local == "id":
            made[local] = f"{prefix}{value}"
        elif local == "href":
            made[local] = value.replace("#", f"#{prefix}", 1)
        elif value in COLOURS:
            # The ground of a hatch is an attribute, where a variable has no place.
            made["style"] = f"{local}: {COLOURS[value]}"
        else:
            made[local] = COLOUR.sub(
                lambda hit: COLOURS[hit[0]], REFERENCE.sub(f"#{prefix}", value)
            )
    return made
