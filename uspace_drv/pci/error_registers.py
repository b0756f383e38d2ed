"""The registers of the capabilities that report and contain errors, from their first byte.

PCI Express Base Specification 6.0: advanced error reporting 7.8.4, downstream port containment
7.9.14.
"""

from __future__ import annotations

from uspace_drv.registers import Register, RegisterBlock, array, bit, field, ro, rw, w1c


class UncorrectableErrors(Register):
    """Uncorrectable Error Status, Mask and Severity Registers: one bit each."""

    pcrc_check_failed = bit(30)
    misrouted_ide_tlp = bit(29)
    ide_check_failed = bit(28)
    dmwr_request_egress_blocked = bit(27)
    poisoned_tlp_egress_blocked = bit(26)
    tlp_prefix_blocked = bit(25)
    atomic_op_egress_blocked = bit(24)
    mc_blocked_tlp = bit(23)
    uncorrectable_internal_error = bit(22)
    acs_violation = bit(21)
    unsupported_request_error = bit(20)
    ecrc_error = bit(19)
    malformed_tlp = bit(18)
    receiver_overflow = bit(17)
    unexpected_completion = bit(16)
    completer_abort = bit(15)
    completion_timeout = bit(14)
    flow_control_protocol_error = bit(13)
    poisoned_tlp_received = bit(12)
    surprise_down_error = bit(5)
    data_link_protocol_error = bit(4)


class CorrectableErrors(Register):
    """Correctable Error Status and Mask Registers."""

    header_log_overflow = bit(15)
    corrected_internal_error = bit(14)
    advisory_non_fatal_error = bit(13)
    replay_timer_timeout = bit(12)
    replay_num_rollover = bit(8)
    bad_dllp = bit(7)
    bad_tlp = bit(6)
    receiver_error = bit(0)


class ErrorCapabilities(Register):
    """Advanced Error Capabilities and Control Register."""

    completion_timeout_prefix_header_log_capable = bit(12)
    tlp_prefix_log_present = bit(11)
    multiple_header_recording_enable = bit(10)
    multiple_header_recording_capable = bit(9)
    ecrc_check_enable = bit(8)
    ecrc_check_capable = bit(7)
    ecrc_generation_enable = bit(6)
    ecrc_generation_capable = bit(5)
    first_error_pointer = field(4, 0, "bit of the uncorrectable status that came first")


class ErrorRegisters(RegisterBlock, size=0x2C):
    """Advanced error reporting, as far as every function has it."""

    uncorrectable_error_status = w1c(0x04, UncorrectableErrors)
    uncorrectable_error_mask = rw(0x08, UncorrectableErrors)
    uncorrectable_error_severity = rw(0x0C, UncorrectableErrors)
    correctable_error_status = w1c(0x10, CorrectableErrors)
    correctable_error_mask = rw(0x14, CorrectableErrors)
    capabilities_and_control = rw(0x18, ErrorCapabilities)
    header_log = array(ro(0x1C), count=4, stride=4)


class RootErrorCommand(Register):
    """Root Error Command Register."""

    fatal_error_reporting_enable = bit(2)
    non_fatal_error_reporting_enable = bit(1)
    correctable_error_reporting_enable = bit(0)


class RootErrorStatus(Register):
    """Root Error Status Register."""

    advanced_error_interrupt_message_number = field(31, 27)
    fatal_error_messages_received = bit(6)
    non_fatal_error_messages_received = bit(5)
    first_uncorrectable_fatal = bit(4)
    multiple_err_fatal_nonfatal_received = bit(3)
    err_fatal_nonfatal_received = bit(2)
    multiple_err_cor_received = bit(1)
    err_cor_received = bit(0)


class RootErrorRegisters(RegisterBlock, size=0x38):
    """Advanced error reporting of a root port or an event collector."""

    root_error_command = rw(0x2C, RootErrorCommand)
    root_error_status = w1c(0x30, RootErrorStatus)
    err_cor_source = ro(0x34, "requester id", width=16)
    err_fatal_nonfatal_source = ro(0x36, "requester id", width=16)


class ContainmentCapability(Register, width=16):
    """DPC Capability Register."""

    dl_active_err_cor_signaling_supported = bit(12)
    rp_pio_log_size = field(11, 8)
    software_triggering_supported = bit(7)
    poisoned_tlp_egress_blocking_supported = bit(6)
    rp_extensions_for_dpc = bit(5)
    interrupt_message_number = field(4, 0)


class ContainmentControl(Register, width=16):
    """DPC Control Register."""

    dl_active_err_cor_enable = bit(7)
    software_trigger = bit(6)
    poisoned_tlp_egress_blocking_enable = bit(5)
    err_cor_enable = bit(4)
    interrupt_enable = bit(3)
    completion_control = bit(2)
    trigger_enable = field(1, 0)


class ContainmentStatus(Register, width=16):
    """DPC Status Register."""

    rp_pio_first_error_pointer = field(12, 8)
    trigger_reason_extension = field(6, 5)
    rp_busy = bit(4)
    interrupt_status = bit(3)
    trigger_reason = field(2, 1)
    trigger_status = bit(0)


class ContainmentRegisters(RegisterBlock, size=0xC):
    """Downstream port containment."""

    dpc_capability = ro(0x04, ContainmentCapability)
    dpc_control = rw(0x06, ContainmentControl)
    dpc_status = w1c(0x08, ContainmentStatus)
    error_source_id = ro(0x0A, "requester id", width=16)
