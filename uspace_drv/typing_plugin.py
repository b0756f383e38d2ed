"""The mypy plugin: knows the fields of a register where they are keywords.

`status.write(computing=True)`, `Status(computing=True)`: the table has no annotations, so mypy
sees `**fields`; this puts the table's fields in its place. It follows mypy's plugin interface
("Extending mypy using plugins" in mypy's manual).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mypy.nodes import ARG_NAMED_OPT, ARG_STAR2, TypeInfo
from mypy.plugin import CheckerPluginInterface, FunctionSigContext, MethodSigContext, Plugin
from mypy.types import AnyType, CallableType, Instance, Type, TypeOfAny, UnionType, get_proper_type

PACKAGE = "uspace_drv.registers"
REGISTER = f"{PACKAGE}.value.Register"
FIELD = f"{PACKAGE}.value.Field"
ACCESSOR = f"{PACKAGE}.accessors.Accessor"
DECLARATION = f"{PACKAGE}.declaration.Declaration"
METHODS = {"write", "update", "clear", "wait", "replace", "encode"}


class RegisterPlugin(Plugin):
    """Offers the signatures below to mypy."""

    def get_function_signature_hook(
        self, fullname: str
    ) -> Callable[[FunctionSigContext], CallableType] | None:
        """Constructors of registers: `Status(computing=True)`."""
        return _constructor if self._is_a(fullname, REGISTER) else None

    def get_method_signature_hook(
        self, fullname: str
    ) -> Callable[[MethodSigContext], CallableType] | None:
        """Verbs of accessors, `replace` of a value, `encode` of a declaration."""
        owner, _, method = fullname.rpartition(".")
        known = method in METHODS and self._is_a(owner, REGISTER, ACCESSOR, DECLARATION)
        return _method if known else None

    def _is_a(self, fullname: str, *bases: str) -> bool:
        """Whether this is the name of a class below one of `bases`."""
        found = self.lookup_fully_qualified(fullname)
        info = found.node if found else None
        return isinstance(info, TypeInfo) and any(info.has_base(base) for base in bases)


def _constructor(context: FunctionSigContext) -> CallableType:
    made = get_proper_type(context.default_signature.ret_type)
    return _with_fields(context.default_signature, made, context.api)


def _method(context: MethodSigContext) -> CallableType:
    return _with_fields(context.default_signature, _value_type(context.type), context.api)


def _value_type(owner: Type) -> Type:
    """Return what a read gives: the last argument of an accessor's or declaration's type."""
    owner = get_proper_type(owner)
    if isinstance(owner, Instance) and owner.args and not owner.type.has_base(REGISTER):
        return get_proper_type(owner.args[-1])
    return owner


def _with_fields(signature: CallableType, value: Type, api: CheckerPluginInterface) -> CallableType:
    """Return the signature with a keyword for each field of `value` instead of `**fields`."""
    if not isinstance(value, Instance) or ARG_STAR2 not in signature.arg_kinds:
        return signature
    fields = dict(_fields(value.type, api))
    kept = [i for i, kind in enumerate(signature.arg_kinds) if kind is not ARG_STAR2]
    return signature.copy_modified(
        arg_types=[*(signature.arg_types[i] for i in kept), *fields.values()],
        arg_kinds=[*(signature.arg_kinds[i] for i in kept), *[ARG_NAMED_OPT] * len(fields)],
        arg_names=[*(signature.arg_names[i] for i in kept), *fields],
    )


def _fields(register: TypeInfo, api: CheckerPluginInterface) -> Iterator[tuple[str, Type]]:
    """Yield name and accepted type of every field, the inherited ones too."""
    number = api.named_generic_type("typing.SupportsIndex", [])
    for info in register.mro:
        for name, symbol in info.names.items():
            declared = get_proper_type(symbol.type)
            if declared is None:  # not inferred yet: modules that import one another
                yield name, AnyType(TypeOfAny.special_form)
            elif isinstance(declared, Instance) and declared.type.fullname == FIELD:
                yield name, UnionType.make_union([declared.args[0], number])


def plugin(_version: str) -> type[Plugin]:
    """Name the plugin; mypy calls this."""
    return RegisterPlugin
