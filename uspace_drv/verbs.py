"""What a driver says of its verbs to those who offer them, such as `uspace run`.

A verb is a public method of a driver. Its signature says what it takes; this module has the words
for what a signature cannot say: that data is lost, what a number counts, how far a long one is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Unit:
    """What a number counts: `size: Annotated[int, Unit("B")]`, in a signature or a dataclass.

    The command line prints 1073741824 B as 1.0 GiB, 0.0000012 s as 1.2 us and 5e9 B/s as 5.0 GB/s;
    any other unit follows the number as it is. JSON has plain numbers. An argument in B is read
    as 4096, 4K or 1G too.
    """

    name: str


Size = Annotated[int, Unit("B")]
"""A number of bytes."""


class Progress(Protocol):
    """How a long verb says how far it is, in bytes; `total` is 0 where nobody knows.

    A verb takes it as the keyword-only parameter `progress: Progress | None = None`. That is no
    option on the command line, which gives one that draws a bar where somebody sees it. It may be
    called as often as the verb likes.
    """

    def __call__(self, done: int, total: int, /) -> None:
        """Take notice that `done` of `total` bytes are done."""


@dataclass(frozen=True)
class _Loss:
    """What a destructive verb destroys, and the parameter without which it destroys nothing."""

    what: str
    when: str | None


def destructive(what: str, *, when: str | None = None) -> Callable[[F], F]:
    """Mark a verb that destroys data; `what` says in a sentence's words which, "... is lost".

    Parameters in braces are filled in: "block {lba} of namespace {namespace}". With `when`, only
    a call in which that parameter is true destroys anything. `uspace run` asks before it calls such
    a verb, and without a terminal it wants --yes. From Python nobody is asked.
    """

    def mark(function: F) -> F:
        function.__dict__["__loss__"] = _Loss(what, when)
        return function

    return mark


def is_destructive(function: Callable[..., Any]) -> bool:
    """Whether a call of that verb may destroy something."""
    return hasattr(function, "__loss__")


def loss_of(
    function: Callable[..., Any], positional: tuple[Any, ...], named: Mapping[str, Any]
) -> str | None:
    """Return what this call of a driver's method destroys, in words; None for nothing."""
    loss: _Loss | None = getattr(function, "__loss__", None)
    if loss is None:
        return None
    bound = inspect.signature(function).bind(None, *positional, **named)  # None is its self
    bound.apply_defaults()
    if loss.when is not None and not bound.arguments[loss.when]:
        return None
    return loss.what.format_map(bound.arguments)


def is_python_only(function: Callable[..., Any]) -> bool:
    """Whether that method is marked as no verb."""
    return hasattr(function, "__python_only__")


def python_only(function: F) -> F:
    """Mark a public method of a driver that is no verb: what it returns serves only a program."""
    function.__dict__["__python_only__"] = True
    return function
