"""The verbs of a driver: its public methods, with arguments typed as their signatures say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import click

from uspace_drv.cli.arguments import Converter, converter_for
from uspace_drv.driver import Driver
from uspace_drv.verbs import is_python_only

LIFE_CYCLE = frozenset({"probe", "remove", "suspend", "resume", "reset"})
"""What the framework calls, and nobody else."""


def verbs_of(driver: type[Driver]) -> Mapping[str, Callable[..., Any]]:
    """Return the functions by name, those of the driver's own base classes first."""
    classes = driver.__mro__[: driver.__mro__.index(Driver)]
    names = [name for each in reversed(classes) for name in vars(each)]
    found = {name: inspect.getattr_static(driver, name) for name in names}
    return {name: function for name, function in found.items() if _is_verb(name, function)}


def _is_verb(name: str, function: object) -> bool:
    return (
        inspect.isfunction(function)
        and not inspect.iscoroutinefunction(function)
        and not inspect.isasyncgenfunction(function)
        and not name.startswith("_")
        and name not in LIFE_CYCLE
        and not hasattr(function, "__interrupt__")
        and not is_python_only(function)
    )


def takes_progress(function: Callable[..., Any]) -> bool:
    """Whether it has the parameter that is no option, see `uspace_drv.verbs.Progress`."""
    if inspect.isgeneratorfunction(function):
        return False  # what it yields shows how far it is
    return any(map(_is_progress, inspect.signature(function).parameters.values()))


def _is_progress(each: inspect.Parameter) -> bool:
    return each.name == "progress" and each.kind is each.KEYWORD_ONLY


def summary_of(function: Callable[..., Any]) -> str:
    """Return the first line of its docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


class VerbCommand(click.Command):
    """Calls `call` with the arguments of a verb, converted."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        call: Callable[..., None],
        options: list[click.Option],
    ) -> None:
        self._call = call
        self._parameters = [
            (each, *_parameter(each, converter)) for each, converter in _signature(function)
        ]
        taken = {word for _, parameter, _ in self._parameters for word in parameter.opts}
        super().__init__(
            name,
            params=[
                *(parameter for _, parameter, _ in self._parameters),
                *(option for option in options if not taken & {*option.opts}),
            ],
            callback=self._convert_and_call,
            help=inspect.getdoc(function),
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what each argument is, above the options."""
        rows = [
            (parameter.human_readable_name, explanation)
            for _, parameter, explanation in self._parameters
            if isinstance(parameter, click.Argument)
        ]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)

    def _convert_and_call(self, **values: Any) -> None:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for each, parameter, _ in self._parameters:
            value = values[parameter.name or ""]
            if each.kind is each.KEYWORD_ONLY:
                named[each.name] = value
            elif each.kind is each.VAR_POSITIONAL:
                positional += value
            else:
                positional.append(value)
        self._call(*positional, **named)


def _signature(function: Callable[..., Any]) -> list[tuple[inspect.Parameter, Converter]]:
    """Return parameters and converters, without `self`, `progress` and `**anything`."""
    name = function.__name__
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        # A type that is imported for type checkers only; nothing to convert to.
        raise click.UsageError(f"{name} cannot be run from here: {error}") from error
    parameters = list(inspect.signature(function).parameters.values())[1:]
    found = []
    for each in parameters:
        if each.kind is not each.VAR_KEYWORD and not _is_progress(each):
            hint = hints.get(each.name, str if each.default in {each.empty, None} else None)
            converter = converter_for(hint or type(each.default))
            if converter is None:
                raise click.UsageError(
                    f"{name} cannot be run from here: no text stands for its {each.name}, a {hint}"
                )
            found.append((each, converter))
    return found


def _parameter(each: inspect.Parameter, converter: Converter) -> tuple[click.Parameter, str]:
    """Return an argument where the signature has no default, else an option; what it takes."""
    flag = f"--{each.name.replace('_', '-')}"
    many = each.kind is each.VAR_POSITIONAL
    if each.default is each.empty and each.kind is not each.KEYWORD_ONLY:
        argument = click.Argument(
            [each.name], type=converter.convert, nargs=-1 if many else 1, required=not many
        )
        return argument, converter.explanation
    required = each.default is each.empty
    if converter.is_flag and not required:
        option = click.Option([f"{flag}/--no-{flag[2:]}", each.name], default=each.default)
    else:
        option = click.Option(
            [flag, each.name],
            type=converter.convert,
            show_default=converter.show(each.default),
            metavar=converter.name.upper(),
            help=converter.explanation,
            **({"required": True} if required else {"default": each.default}),
        )
    return option, converter.explanation
