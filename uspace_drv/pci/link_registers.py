"""The registers of the capabilities about links, power and time, from their first byte.

PCI Express Base Specification 6.0: virtual channel 7.9.1, serial number 7.9.3, power budgeting
7.8.1, latency tolerance 7.8.2, L1 substates 7.8.3, secondary PCI Express 7.7.3, data link feature
7.7.4, 16.0 GT/s 7.7.5, processing hints 7.9.13, time measurement 7.9.15, data object exchange
7.9.24.
"""

from __future__ import annotations

from uspace_drv.registers import Register, RegisterBlock, bit, field, ro, rw


class ChannelCapability1(Register):
    """Port VC Capability Register 1."""

    port_arbitration_table_entry_size = field(11, 10, "a power of two, bits")
    reference_clock = field(9, 8)
    low_priority_extended_vc_count = field(6, 4)
    extended_vc_count = field(2, 0, "channels beside the first")


class ChannelCapability2(Register):
    """Port VC Capability Register 2."""

    vc_arbitration_table_offset = field(31, 24, "counts in 16 bytes")
    wrr_128_phases = bit(3)
    wrr_64_phases = bit(2)
    wrr_32_phases = bit(1)
    hardware_fixed_arbitration = bit(0)


class ChannelControl(Register, width=16):
    """Port VC Control Register."""

    vc_arbitration_select = field(3, 1)
    load_vc_arbitration_table = bit(0)


class ChannelStatus(Register, width=16):
    """Port VC Status Register."""

    vc_arbitration_table_status = bit(0)


class ChannelRegisters(RegisterBlock, size=0x10):
    """Virtual channel, as far as there is one of each."""

    port_vc_capability_1 = ro(0x04, ChannelCapability1)
    port_vc_capability_2 = ro(0x08, ChannelCapability2)
    port_vc_control = rw(0x0C, ChannelControl)
    port_vc_status = ro(0x0E, ChannelStatus)


class ChannelResourceCapability(Register):
    """VC Resource Capability Register."""

    port_arbitration_table_offset = field(31, 24, "counts in 16 bytes")
    maximum_time_slots = field(22, 16, "less one")
    reject_snoop_transactions = bit(15)
    wrr_256_phases = bit(5)
    time_based_wrr_128_phases = bit(4)
    wrr_128_phases = bit(3)
    wrr_64_phases = bit(2)
    wrr_32_phases = bit(1)
    hardware_fixed_arbitration = bit(0)


class ChannelResourceControl(Register):
    """VC Resource Control Register."""

    vc_enable = bit(31)
    vc_id = field(26, 24)
    port_arbitration_select = field(19, 17)
    load_port_arbitration_table = bit(16)
    tc_vc_map = field(7, 0, "one bit for each traffic class")


class ChannelResourceStatus(Register, width=16):
    """VC Resource Status Register."""

    vc_negotiation_pending = bit(1)
    port_arbitration_table_status = bit(0)


class ChannelResourceRegisters(RegisterBlock, size=0x1C):
    """One virtual channel; the next follows 12 bytes on."""

    resource_capability = ro(0x10, ChannelResourceCapability)
    resource_control = rw(0x14, ChannelResourceControl)
    resource_status = ro(0x1A, ChannelResourceStatus)


class SerialNumberRegisters(RegisterBlock, size=0xC):
    """Device serial number."""

    serial_number_low = ro(0x04)
    serial_number_high = ro(0x08)


class PowerBudgetingData(Register):
    """Power Budgeting Data Register."""

    power_rail = field(20, 18)
    type = field(17, 15)
    pm_state = field(14, 13)
    pm_sub_state = field(12, 10)
    data_scale = field(9, 8)
    base_power = field(7, 0, "watts, times the scale")


class PowerBudgetingCapability(Register, width=8):
    """Power Budget Capability Register."""

    system_allocated = bit(0, "the budget of the system has this device in it")


class PowerBudgetingRegisters(RegisterBlock, size=0x10):
    """Power budgeting."""

    data_select = rw(0x04, width=8)
    data = ro(0x08, PowerBudgetingData)
    power_budget_capability = ro(0x0C, PowerBudgetingCapability)


class Latency(Register, width=16):
    """Max Snoop and Max No-Snoop Latency Registers."""

    latency_scale = field(12, 10, "nanoseconds shifted left by five times this")
    latency_value = field(9, 0)


class LatencyRegisters(RegisterBlock, size=8):
    """Latency tolerance reporting."""

    max_snoop_latency = rw(0x04, Latency)
    max_no_snoop_latency = rw(0x06, Latency)


class SubstatesCapabilities(Register):
    """L1 PM Substates Capabilities Register."""

    port_t_power_on_value = field(23, 19)
    port_t_power_on_scale = field(17, 16)
    port_common_mode_restore_time = field(15, 8)
    l1_pm_substates_supported = bit(4)
    aspm_l1_1_supported = bit(3)
    aspm_l1_2_supported = bit(2)
    pci_pm_l1_1_supported = bit(1)
    pci_pm_l1_2_supported = bit(0)


class SubstatesControl1(Register):
    """L1 PM Substates Control 1 Register."""

    ltr_l1_2_threshold_scale = field(31, 29)
    ltr_l1_2_threshold_value = field(25, 16)
    common_mode_restore_time = field(15, 8)
    aspm_l1_1_enable = bit(3)
    aspm_l1_2_enable = bit(2)
    pci_pm_l1_1_enable = bit(1)
    pci_pm_l1_2_enable = bit(0)


class SubstatesControl2(Register):
    """L1 PM Substates Control 2 Register."""

    t_power_on_value = field(7, 3)
    t_power_on_scale = field(1, 0)


class SubstatesRegisters(RegisterBlock, size=0x10):
    """L1 PM substates."""

    l1_substates_capabilities = ro(0x04, SubstatesCapabilities)
    l1_substates_control_1 = rw(0x08, SubstatesControl1)
    l1_substates_control_2 = rw(0x0C, SubstatesControl2)


class TimeCapability(Register):
    """PTM Capability Register."""

    local_clock_granularity = field(15, 8)
    root_capable = bit(2)
    responder_capable = bit(1)
    requester_capable = bit(0)


class TimeControl(Register):
    """PTM Control Register."""

    effective_granularity = field(15, 8)
    root_select = bit(1)
    ptm_enable = bit(0)


class TimeRegisters(RegisterBlock, size=0xC):
    """Precision time measurement."""

    ptm_capability = ro(0x04, TimeCapability)
    ptm_control = rw(0x08, TimeControl)


class LinkControl3(Register):
    """Link Control 3 Register."""

    enable_lower_skp_os_generation_vector = field(15, 9)
    link_equalization_request_interrupt_enable = bit(1)
    perform_equalization = bit(0)


class SecondaryRegisters(RegisterBlock, size=0xC):
    """Secondary PCI Express, without the equalization of each lane."""

    link_control_3 = rw(0x04, LinkControl3)
    lane_error_status = ro(0x08, "one bit for each lane")


class FeatureCapabilities(Register):
    """Data Link Feature Capabilities Register."""

    exchange_enable = bit(31)
    local_feature_supported = field(22, 0)


class FeatureStatus(Register):
    """Data Link Feature Status Register."""

    remote_feature_supported_valid = bit(31)
    remote_feature_supported = field(22, 0)


class FeatureRegisters(RegisterBlock, size=0xC):
    """Data link feature."""

    data_link_feature_capabilities = ro(0x04, FeatureCapabilities)
    data_link_feature_status = ro(0x08, FeatureStatus)


class Status16(Register):
    """16.0 GT/s Status Register."""

    link_equalization_request = bit(4)
    equalization_phase_3_successful = bit(3)
    equalization_phase_2_successful = bit(2)
    equalization_phase_1_successful = bit(1)
    equalization_complete = bit(0)


class Physical16Registers(RegisterBlock, size=0x10):
    """Physical layer 16.0 GT/s, without the presets of each lane."""

    status_16 = ro(0x0C, Status16)


class HintsCapability(Register):
    """TPH Requester Capability Register."""

    st_table_size = field(26, 16, "entries - 1")
    st_table_location = field(10, 9)
    extended_tph_requester_supported = bit(8)
    device_specific_mode_supported = bit(2)
    interrupt_vector_mode_supported = bit(1)
    no_st_mode_supported = bit(0)


class HintsControl(Register):
    """TPH Requester Control Register."""

    tph_requester_enable = field(9, 8)
    st_mode_select = field(2, 0)


class HintsRegisters(RegisterBlock, size=0xC):
    """TLP processing hints requester, without its table."""

    tph_requester_capability = ro(0x04, HintsCapability)
    tph_requester_control = rw(0x08, HintsControl)


class ExchangeCapabilities(Register):
    """DOE Capabilities Register."""

    interrupt_message_number = field(11, 1)
    interrupt_support = bit(0)


class ExchangeControl(Register):
    """DOE Control Register."""

    go = bit(31)
    interrupt_enable = bit(1)
    abort = bit(0)


class ExchangeStatus(Register):
    """DOE Status Register."""

    data_object_ready = bit(31)
    error = bit(2)
    interrupt_status = bit(1)
    busy = bit(0)


class ExchangeRegisters(RegisterBlock, size=0x10):
    """Data object exchange, without the mailboxes: reading one of them takes data out of it."""

    doe_capabilities = ro(0x04, ExchangeCapabilities)
    doe_control = rw(0x08, ExchangeControl)
    doe_status = ro(0x0C, ExchangeStatus)
