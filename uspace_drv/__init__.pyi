from .attachment import Attachment, attach
from .deadline import Deadline
from .device import Device
from .dma import DmaBuffer, collect, publish
from .driver import Driver
from .errors import (
    BusyError,
    ClosedError,
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    HostError,
    LayoutError,
    NoDevice,
    NoDriver,
    RegisterValueError,
    UnsupportedError,
    UspaceError,
)
from .handlers import interrupt
from .irq import Irq
from .layout import Layout
from .native import get_include
from .pci.ids import Modalias, PciId, UioName
from .plugins import Plugin
from .port import Direction, Iova, IrqKind
from .registers import Register, RegisterBlock, array, bit, field, ro, rw, w1c, wo

__all__ = [
    "Attachment",
    "BusyError",
    "ClosedError",
    "Deadline",
    "Device",
    "DeviceError",
    "DeviceGone",
    "DeviceTimeout",
    "Direction",
    "DmaBuffer",
    "Driver",
    "HostError",
    "Iova",
    "Irq",
    "IrqKind",
    "Layout",
    "LayoutError",
    "Modalias",
    "NoDevice",
    "NoDriver",
    "PciId",
    "Plugin",
    "Register",
    "RegisterBlock",
    "RegisterValueError",
    "UioName",
    "UnsupportedError",
    "UspaceError",
    "array",
    "attach",
    "bit",
    "collect",
    "field",
    "get_include",
    "interrupt",
    "publish",
    "ro",
    "rw",
    "w1c",
    "wo",
]
