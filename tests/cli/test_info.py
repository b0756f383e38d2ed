"""What a device is and has, of a model and of a function in sysfs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from click.testing import Result

Uspace = Callable[..., Result]
KEYS = {
    *("address", "via", "vendor", "device", "name", "class_code", "class", "plugins"),
    *("subsystem", "revision", "driver", "driver_override", "enabled", "numa_node"),
    *("reset_methods", "iommu_group", "bars", "header", "interrupts", "capabilities", "notes"),
}
MSI = {
    "id": "0x5",
    "offset": "0x40",
    "name": "MSI",
    "version": None,
    "detail": "1 vector(s), off, 64-bit address",
    "registers": [
        {
            "name": "control",
            "offset": "0x42",
            "value": "0x0080",
            "fields": {
                "per_vector_masking_capable": "-",
                "address_64_capable": "+",
                "multiple_message_enable": "1 vectors",
                "multiple_message_capable": "1 vectors",
                "msi_enable": "-",
            },
        },
        {"name": "message_address", "offset": "0x44", "value": "0x00000000", "fields": {}},
        {"name": "message_upper_address", "offset": "0x48", "value": "0x00000000", "fields": {}},
        {"name": "message_data", "offset": "0x4c", "value": "0x0000", "fields": {}},
    ],
}
DUMP = Path(__file__).parent.parent / "unit/pci/dumps/q35.txt"


class Machine(Protocol):
    root: Path

    def file(self, path: str, content: str | bytes) -> None: ...


def facts(uspace: Uspace, address: str) -> dict[str, Any]:
    result = uspace("info", address, "--json")
    assert result.exit_code == 0
    found = dict(json.loads(result.stdout))
    assert set(found) == KEYS
    return found


def test_a_model(uspace: Uspace) -> None:
    found = facts(uspace, "virtual:edu")
    assert (found["via"], found["driver"], found["iommu_group"]) == ("virtual", None, None)
    assert found["interrupts"] == {"intx": 1, "msi": 1, "msix": 0}
    assert found["bars"][0]["size"] == 1 << 20
    assert found["capabilities"] == [MSI]
    assert found["plugins"] == ["edu"]


def test_a_function(uspace: Uspace, machine: Machine) -> None:
    found = facts(uspace, "00:04.0")
    assert found["address"] == "0000:00:04.0"
    assert found["iommu_group"] == {
        "number": 7,
        "type": "DMA-FQ",
        "members": [
            {"address": "0000:00:04.0", "driver": "vfio-pci"},
            {"address": "0000:00:04.1", "driver": "e1000e"},
        ],
    }
    assert found["bars"] == [
        {
            "number": 0,
            "size": 1 << 20,
            "start": "0xfea00000",
            "text": "bar 0: 0xfea00000, 0x100000 bytes, memory",
        }
    ]
    assert found["interrupts"] == {"intx": 1, "msi": 1, "msix": 0}
    assert found["capabilities"] == [MSI]
    assert (found["numa_node"], found["reset_methods"]) == (0, ["flr", "bus"])
    assert found["notes"] == []


def test_for_people(uspace: Uspace, machine: Machine) -> None:
    text = uspace("info", "0000:00:04.0").stdout
    assert "0000:00:04.1 (e1000e)" in text
    assert "  capabilities  [0x40] MSI: 1 vector(s)" in text
    assert "  reset         flr, bus" in text


def test_what_a_user_cannot_see_is_said(uspace: Uspace, machine: Machine) -> None:
    machine.file("sys/bus/pci/devices/0000:00:04.0/config", b"\x34\x12\xe8\x11" + bytes(60))
    found = facts(uspace, "0000:00:04.0")
    assert found["capabilities"] is None
    assert found["interrupts"] == {"intx": 0, "msi": None, "msix": None}
    cure = "64 bytes of configuration space can be read; run: sudo uspace info 0000:00:04.0"
    assert cure in found["notes"][0]


def test_a_function_that_is_gone(uspace: Uspace, machine: Machine) -> None:
    found = facts(uspace, "0000:00:04.1")
    assert "reads all ones" in found["notes"][0]
    assert found["interrupts"]["intx"] == 0


def test_the_function_behind_a_uio_node(uspace: Uspace, machine: Machine) -> None:
    for node, device, driver in (
        ("uio3", "0000:00:04.1", "uio_pci_generic"),
        ("uio4", "regs", "uio_pdrv_genirq"),
    ):
        machine.file(f"sys/class/uio/{node}/name", node)
        behind = machine.root / f"sys/devices/{device}"
        behind.mkdir(parents=True)
        (behind / "driver").symlink_to(f"drivers/{driver}")
        (machine.root / f"sys/class/uio/{node}/device").symlink_to(behind)
    assert facts(uspace, "uio:uio3")["address"] == "0000:00:04.1"
    assert "uio:uio4: no PCI function is behind it" in uspace("info", "uio:uio4").stderr
    assert "uio:uio5: no UIO device has this node or name" in uspace("info", "uio:uio5").stderr


def test_a_dump(uspace: Uspace) -> None:
    found = json.loads(uspace("info", "-F", str(DUMP), "--json").stdout)
    assert len(found) == 35
    assert all(set(each) == KEYS for each in found)
    (igb,) = [each for each in found if each["address"] == "0000:01:00.0"]
    assert (igb["via"], igb["device"], igb["reset_methods"]) == ("dump", "0x10c9", [])
    assert igb["interrupts"] == {"intx": 1, "msi": 1, "msix": 10}
    assert igb["bars"][2] == {"number": 2, "size": None, "start": "0xd000", "text": IGB_BAR}
    names = [(each["name"], each["version"]) for each in igb["capabilities"]]
    assert ("Single Root I/O Virtualization", 1) in names


IGB_BAR = "bar 2: 0xd000, io ports"


def test_one_function_of_a_dump_for_people(uspace: Uspace) -> None:
    text = uspace("info", "-F", str(DUMP), "00:08.0").stdout
    assert "header        command 0x0507 interrupt_disable+ serr_enable+ bus_master_enable+" in text
    assert "secondary_bus_number 0x01" in text
    assert "forwards io ports: 0xd000 to 0xdfff" in text
    assert "[0x54] PCI Express: version 2 root port, no function level reset" in text
    assert "presence_detect_state+" in text
    assert "[0x100 v2] Advanced Error Reporting" in text
    assert "reset  " not in text


def test_all_functions_of_a_dump_for_people(uspace: Uspace) -> None:
    text = uspace("info", "-F", str(DUMP)).stdout
    heads = [block.split(": ")[0] for block in text.split("\n\n")]
    assert len(heads) == 35
    assert heads[0] == "0000:00:00.0"


def test_a_dump_without_the_function(uspace: Uspace) -> None:
    result = uspace("info", "-F", str(DUMP), "0000:7f:00.0")
    assert result.exit_code != 0
    assert "0000:7f:00.0: not in" in result.stderr
    assert "there are 0000:00:00.0, " in result.stderr


def test_no_device_and_no_dump(uspace: Uspace) -> None:
    result = uspace("info")
    assert result.exit_code == 2
    assert "Give its ADDR, or a dump with -F" in result.stderr
