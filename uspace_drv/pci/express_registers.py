"""The registers of the PCI Express capability, from the capability's first byte.

PCI Express Base Specification 6.0, section 7.5.3. Which of them a function has depends on the kind
of port that it is and on the version of the capability.
"""

from __future__ import annotations

from enum import IntEnum

from uspace_drv.registers import Register, RegisterBlock, bit, field, ro, rw, w1c


class PortType(IntEnum):
    """Device/Port Type of the PCI Express capability."""

    ENDPOINT = 0x0
    LEGACY_ENDPOINT = 0x1
    ROOT_PORT = 0x4
    UPSTREAM_PORT = 0x5
    DOWNSTREAM_PORT = 0x6
    PCIE_TO_PCI_BRIDGE = 0x7
    PCI_TO_PCIE_BRIDGE = 0x8
    ROOT_COMPLEX_INTEGRATED_ENDPOINT = 0x9
    ROOT_COMPLEX_EVENT_COLLECTOR = 0xA


class PciExpressCapabilities(Register, width=16):
    """PCI Express Capabilities Register."""

    interrupt_message_number = field(13, 9)
    slot_implemented = bit(8)
    device_port_type = field(7, 4, PortType)
    capability_version = field(3, 0)


class DeviceCapabilities(Register):
    """Device Capabilities Register; bits 14 to 12 are those of version 1 of the capability."""

    tee_io_supported = bit(30)
    function_level_reset_capability = bit(28)
    captured_slot_power_limit_scale = field(27, 26)
    captured_slot_power_limit_value = field(25, 18)
    err_cor_subclass_capable = bit(16)
    role_based_error_reporting = bit(15)
    power_indicator_present = bit(14)
    attention_indicator_present = bit(13)
    attention_button_present = bit(12)
    endpoint_l1_acceptable_latency = field(11, 9)
    endpoint_l0s_acceptable_latency = field(8, 6)
    extended_tag_field_supported = bit(5)
    phantom_functions_supported = field(4, 3)
    max_payload_size_supported = field(2, 0, "128 bytes shifted left by this")


class DeviceControl(Register, width=16):
    """Device Control Register; a bridge to PCI has configuration retry in the place of bit 15."""

    initiate_function_level_reset = bit(15)
    max_read_request_size = field(14, 12, "128 bytes shifted left by this")
    enable_no_snoop = bit(11)
    aux_power_pm_enable = bit(10)
    phantom_functions_enable = bit(9)
    extended_tag_field_enable = bit(8)
    max_payload_size = field(7, 5, "128 bytes shifted left by this")
    enable_relaxed_ordering = bit(4)
    unsupported_request_reporting_enable = bit(3)
    fatal_error_reporting_enable = bit(2)
    non_fatal_error_reporting_enable = bit(1)
    correctable_error_reporting_enable = bit(0)


class DeviceStatus(Register, width=16):
    """Device Status Register."""

    emergency_power_reduction_detected = bit(6)
    transactions_pending = bit(5, "requests that have no completion yet")
    aux_power_detected = bit(4)
    unsupported_request_detected = bit(3)
    fatal_error_detected = bit(2)
    non_fatal_error_detected = bit(1)
    correctable_error_detected = bit(0)


class PciExpressRegisters(RegisterBlock, size=0xC):
    """PCI Express, as far as every function has it."""

    capabilities = ro(0x02, PciExpressCapabilities)
    device_capabilities = ro(0x04, DeviceCapabilities)
    device_control = rw(0x08, DeviceControl)
    device_status = w1c(0x0A, DeviceStatus)


class LinkCapabilities(Register):
    """Link Capabilities Register."""

    port_number = field(31, 24)
    aspm_optionality_compliance = bit(22)
    link_bandwidth_notification_capability = bit(21)
    data_link_layer_link_active_reporting_capable = bit(20)
    surprise_down_error_reporting_capable = bit(19)
    clock_power_management = bit(18)
    l1_exit_latency = field(17, 15)
    l0s_exit_latency = field(14, 12)
    aspm_support = field(11, 10)
    maximum_link_width = field(9, 4)
    max_link_speed = field(3, 0)


class LinkControl(Register, width=16):
    """Link Control Register."""

    drs_signaling_control = field(15, 14)
    link_autonomous_bandwidth_interrupt_enable = bit(11)
    link_bandwidth_management_interrupt_enable = bit(10)
    hardware_autonomous_width_disable = bit(9)
    enable_clock_power_management = bit(8)
    extended_synch = bit(7)
    common_clock_configuration = bit(6)
    retrain_link = bit(5)
    link_disable = bit(4)
    read_completion_boundary = field(3, 3)
    aspm_control = field(1, 0)


class LinkStatus(Register, width=16):
    """Link Status Register; bit 10 had a meaning in the first version of the specification."""

    link_autonomous_bandwidth_status = bit(15)
    link_bandwidth_management_status = bit(14)
    data_link_layer_link_active = bit(13)
    slot_clock_configuration = bit(12)
    link_training = bit(11)
    training_error = bit(10)
    negotiated_link_width = field(9, 4)
    current_link_speed = field(3, 0)


class LinkRegisters(RegisterBlock, size=0x14):
    """PCI Express of a function that is at one end of a link."""

    link_capabilities = ro(0x0C, LinkCapabilities)
    link_control = rw(0x10, LinkControl)
    link_status = ro(0x12, LinkStatus)


class SlotCapabilities(Register):
    """Slot Capabilities Register."""

    physical_slot_number = field(31, 19)
    no_command_completed_support = bit(18)
    electromechanical_interlock_present = bit(17)
    slot_power_limit_scale = field(16, 15)
    slot_power_limit_value = field(14, 7)
    hot_plug_capable = bit(6)
    hot_plug_surprise = bit(5)
    power_indicator_present = bit(4)
    attention_indicator_present = bit(3)
    mrl_sensor_present = bit(2)
    power_controller_present = bit(1)
    attention_button_present = bit(0)


class SlotControl(Register, width=16):
    """Slot Control Register."""

    in_band_pd_disable = bit(14)
    auto_slot_power_limit_disable = bit(13)
    data_link_layer_state_changed_enable = bit(12)
    electromechanical_interlock_control = bit(11)
    power_controller_control = bit(10, "one is power off")
    power_indicator_control = field(9, 8)
    attention_indicator_control = field(7, 6)
    hot_plug_interrupt_enable = bit(5)
    command_completed_interrupt_enable = bit(4)
    presence_detect_changed_enable = bit(3)
    mrl_sensor_changed_enable = bit(2)
    power_fault_detected_enable = bit(1)
    attention_button_pressed_enable = bit(0)


class SlotStatus(Register, width=16):
    """Slot Status Register."""

    data_link_layer_state_changed = bit(8)
    electromechanical_interlock_status = bit(7)
    presence_detect_state = bit(6, "a card is in the slot")
    mrl_sensor_state = bit(5)
    command_completed = bit(4)
    presence_detect_changed = bit(3)
    mrl_sensor_changed = bit(2)
    power_fault_detected = bit(1)
    attention_button_pressed = bit(0)


class SlotRegisters(RegisterBlock, size=0x1C):
    """PCI Express of a port with a slot."""

    slot_capabilities = ro(0x14, SlotCapabilities)
    slot_control = rw(0x18, SlotControl)
    slot_status = w1c(0x1A, SlotStatus)


class RootControl(Register, width=16):
    """Root Control Register."""

    configuration_rrs_software_visibility_enable = bit(4)
    pme_interrupt_enable = bit(3)
    system_error_on_fatal_error_enable = bit(2)
    system_error_on_non_fatal_error_enable = bit(1)
    system_error_on_correctable_error_enable = bit(0)


class RootCapabilities(Register, width=16):
    """Root Capabilities Register."""

    configuration_rrs_software_visibility = bit(0)


class RootStatus(Register):
    """Root Status Register."""

    pme_pending = bit(17)
    pme_status = bit(16)
    pme_requester_id = field(15, 0)


class RootRegisters(RegisterBlock, size=0x24):
    """PCI Express of a root port or an event collector."""

    root_control = rw(0x1C, RootControl)
    root_capabilities = ro(0x1E, RootCapabilities)
    root_status = w1c(0x20, RootStatus)


class DeviceCapabilities2(Register):
    """Device Capabilities 2 Register."""

    frs_supported = bit(31)
    emergency_power_reduction_initialization_required = bit(26)
    emergency_power_reduction_supported = field(25, 24)
    max_end_end_tlp_prefixes = field(23, 22)
    end_end_tlp_prefix_supported = bit(21)
    extended_fmt_field_supported = bit(20)
    obff_supported = field(19, 18)
    tag_10_bit_requester_supported = bit(17)
    tag_10_bit_completer_supported = bit(16)
    ln_system_cls = field(15, 14)
    tph_completer_supported = field(13, 12)
    ltr_mechanism_supported = bit(11)
    no_ro_enabled_pr_pr_passing = bit(10)
    cas_128_bit_completer_supported = bit(9)
    atomic_op_64_bit_completer_supported = bit(8)
    atomic_op_32_bit_completer_supported = bit(7)
    atomic_op_routing_supported = bit(6)
    ari_forwarding_supported = bit(5)
    completion_timeout_disable_supported = bit(4)
    completion_timeout_ranges_supported = field(3, 0)


class DeviceControl2(Register, width=16):
    """Device Control 2 Register."""

    end_end_tlp_prefix_blocking = bit(15)
    obff_enable = field(14, 13)
    tag_10_bit_requester_enable = bit(12)
    emergency_power_reduction_request = bit(11)
    ltr_mechanism_enable = bit(10)
    ido_completion_enable = bit(9)
    ido_request_enable = bit(8)
    atomic_op_egress_blocking = bit(7)
    atomic_op_requester_enable = bit(6)
    ari_forwarding_enable = bit(5)
    completion_timeout_disable = bit(4)
    completion_timeout_value = field(3, 0)


class Device2Registers(RegisterBlock, size=0x2C):
    """PCI Express of version 2 of the capability; Device Status 2 has no bits."""

    device_capabilities_2 = ro(0x24, DeviceCapabilities2)
    device_control_2 = rw(0x28, DeviceControl2)


class LinkCapabilities2(Register):
    """Link Capabilities 2 Register."""

    drs_supported = bit(31)
    two_retimers_presence_detect_supported = bit(24)
    retimer_presence_detect_supported = bit(23)
    lower_skp_os_reception_supported_speeds_vector = field(22, 16)
    lower_skp_os_generation_supported_speeds_vector = field(15, 9)
    crosslink_supported = bit(8)
    supported_link_speeds_vector = field(7, 1)


class LinkControl2(Register, width=16):
    """Link Control 2 Register."""

    compliance_preset = field(15, 12)
    compliance_sos = bit(11)
    enter_modified_compliance = bit(10)
    transmit_margin = field(9, 7)
    selectable_de_emphasis = field(6, 6)
    hardware_autonomous_speed_disable = bit(5)
    enter_compliance = bit(4)
    target_link_speed = field(3, 0)


class LinkStatus2(Register, width=16):
    """Link Status 2 Register."""

    drs_message_received = bit(15)
    downstream_component_presence = field(14, 12)
    flit_mode_status = bit(10)
    crosslink_resolution = field(9, 8)
    two_retimers_presence_detected = bit(7)
    retimer_presence_detected = bit(6)
    link_equalization_request_8 = bit(5)
    equalization_8_phase_3_successful = bit(4)
    equalization_8_phase_2_successful = bit(3)
    equalization_8_phase_1_successful = bit(2)
    equalization_8_complete = bit(1)
    current_de_emphasis_level = field(0, 0)


class Link2Registers(RegisterBlock, size=0x34):
    """PCI Express of version 2 at one end of a link."""

    link_capabilities_2 = ro(0x2C, LinkCapabilities2)
    link_control_2 = rw(0x30, LinkControl2)
    link_status_2 = w1c(0x32, LinkStatus2)
