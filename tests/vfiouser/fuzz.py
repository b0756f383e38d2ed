"""The fuzzers' entry: atheris (libFuzzer for Python) around the parsers; run by scripts/fuzz."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

with atheris.instrument_imports(include=["uspace_drv.vfiouser"]):
    import uspace_drv
    from tests.vfiouser import framing_twin
    from tests.vfiouser.parsers import PARSERS


def fuzz_wire(payload: bytes) -> None:
    """Every parser is given every payload, so that the order of the parsers means nothing."""
    for parser in PARSERS:
        parser.refuse_or_take(payload)


TARGETS = {"wire": fuzz_wire, "framing": framing_twin.check}


def main() -> None:
    """Run the target that is named first; the other arguments are libFuzzer's."""
    here = Path(__file__).parents[2]
    if not Path(uspace_drv.__file__).is_relative_to(here):
        sys.exit(f"fuzz: {uspace_drv.__file__} was loaded, not the copy in {here}")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
