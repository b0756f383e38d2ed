"""Parameters of a model: the keyword-only arguments of its `__init__`, given as text.

virtual:edu?dma_bits=32&dma_delay=0.1
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, get_type_hints

from uspace_drv.errors import LayoutError, NoDevice

TRUTHS = {"yes": True, "true": True, "on": True, "1": True} | {
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


def convert(model: type, texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """Read each text as its parameter's annotation says.

    Raises `NoDevice` for an unknown parameter, a text that does not fit, or one that is missing;
    `LayoutError` for an annotation other than int, float, bool, str or an enum.
    """
    known = parameters(model)
    for name in texts:
        if name not in known:
            raise NoDevice(f"{where}: the model has no parameter {name!r}; {_in_words(known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in texts:
            raise NoDevice(f"{where}: the model needs {name}=…; {_in_words(known)}")
    return {name: _read(known[name], text, where) for name, text in texts.items()}


def parameters(model: type) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of a model's `__init__`, with real types as annotations."""
    function = model.__init__  # type: ignore[misc]  # of whatever class it is
    hints = get_type_hints(function)
    return {
        name: each.replace(annotation=hints.get(name, str))
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is each.KEYWORD_ONLY
    }


def _read(parameter: inspect.Parameter, text: str, where: str) -> Any:
    kind = parameter.annotation
    try:
        return _reader(kind)(text)
    except (ValueError, KeyError):
        expected = _kind_in_words(kind)
        raise NoDevice(f"{where}: {parameter.name}={text!r}: expected {expected}") from None


def _reader(kind: Any) -> Callable[[str], Any]:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda text: kind[text.upper()]
    readers: dict[Any, Callable[[str], Any]] = {
        int: lambda text: int(text, 0),
        float: float,
        bool: lambda text: TRUTHS[text.lower()],
        str: str,
        int | str: str,  # the model reads its own notation, such as 64M
    }
    if kind not in readers:
        raise LayoutError(f"a model's parameter is int, float, bool, str or an enum, not {kind}")
    return readers[kind]


def _kind_in_words(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(member.name.lower() for member in kind)
    words = {int: "a whole number, such as 28 or 0x1c", float: "a number, such as 0.1"}
    return words.get(kind, "yes or no")


def _in_words(known: Mapping[str, inspect.Parameter]) -> str:
    if not known:
        return "it has none"
    return "it has " + ", ".join(
        f"{name} ({getattr(each.annotation, '__name__', each.annotation)}"
        + ("" if each.default is each.empty else f", {each.default!r} by default")
        + ")"
        for name, each in known.items()
    )
