"""What a model holds, as bytes: configuration space, registers, and the memory of its BARs.

It is JSON, so that two versions of a model may still understand one another. What a model keeps in
attributes of its own does not travel.
"""

from __future__ import annotations

import json
from typing import Any

from uspace_drv.models import DeviceModel
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.vfiouser.server.refusal import invalid

DWORD = 4
LONGEST = len(str((1 << 64) - 1))


def save(model: DeviceModel) -> bytes:
    """Take a picture of a model that stands still."""
    config = model.config
    state = {
        "ids": _ids(model),
        "config": [config.read(place, DWORD) for place in range(0, config.size, DWORD)],
        "registers": {
            name: register.encode(model.get(register)) for name, register in _registers(model)
        },
        "memory": {name: bytes(part).hex() for name, part in _memory(model)},
    }
    return json.dumps(state).encode()


def largest(model: DeviceModel) -> int:
    """Bytes that no state of this model exceeds: every number may be as long as it can get."""
    numbers = model.config.size // DWORD + len(_registers(model))
    return len(save(model)) + numbers * LONGEST


def restore(model: DeviceModel, data: bytes) -> None:
    """Make a model hold what `save` saw of another one; a `Refusal` if it cannot have been one."""
    try:
        state = json.loads(data)
        parts = {name: bytes.fromhex(text) for name, text in state["memory"].items()}
        numbers = [*state["config"], *state["registers"].values(), *state["ids"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise invalid(f"{model.name}: no state of a model: {error!r}") from error
    _check(model, state, parts, numbers)
    for index, value in enumerate(state["config"]):
        model.config.write(index * DWORD, DWORD, value)
    for name, register in _registers(model):
        model.set(register, state["registers"][name])
    for name, part in _memory(model):
        part[:] = parts[name]


def _check(
    model: DeviceModel, state: dict[str, Any], parts: dict[str, bytes], numbers: list[Any]
) -> None:
    if state["ids"] != _ids(model):
        raise invalid(f"{model.name}: the state of a device {state['ids']}, not {_ids(model)}")
    fits = (
        all(type(number) is int and number >= 0 for number in numbers)
        and [*state["registers"]] == [name for name, _ in _registers(model)]
        and {name: len(part) for name, part in parts.items()}
        == {name: len(part) for name, part in _memory(model)}
        and len(state["config"]) * DWORD == model.config.size
        and all(value < 1 << 32 for value in state["config"])
    )
    if not fits:
        raise invalid(f"{model.name}: the state of a device with other registers or memory")


def _ids(model: DeviceModel) -> list[int]:
    config = model.config
    return [config.get(ConfigHeader.vendor_id), config.get(ConfigHeader.device_id)]


def _registers(model: DeviceModel) -> list[tuple[str, Any]]:
    return [
        (f"{number} {register.offset:#x} {register.label}", register)
        for number, view in model.bar_list.items()
        if view.bar.registers is not None
        for register in view.bar.registers.registers()
    ]


def _memory(model: DeviceModel) -> list[tuple[str, memoryview]]:
    return [
        (f"{number} {area.offset:#x}", model.bar_memory(number)[area.offset : area.end])
        for number, view in model.bar_list.items()
        for area in view.areas
    ]
