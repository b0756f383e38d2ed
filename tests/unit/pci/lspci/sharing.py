"""What lspci prints of the capabilities that split, isolate and translate, and of vendors'."""

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

_ACS = (
    "SrcValid=source_validation{0} TransBlk=translation_blocking{0} "
    "ReqRedir=p2p_request_redirect{0} CmpltRedir=p2p_completion_redirect{0} "
    "UpstreamFwd=upstream_forwarding{0} EgressCtrl=p2p_egress_control{0} "
    "DirectTrans=direct_translated_p2p{0}"
)


SR_IOV = {
    "IOVCap": of(
        "sr_iov_capabilities",
        "Migration=vf_migration_capable 10BitTagReq=vf_10_bit_tag_requester_supported",
        Value(
            r"(?:Interrupt Message Number:|IntMsgNum) (\w+)",
            "vf_migration_interrupt_message_number",
            hexadecimal(3),
        ),
    ),
    "IOVCtl": of(
        "sr_iov_control",
        "Enable=vf_enable Migration=vf_migration_enable Interrupt=vf_migration_interrupt_enable "
        "MSE=vf_mse ARIHierarchy=ari_capable_hierarchy 10BitTagReq=vf_10_bit_tag_requester_enable",
    ),
    "IOVSta": of("sr_iov_status", "Migration=vf_migration_status"),
    "Initial VFs": Rule(
        values=(
            Value(r"^(\d+)", "initial_vfs", decimal),
            Value(r"Total VFs: (\d+)", "total_vfs", decimal),
            Value(r"Number of VFs: (\d+)", "num_vfs", decimal),
            Value(r"Function Dependency Link: (\w+)", "function_dependency_link", hexadecimal(2)),
        )
    ),
    "VF offset": Rule(
        values=(
            Value(r"^(\d+)", "first_vf_offset", decimal),
            Value(r"stride: (\d+)", "vf_stride", decimal),
            Value(r"Device ID: (\w{4})", "vf_device_id", hexadecimal(4)),
        )
    ),
    "Supported Page Size": Rule(
        values=(
            Value(rf"^{HEX8}", "supported_page_sizes", hexadecimal(8)),
            Value(rf"System Page Size: {HEX8}", "system_page_size", hexadecimal(8)),
        )
    ),
    **{
        f"Region {n}": Rule(
            values=(
                Value(
                    r"Memory at (?:[0-9a-f]{8})?([0-9a-f]{8}) \(.*, ((?:non-)?prefetchable)\)",
                    f"vf_bar[{n}]",
                    lambda raw: f"{raw & ~0xF:08x} {'' if raw & 8 else 'non-'}prefetchable",
                ),
            )
        )
        for n in range(6)
    },
    "VF Migration": of(
        "vf_migration_state_array_offset",
        "",
        Value(rf"offset: {HEX8}", "offset", lambda n: f"{n * 8:08x}"),
        Value(r"BIR: (\w)", "bir", decimal),
    ),
}


def _resizable() -> dict[str, Rule]:
    return {
        f"BAR {index}": Rule(
            values=(
                Value(r"current size: ([^,]+)", f"bar_control[{index}].bar_size"),
                Value(r"supported: (.*)$", f"bar_capability[{index}].sizes"),
            )
        )
        for index in range(6)
    }


def _wide(array: str) -> Rule:
    return Rule(
        values=(
            Value(r"^\s*([0-9a-f]{8})", f"{array}[1]", hexadecimal(8)),
            Value(r"^\s*([0-9a-f]{8})", f"{array}[0]", hexadecimal(8)),
        )
    )


SHARING: Sections = {
    (True, 0x10): SR_IOV,
    (True, 0x0B): {
        "": of(
            "header",
            "",
            Value(r"ID=(\w{4})", "vsec_id", hexadecimal(4)),
            Value(r"Rev=(\d+)", "vsec_rev", decimal),
            Value(r"Len=(\w{3})", "vsec_length", hexadecimal(3)),
            ignore("Vendor Specific Information:"),
            ignore(r"<\?>"),
        )
    },
    (True, 0x0D): {
        "ACSCap": of("acs_capability", _ACS.format("")),
        "ACSCtl": of("acs_control", _ACS.format("_enable")),
    },
    (True, 0x0E): {
        "ARICap": of(
            "ari_capability",
            "MFVC=mfvc_function_groups_capability ACS=acs_function_groups_capability",
            Value(r"Next Function: (\d+)", "next_function_number", decimal),
        ),
        "ARICtl": of(
            "ari_control",
            "MFVC=mfvc_function_groups_enable ACS=acs_function_groups_enable",
            Value(r"Function Group: (\d+)", "function_group", decimal),
        ),
    },
    (True, 0x0F): {
        "ATSCap": of(
            "ats_capability",
            "",
            Value(r"Invalidate Queue Depth: (\w\w)", "invalidate_queue_depth", hexadecimal(2)),
        ),
        "ATSCtl": of(
            "ats_control",
            "Enable=enable",
            Value(
                r"Smallest Translation Unit: (\w\w)", "smallest_translation_unit", hexadecimal(2)
            ),
        ),
    },
    (True, 0x12): {
        # For some ports lspci forgets to end the line between the two.
        "McastCap": both(
            of(
                "multicast_capability",
                "ECRCRegen=ecrc_regeneration_supported",
                Value(r"MaxGroups (\d+)", "max_group"),
                Value(r"WindowSz (\d+)", "window_size_requested", decimal),
                ignore(r"\(-?\d+ bytes\)"),
                ignore("McastCtl:"),
            ),
            of("multicast_control", "Enable=enable", Value(r"NumGroups (\d+)", "num_group")),
        ),
        "McastCtl": of(
            "multicast_control", "Enable=enable", Value(r"NumGroups (\d+)", "num_group")
        ),
        "McastBAR": Rule(
            values=(
                Value(r"IndexPos (\d+)", "base_address[0]", lambda n: str(n & 0x3F)),
                Value(r"BaseAddr ([0-9a-f]{8})", "base_address[1]", hexadecimal(8)),
                Value(rf"^[\s,]*{HEX8}", "base_address[0]", lambda n: f"{n & ~0xFFF:08x}"),
            )
        ),
        "McastReceiveVec": _wide("receive"),
        "McastBlockAllVec": _wide("block_all"),
        "McastBlockUntransVec": _wide("block_untranslated"),
        "McastOverlayBAR": Rule(
            values=(
                Value(r"OverlaySize (\d+)", "overlay_bar[0]", lambda n: str(n & 0x3F)),
                ignore(r"\((-?\d+ bytes|disabled)\)"),
                Value(r"BaseAddr ([0-9a-f]{8})", "overlay_bar[1]", hexadecimal(8)),
                Value(rf"^[\s,]*{HEX8}", "overlay_bar[0]", lambda n: f"{n & ~0x3F:08x}"),
            )
        ),
    },
    (True, 0x13): {
        "PRICtl": of("page_request_control", "Enable=enable Reset=reset"),
        "PRISta": of(
            "page_request_status",
            "RF=response_failure UPRGI=unexpected_page_request_group_index Stopped=stopped",
        ),
        "Page Request Capacity": Rule(
            values=(
                Value(rf"^{HEX8}", "outstanding_page_request_capacity", hexadecimal(8)),
                Value(
                    rf"Page Request Allocation: {HEX8}",
                    "outstanding_page_request_allocation",
                    hexadecimal(8),
                ),
            )
        ),
    },
    (True, 0x15): _resizable(),
    (True, 0x1B): {
        "PASIDCap": of(
            "pasid_capability",
            "Exec=execute_permission_supported Priv=privileged_mode_supported",
            Value(r"Max PASID Width: (\w\w)", "max_pasid_width", hexadecimal(2)),
        ),
        "PASIDCtl": of(
            "pasid_control",
            "Enable=pasid_enable Exec=execute_permission_enable Priv=privileged_mode_enable",
        ),
    },
    (True, 0x23): {
        "": both(
            of(
                "header_1",
                "",
                Value(r"Vendor=(\w{4})", "dvsec_vendor_id", hexadecimal(4)),
                Value(r"Rev=(\d+)", "dvsec_revision", decimal),
                Value(r"Len=(\d+)", "dvsec_length", decimal),
            ),
            Rule(
                values=(
                    Value(r" ID=(\w{4})", "dvsec_id", hexadecimal(4)),
                    ignore(r"Designated Vendor-Specific:"),
                    ignore(r"<\?>"),
                )
            ),
        )
    },
    (True, 0x24): _resizable(),
}  # fmt: skip
