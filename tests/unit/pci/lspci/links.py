"""What lspci prints of the capabilities about links, power and time."""

from __future__ import annotations

from tests.unit.pci.lspci.rules import Rule, Sections, Value, decimal, hexadecimal, ignore, of

_VC_ARBITERS = (
    "Fixed=hardware_fixed_arbitration WRR32=wrr_32_phases WRR64=wrr_64_phases WRR128=wrr_128_phases"
)
_RESOURCE = {
    "RejSnoopTrans": "resource_capability[{0}].reject_snoop_transactions",
    "Fixed": "resource_capability[{0}].hardware_fixed_arbitration",
    "WRR32": "resource_capability[{0}].wrr_32_phases",
    "WRR64": "resource_capability[{0}].wrr_64_phases",
    "WRR128": "resource_capability[{0}].wrr_128_phases",
    "TWRR128": "resource_capability[{0}].time_based_wrr_128_phases",
    "WRR256": "resource_capability[{0}].wrr_256_phases",
    "Enable": "resource_control[{0}].vc_enable",
    "NegoPending": "resource_status[{0}].vc_negotiation_pending",
    "InProgress": "resource_status[{0}].port_arbitration_table_status",
}


def _channel(index: int) -> Rule:
    capability, control = f"resource_capability[{index}]", f"resource_control[{index}]"
    return Rule(
        {name: path.format(index) for name, path in _RESOURCE.items()},
        (
            Value(
                r"PATOffset=(\w\w)", f"{capability}.port_arbitration_table_offset", hexadecimal(2)
            ),
            Value(r"MaxTimeSlots=(\d+)", f"{capability}.maximum_time_slots"),
            Value(r" ID=(\d)", f"{control}.vc_id", decimal),
            Value(r"ArbSelect=(\S+)", f"{control}.port_arbitration_select"),
            Value(r"TC/VC=(\w\w)", f"{control}.tc_vc_map", hexadecimal(2)),
            *(ignore(word) for word in ("Caps:", "Arb:", "Ctrl:", "Status:")),
            ignore(r"\?\?\d[+-]"),
            ignore(r"\?\?\d[+-]"),
            ignore(r"Port Arbitration Table <\?>"),
        ),
    )


CHANNELS = {
    "Caps": of(
        "port_vc_capability_1",
        "",
        Value(r"LPEVC=(\d)", "low_priority_extended_vc_count", decimal),
        Value(r"RefClk=(\S+)", "reference_clock"),
        Value(r"PATEntryBits=(\d)", "port_arbitration_table_entry_size", lambda n: str(1 << n)),
    ),
    "Arb": of("port_vc_capability_2", _VC_ARBITERS, *[ignore(r"\?\?\d[+-]")] * 4),
    "Ctrl": of("port_vc_control", "", Value(r"ArbSelect=(\S+)", "vc_arbitration_select")),
    "Status": Rule(
        {"InProgress": "port_vc_status.vc_arbitration_table_status"},
        (ignore(r"Port Arbitration Table \[\w+\] <\?>"),),
    ),
    **{f"VC{index}": _channel(index) for index in range(8)},
}


def _latency(register: str) -> Rule:
    return of(register, "", Value(r"^(\d+ns)", "latency"))


LINKS: Sections = {
    (True, 0x02): CHANNELS,
    (True, 0x09): CHANNELS,
    (True, 0x18): {
        "Max snoop latency": _latency("max_snoop_latency"),
        "Max no snoop latency": _latency("max_no_snoop_latency"),
    },
    (True, 0x19): {
        "LnkCtl3": of(
            "link_control_3",
            "LnkEquIntrruptEn=link_equalization_request_interrupt_enable "
            "PerformEqu=perform_equalization",
        ),
        "LaneErrStat": Rule(
            values=(
                Value(
                    r"^((?:LaneErr at lane:[ \d]*)|0)",
                    "lane_error_status",
                    # lspci looks at the first 16 lanes.
                    lambda n: "LaneErr at lane:" + "".join(
                        f" {lane}" for lane in range(16) if n >> lane & 1
                    ) if n & 0xFFFF else "0",
                ),
            )
        ),
    },
    (True, 0x1E): {
        "L1SubCap": of(
            "l1_substates_capabilities",
            "PCI-PM_L1.2=pci_pm_l1_2_supported PCI-PM_L1.1=pci_pm_l1_1_supported "
            "ASPM_L1.2=aspm_l1_2_supported ASPM_L1.1=aspm_l1_1_supported "
            "L1_PM_Substates=l1_pm_substates_supported",
            Value(r"PortCommonModeRestoreTime=(\d+)us", "port_common_mode_restore_time", decimal),
            Value(r"PortTPowerOnTime=(\S+)", "port_t_power_on"),
        ),
        "L1SubCtl1": of(
            "l1_substates_control_1",
            "PCI-PM_L1.2=pci_pm_l1_2_enable PCI-PM_L1.1=pci_pm_l1_1_enable "
            "ASPM_L1.2=aspm_l1_2_enable ASPM_L1.1=aspm_l1_1_enable",
            Value(r"T_CommonMode=(\d+)us", "common_mode_restore_time", decimal),
            Value(r"LTR1.2_Threshold=(\S+)", "ltr_l1_2_threshold"),
        ),
        "L1SubCtl2": of("l1_substates_control_2", "", Value(r"T_PwrOn=(\S+)", "t_power_on")),
    },
    (True, 0x1F): {
        "PTMCap": of(
            "ptm_capability",
            "Requester:=requester_capable Responder:=responder_capable Root:=root_capable",
        ),
        "PTMClockGranularity": of(
            "ptm_capability",
            "",
            Value(
                r"^(.+)$",
                "local_clock_granularity",
                lambda n: {0: "Unimplemented", 255: "Greater than 254ns"}.get(n, f"{n}ns"),
            ),
        ),
        "PTMControl": of("ptm_control", "Enabled:=ptm_enable RootSelected:=root_select"),
        "PTMEffectiveGranularity": of(
            "ptm_control",
            "",
            Value(
                r"^(.+)$",
                "effective_granularity",
                lambda n: {0: "Unknown", 255: "Greater than 254ns"}.get(n, f"{n}ns"),
            ),
        ),
    },
    (True, 0x2E): {
        "DOECap": of(
            "doe_capabilities",
            "IntSup=interrupt_support",
            # lspci says it only where interrupts are supported.
            Value(
                r"(?:Interrupt Message Number|IntMsgNum):? (\w+)",
                "interrupt_message_number",
                hexadecimal(3),
            ),
        ),
        "DOECtl": of("doe_control", "IntEn=interrupt_enable"),
        "DOESta": of(
            "doe_status",
            "Busy=busy IntSta=interrupt_status ObjectReady=data_object_ready",
            ignore(r"Error[+-]"),  # lspci 3.9 takes it from the bits of the other two
        ),
    },
    (True, 0x17): {
        "": of(
            "tph_requester_capability",
            "",
            ignore("Transaction Processing Hints"),
            Value("(Interrupt vector) mode supported", "interrupt_vector_mode_supported",
                  lambda bit: "Interrupt vector" * bit),
            Value("(Device specific) mode supported", "device_specific_mode_supported",
                  lambda bit: "Device specific" * bit),
            Value("(Extended) requester support", "extended_tph_requester_supported",
                  lambda bit: "Extended" * bit),
            Value(
                r"(No steering table available|Steering table in TPH capability structure|"
                r"Steering table in MSI-X table|Reserved steering table location)",
                "st_table_location",
                lambda n: (
                    "No steering table available", "Steering table in TPH capability structure",
                    "Steering table in MSI-X table", "Reserved steering table location",
                )[n],
            ),
        )
    },
}  # fmt: skip
