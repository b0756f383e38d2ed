"""What lspci prints of the capabilities of the standard list, but PCI Express."""

from __future__ import annotations

from tests.unit.pci.lspci.rules import (
    HEX8,
    Rule,
    Sections,
    Value,
    both,
    decimal,
    hexadecimal,
    ignore,
    of,
)


def _signs(number: int) -> str:
    return " ".join("+" if number >> place & 1 else "-" for place in range(5))


POWER = {
    "": of("capabilities", "", Value(r"^Power Management version (\d)", "version", decimal)),
    "Flags": of(
        "capabilities",
        "PMEClk=pme_clock DSI=device_specific_initialization D1=d1_support D2=d2_support",
        Value(r"PME\(D0(.),D1(.),D2(.),D3hot(.),D3cold(.)\)", "pme_support", _signs),
        Value(r"AuxCurrent=(\S+)", "aux_current"),
    ),
    "Status": of(
        "status",
        "NoSoftRst=no_soft_reset PME-Enable=pme_en PME=pme_status",
        Value(r"^D(\d)", "power_state", decimal),
        Value(r"DSel=(\d+)", "data_select", decimal),
        Value(r"DScale=(\d+)", "data_scale", decimal),
    ),
    "Bridge": Rule(values=(ignore(r"PM. B3."),)),  # 3.9.0 prints bits of another register there
}


MSI = {
    "": of(
        "control",
        "Enable=msi_enable Maskable=per_vector_masking_capable 64bit=address_64_capable",
        Value(r"(?<=\d)/(\d+)", "multiple_message_capable", lambda n: str(1 << n)),
        Value(r"Count=(\d+)", "multiple_message_enable", lambda n: str(1 << n)),
        ignore("^MSI:"),
    ),
    "Address": Rule(
        values=(
            Value(r"^([0-9a-f]{8})(?=[0-9a-f]{8} )", "message_upper_address", hexadecimal(8)),
            Value(rf"{HEX8}(?= )", "message_address", hexadecimal(8)),
            Value(r"Data: ([0-9a-f]{4})", "message_data", hexadecimal(4)),
        )
    ),
    "Masking": Rule(
        values=(
            Value(rf"^{HEX8}", "mask_bits", hexadecimal(8)),
            Value(rf"Pending: {HEX8}", "pending_bits", hexadecimal(8)),
        )
    ),
}


MSIX = {
    "": of(
        "control",
        "Enable=msix_enable Masked=function_mask",
        Value(r"Count=(\d+)", "table_size", lambda n: str(n + 1)),
        ignore("^MSI-X:"),
    ),
    **{
        label: of(
            register,
            "",
            Value(r"BAR=(\d)", "bir", decimal),
            Value(rf"offset={HEX8}", "offset", lambda n: f"{n * 8:08x}"),
        )
        for label, register in (("Vector table", "table"), ("PBA", "pending"))
    },
}


VIRTIO = {
    "": Rule(
        values=(
            ignore("Vendor Specific Information:"),
            Value(
                r"VirtIO: (\S+)",
                "cfg_type",
                lambda n: {
                    1: "CommonCfg", 2: "Notify", 3: "ISR", 4: "DeviceCfg", 8: "SharedMemory",
                }.get(n, "<unknown>"),
            ),
            Value(r"BAR=(\d+)", "bar", decimal),
            Value(rf"offset=(?=\w+)(?:[0-9a-f]{{8}}(?=[0-9a-f]{{8}}))?{HEX8}",
                  "structure_offset", hexadecimal(8)),
            Value(rf"size=(?:[0-9a-f]{{8}}(?=[0-9a-f]{{8}}))?{HEX8}",
                  "structure_length", hexadecimal(8)),
            Value(rf"multiplier={HEX8}", "notify_off_multiplier", hexadecimal(8)),
            Value(r"id=(\d+)", "id", decimal),
        )
    )
}  # fmt: skip


STANDARD: Sections = {
    (False, 0x01): POWER,
    (False, 0x05): MSI,
    (False, 0x11): MSIX,
    (False, 0x13): {
        "AFCap": of("af_capabilities", "TP=transactions_pending_capable FLR=flr_capable"),
        "AFCtrl": of("af_control", "FLR=initiate_flr"),
        "AFStatus": of("af_status", "TP=transactions_pending"),
    },
    (False, 0x04): {
        "": of(
            "expansion_slot",
            "First=first_in_chassis",
            Value(r"Slot ID: (\d+) slots", "expansion_slots_provided", decimal),
            Value(r"chassis (\w\w)", "chassis_number", hexadecimal(2)),
        )
    },
    (False, 0x0A): {
        "": of(
            "debug_port",
            "",
            Value(r"BAR=(\d)", "bar", decimal),
            Value(r"offset=(\w{4})", "bar_offset", hexadecimal(4)),
            ignore("Debug port:"),
        )
    },
    (False, 0x0D): {
        "": Rule(
            values=(
                ignore("Subsystem:"),
                Value(r"(\w{4}):", "subsystem_vendor_id", hexadecimal(4)),
                Value(r"(\w{4})", "subsystem_id", hexadecimal(4)),
            )
        )
    },
    (False, 0x12): {
        "": both(
            of(
                "sata_revision",
                "",
                Value(r"SATA HBA v(\d+)\.", "major_revision", decimal),
                Value(r"^\s*(\d+)", "minor_revision", decimal),
            ),
            of(
                "sata_place",
                "",
                Value(r"BAR(\d)", "bar_location", lambda n: str(n - 4)),
                Value(rf"Offset={HEX8}", "bar_offset", hexadecimal(8)),
                Value(r"(InCfgSpace)", "bar_location", lambda n: "InCfgSpace" * (n == 15)),
                Value(r"BAR\?\?(\d+)", "bar_location", decimal),
            ),
        )
    },
}  # fmt: skip
