"""What lspci prints of the PCI Express capability."""

from __future__ import annotations

from tests.unit.pci.lspci.rules import Value, both, decimal, hexadecimal, ignore, of

EXPRESS = {
    "": of(
        "capabilities",
        "Slot=slot_implemented",
        Value(r"\(v(\d+)\)", "capability_version", decimal),
        Value(r"(?:MSI|IntMsgNum) ([0-9a-f]+)$", "interrupt_message_number", hexadecimal(2)),
        ignore(r"^Express "),
        Value(r"^\s*Unknown type (\d+)", "device_port_type", decimal),
        Value(
            r"(PCI/PCI-X to PCI-Express Bridge|PCI-Express to PCI/PCI-X Bridge|[\w ]+?)\s*(?=[(,])",
            "device_port_type",
            lambda n: {
                0: "Endpoint", 1: "Legacy Endpoint", 4: "Root Port", 5: "Upstream Port",
                6: "Downstream Port", 7: "PCI-Express to PCI/PCI-X Bridge",
                8: "PCI/PCI-X to PCI-Express Bridge", 9: "Root Complex Integrated Endpoint",
                10: "Root Complex Event Collector",
            }[n],
        ),
    ),
    "DevCap": of(
        "device_capabilities",
        "ExtTag=extended_tag_field_supported AttnBtn=attention_button_present "
        "AttnInd=attention_indicator_present PwrInd=power_indicator_present "
        "RBE=role_based_error_reporting FLReset=function_level_reset_capability",
        Value(r"MaxPayload (\d+ bytes)", "max_payload_size_supported"),
        Value(r"PhantFunc (\d+)", "phantom_functions_supported"),
        Value(r"Latency L0s ([^,]+),", "endpoint_l0s_acceptable_latency"),
        Value(r"L1 (<\S+|unlimited)", "endpoint_l1_acceptable_latency"),
        Value(r"SlotPowerLimit (\S+W)", "captured_slot_power_limit"),
    ),
    "DevCtl": of(
        "device_control",
        "CorrErr=correctable_error_reporting_enable NonFatalErr=non_fatal_error_reporting_enable "
        "FatalErr=fatal_error_reporting_enable UnsupReq=unsupported_request_reporting_enable "
        "RlxdOrd=enable_relaxed_ordering ExtTag=extended_tag_field_enable "
        "PhantFunc=phantom_functions_enable AuxPwr=aux_power_pm_enable NoSnoop=enable_no_snoop "
        "BrConfRtry=initiate_function_level_reset FLReset=initiate_function_level_reset",
        Value(r"MaxPayload (\d+ bytes)", "max_payload_size"),
        Value(r"MaxReadReq (\d+ bytes)", "max_read_request_size"),
    ),
    "DevSta": of(
        "device_status",
        "CorrErr=correctable_error_detected NonFatalErr=non_fatal_error_detected "
        "FatalErr=fatal_error_detected UnsupReq=unsupported_request_detected "
        "AuxPwr=aux_power_detected TransPend=transactions_pending",
    ),
    "LnkCap": of(
        "link_capabilities",
        "ClockPM=clock_power_management Surprise=surprise_down_error_reporting_capable "
        "LLActRep=data_link_layer_link_active_reporting_capable "
        "BwNot=link_bandwidth_notification_capability ASPMOptComp=aspm_optionality_compliance",
        Value(r"Port #(\d+)", "port_number", decimal),
        Value(r"Speed ([^,]+)", "max_link_speed"),
        Value(r"Width (x\d+)", "maximum_link_width"),
        Value(r"ASPM (not supported|[L01s ]+)", "aspm_support"),
        Value(r"Exit Latency L0s ([^,\s]+)", "l0s_exit_latency"),
        Value(r"(?:Exit Latency )?L1 ([^,\s]+)", "l1_exit_latency"),
    ),
    "LnkCtl": of(
        "link_control",
        "Disabled=link_disable CommClk=common_clock_configuration ExtSynch=extended_synch "
        "ClockPM=enable_clock_power_management AutWidDis=hardware_autonomous_width_disable "
        "BWInt=link_bandwidth_management_interrupt_enable "
        "AutBWInt=link_autonomous_bandwidth_interrupt_enable",
        Value(r"ASPM ([^;]+);", "aspm_control"),
        Value(r"RCB (\d+ bytes)", "read_completion_boundary"),
    ),
    "LnkSta": of(
        "link_status",
        "TrErr=training_error Train=link_training SlotClk=slot_clock_configuration "
        "DLActive=data_link_layer_link_active BWMgmt=link_bandwidth_management_status "
        "ABWMgmt=link_autonomous_bandwidth_status",
        Value(r"Speed (unknown|[\d.]+GT/s)", "current_link_speed"),
        Value(r"Width (x\d+)", "negotiated_link_width"),
        ignore(r"\((ok|downgraded|strange|overdriven)\)"),
        ignore(r"\((ok|downgraded|strange|overdriven)\)"),
    ),
    "SltCap": of(
        "slot_capabilities",
        "AttnBtn=attention_button_present PwrCtrl=power_controller_present "
        "MRL=mrl_sensor_present AttnInd=attention_indicator_present "
        "PwrInd=power_indicator_present HotPlug=hot_plug_capable Surprise=hot_plug_surprise "
        "Interlock=electromechanical_interlock_present NoCompl=no_command_completed_support",
        Value(r"Slot #(\d+)", "physical_slot_number", decimal),
        Value(r"PowerLimit (\S+W);", "slot_power_limit"),
    ),
    "SltCtl": of(
        "slot_control",
        "AttnBtn=attention_button_pressed_enable PwrFlt=power_fault_detected_enable "
        "MRL=mrl_sensor_changed_enable PresDet=presence_detect_changed_enable "
        "CmdCplt=command_completed_interrupt_enable HPIrq=hot_plug_interrupt_enable "
        "LinkChg=data_link_layer_state_changed_enable Power=power_controller_control "
        "Interlock=electromechanical_interlock_control",
        ignore(r"Enable:"),
        ignore(r"Control:"),
        Value(r"AttnInd (\w+)", "attention_indicator_control"),
        Value(r"PwrInd (\w+)", "power_indicator_control"),
    ),
    "SltSta": both(
        of(
            "slot_status",
            "AttnBtn=attention_button_pressed PowerFlt=power_fault_detected "
            "MRL=mrl_sensor_state CmdCplt=command_completed PresDet=presence_detect_state "
            "Interlock=electromechanical_interlock_status "
            "LinkState=data_link_layer_state_changed",
            Value(r"Changed: MRL([+-])", "mrl_sensor_changed"),
            Value(r"PresDet([+-])(?= LinkState)", "presence_detect_changed"),
            ignore(r"Status:"),
        )
    ),
    "RootCap": of("root_capabilities", "CRSVisible=configuration_rrs_software_visibility"),
    "RootCtl": of(
        "root_control",
        "ErrCorrectable=system_error_on_correctable_error_enable "
        "ErrNon-Fatal=system_error_on_non_fatal_error_enable "
        "ErrFatal=system_error_on_fatal_error_enable PMEIntEna=pme_interrupt_enable "
        "CRSVisible=configuration_rrs_software_visibility_enable",
    ),
    "RootSta": of(
        "root_status",
        "PMEStatus=pme_status PMEPending=pme_pending",
        Value(r"PME ReqID ([0-9a-f]{4})", "pme_requester_id", hexadecimal(4)),
    ),
    "DevCap2": of(
        "device_capabilities_2",
        "TimeoutDis=completion_timeout_disable_supported NROPrPrP=no_ro_enabled_pr_pr_passing "
        "LTR=ltr_mechanism_supported 10BitTagComp=tag_10_bit_completer_supported "
        "10BitTagReq=tag_10_bit_requester_supported ExtFmt=extended_fmt_field_supported "
        "EETLPPrefix=end_end_tlp_prefix_supported FRS=frs_supported "
        "EmergencyPowerReductionInit=emergency_power_reduction_initialization_required "
        "ARIFwd=ari_forwarding_supported Routing=atomic_op_routing_supported "
        "32bit=atomic_op_32_bit_completer_supported 64bit=atomic_op_64_bit_completer_supported "
        "128bitCAS=cas_128_bit_completer_supported",
        Value(r"Completion Timeout: ([\w ]+)", "completion_timeout_ranges_supported"),
        Value(r"OBFF (Not Supported|[\w/# ]+?),", "obff_supported"),
        Value(
            r"EmergencyPowerReduction ([\w ]+)",
            "emergency_power_reduction_supported",
            lambda n: ("Not Supported", "Dev Specific", "Form Factor Dev Specific", "Reserved")[n],
        ),
        Value(
            r"MaxEETLPPrefixes (\d)", "max_end_end_tlp_prefixes", lambda n: str(n or 4)
        ),
        Value(
            r"TPHComp([+-]) ExtTPHComp([+-])",
            "tph_completer_supported",
            lambda n: f"{'-+'[n & 1]} {'-+'[n >> 1]}",
        ),
        Value(
            r"LN System CLS (Not Supported|64byte cachelines|128byte cachelines|Reserved)",
            "ln_system_cls",
            lambda n: ("Not Supported", "64byte cachelines", "128byte cachelines", "Reserved")[n],
        ),
        ignore(r"AtomicOpsCap:"),
    ),
    "DevCtl2": of(
        "device_control_2",
        "TimeoutDis=completion_timeout_disable LTR=ltr_mechanism_enable "
        "10BitTagReq=tag_10_bit_requester_enable ARIFwd=ari_forwarding_enable "
        "ReqEn=atomic_op_requester_enable EgressBlck=atomic_op_egress_blocking",
        Value(r"Completion Timeout: ([\w. ]+)", "completion_timeout_value"),
        Value(r"OBFF ([\w# ]+),", "obff_enable"),
        ignore(r"AtomicOpsCtl:"),
    ),
    "LnkCap2": of(
        "link_capabilities_2",
        "Crosslink=crosslink_supported Retimer=retimer_presence_detect_supported "
        "2Retimers=two_retimers_presence_detect_supported DRS=drs_supported",
        Value(
            r"Supported Link Speeds: ([^,]+)",
            "supported_link_speeds_vector",
            lambda n: "Unknown" if not n else (
                "RsvdP" if n & 0x60 else ("2.5GT/s" if n < 2 else
                f"2.5-{(0, 0, 5, 5, 8, 8, 8, 8)[n] if n < 8 else 16 if n < 16 else 32}GT/s")
            ),
        ),
    ),
    "LnkCtl2": of(
        "link_control_2",
        "EnterCompliance=enter_compliance SpeedDis=hardware_autonomous_speed_disable "
        "EnterModifiedCompliance=enter_modified_compliance ComplianceSOS=compliance_sos",
        Value(r"Target Link Speed: ([^,]+)", "target_link_speed"),
        Value(r"Selectable De-emphasis: (\S+)", "selectable_de_emphasis"),
        Value(r"Transmit Margin: ([^,]+)", "transmit_margin"),
        Value(r"Compliance Preset/De-emphasis: (.*)$", "compliance_preset"),
    ),
    "LnkSta2": of(
        "link_status_2",
        "EqualizationComplete=equalization_8_complete "
        "EqualizationPhase1=equalization_8_phase_1_successful "
        "EqualizationPhase2=equalization_8_phase_2_successful "
        "EqualizationPhase3=equalization_8_phase_3_successful "
        "LinkEqualizationRequest=link_equalization_request_8 "
        "Retimer=retimer_presence_detected 2Retimers=two_retimers_presence_detected "
        "DRS=drs_message_received",
        Value(r"Current De-emphasis Level: ([^,]+)", "current_de_emphasis_level"),
        Value(
            r"CrosslinkRes: (unsupported|Upstream Port|Downstream Port|incomplete)",
            "crosslink_resolution",
        ),
        Value(r"DownstreamComp: (.*?)\s*$", "downstream_component_presence"),
    ),
}  # fmt: skip
