"""The register language: what the bits of a device mean, declared as its datasheet prints them.

A `Register` says what the bits of one register mean, a `RegisterBlock` where registers lie and
what may be done with them. The language does no I/O of its own: it calls a `Window`.
"""

from uspace_drv.registers.accessors import Clearable, Link, Readable, ReadWrite, Window, Writable
from uspace_drv.registers.block import RegisterBlock, array, ro, rw, w1c, wo
from uspace_drv.registers.declaration import Access, ArrayDeclaration, Declaration
from uspace_drv.registers.value import Field, Register, bit, field

__all__ = [
    "Access",
    "ArrayDeclaration",
    "Clearable",
    "Declaration",
    "Field",
    "Link",
    "ReadWrite",
    "Readable",
    "Register",
    "RegisterBlock",
    "Window",
    "Writable",
    "array",
    "bit",
    "field",
    "ro",
    "rw",
    "w1c",
    "wo",
]
