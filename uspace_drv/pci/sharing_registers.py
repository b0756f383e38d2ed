"""The registers of the capabilities that split, isolate and translate, from their first byte.

PCI Express Base Specification 6.0: access control 7.7.11, alternative routing-id 7.8.8, SR-IOV
9.3.3, address translation 10.5.1, page requests 10.5.2, process address spaces 7.8.9, resizable
BARs 7.8.6, multicast 7.9.11.
"""

from __future__ import annotations

from uspace_drv.pci.config import BaseAddress
from uspace_drv.registers import Register, RegisterBlock, array, bit, field, ro, rw, w1c


class AccessControlCapability(Register, width=16):
    """ACS Capability Register."""

    egress_control_vector_size = field(15, 8)
    enhanced_capability = bit(7)
    direct_translated_p2p = bit(6)
    p2p_egress_control = bit(5)
    upstream_forwarding = bit(4)
    p2p_completion_redirect = bit(3)
    p2p_request_redirect = bit(2)
    translation_blocking = bit(1)
    source_validation = bit(0)


class AccessControl(Register, width=16):
    """ACS Control Register."""

    unclaimed_request_redirect_control = bit(12)
    dsp_memory_target_access_control = field(11, 10)
    usp_memory_target_access_control = field(9, 8)
    io_request_blocking_enable = bit(7)
    direct_translated_p2p_enable = bit(6)
    p2p_egress_control_enable = bit(5)
    upstream_forwarding_enable = bit(4)
    p2p_completion_redirect_enable = bit(3)
    p2p_request_redirect_enable = bit(2)
    translation_blocking_enable = bit(1)
    source_validation_enable = bit(0)


class AccessControlRegisters(RegisterBlock, size=8):
    """Access control services."""

    acs_capability = ro(0x04, AccessControlCapability)
    acs_control = rw(0x06, AccessControl)


class RoutingCapability(Register, width=16):
    """ARI Capability Register."""

    next_function_number = field(15, 8)
    acs_function_groups_capability = bit(1)
    mfvc_function_groups_capability = bit(0)


class RoutingControl(Register, width=16):
    """ARI Control Register."""

    function_group = field(6, 4)
    acs_function_groups_enable = bit(1)
    mfvc_function_groups_enable = bit(0)


class RoutingRegisters(RegisterBlock, size=8):
    """Alternative routing-id interpretation."""

    ari_capability = ro(0x04, RoutingCapability)
    ari_control = rw(0x06, RoutingControl)


class TranslationCapability(Register, width=16):
    """ATS Capability Register."""

    relaxed_ordering_supported = bit(7)
    global_invalidate_supported = bit(6)
    page_aligned_request = bit(5)
    invalidate_queue_depth = field(4, 0, "0 is 32")


class TranslationControl(Register, width=16):
    """ATS Control Register."""

    enable = bit(15)
    smallest_translation_unit = field(4, 0, "4096 bytes shifted left by this")


class TranslationRegisters(RegisterBlock, size=8):
    """Address translation services."""

    ats_capability = ro(0x04, TranslationCapability)
    ats_control = rw(0x06, TranslationControl)


class PageRequestControl(Register, width=16):
    """Page Request Control Register."""

    reset = bit(1)
    enable = bit(0)


class PageRequestStatus(Register, width=16):
    """Page Request Status Register."""

    prg_response_pasid_required = bit(15)
    stopped = bit(8)
    unexpected_page_request_group_index = bit(1)
    response_failure = bit(0)


class PageRequestRegisters(RegisterBlock, size=0x10):
    """Page request interface."""

    page_request_control = rw(0x04, PageRequestControl)
    page_request_status = w1c(0x06, PageRequestStatus)
    outstanding_page_request_capacity = ro(0x08)
    outstanding_page_request_allocation = rw(0x0C)


class ProcessSpaceCapability(Register, width=16):
    """PASID Capability Register."""

    max_pasid_width = field(12, 8, "bits")
    privileged_mode_supported = bit(2)
    execute_permission_supported = bit(1)


class ProcessSpaceControl(Register, width=16):
    """PASID Control Register."""

    privileged_mode_enable = bit(2)
    execute_permission_enable = bit(1)
    pasid_enable = bit(0)


class ProcessSpaceRegisters(RegisterBlock, size=8):
    """Process address space id."""

    pasid_capability = ro(0x04, ProcessSpaceCapability)
    pasid_control = rw(0x06, ProcessSpaceControl)


class VirtualFunctionCapabilities(Register):
    """SR-IOV Capabilities Register."""

    vf_migration_interrupt_message_number = field(31, 21)
    vf_10_bit_tag_requester_supported = bit(2)
    ari_capable_hierarchy_preserved = bit(1)
    vf_migration_capable = bit(0)


class VirtualFunctionControl(Register, width=16):
    """SR-IOV Control Register."""

    vf_10_bit_tag_requester_enable = bit(5)
    ari_capable_hierarchy = bit(4)
    vf_mse = bit(3, "virtual functions answer in their memory BARs")
    vf_migration_interrupt_enable = bit(2)
    vf_migration_enable = bit(1)
    vf_enable = bit(0)


class VirtualFunctionStatus(Register, width=16):
    """SR-IOV Status Register."""

    vf_migration_status = bit(0)


class MigrationArray(Register):
    """VF Migration State Array Offset; `offset` counts in 8 bytes."""

    offset = field(31, 3)
    bir = field(2, 0, "BAR")


class VirtualFunctionRegisters(RegisterBlock, size=0x40):
    """Single root I/O virtualization."""

    sr_iov_capabilities = ro(0x04, VirtualFunctionCapabilities)
    sr_iov_control = rw(0x08, VirtualFunctionControl)
    sr_iov_status = w1c(0x0A, VirtualFunctionStatus)
    initial_vfs = ro(0x0C, width=16)
    total_vfs = ro(0x0E, width=16)
    num_vfs = rw(0x10, width=16)
    function_dependency_link = ro(0x12, width=8)
    first_vf_offset = ro(0x14, "from this function's routing id", width=16)
    vf_stride = ro(0x16, width=16)
    vf_device_id = ro(0x1A, width=16)
    supported_page_sizes = ro(0x1C, "bit n is 4096 bytes shifted left by n")
    system_page_size = rw(0x20, "as the supported ones")
    vf_bar = array(rw(0x24, BaseAddress), count=6, stride=4)
    vf_migration_state_array_offset = ro(0x3C, MigrationArray)


class ResizableCapability(Register):
    """Resizable BAR Capability Register."""

    sizes = field(31, 4, "bit n is 1 MiB shifted left by n")


class ResizableControl(Register):
    """Resizable BAR Control Register."""

    larger_sizes = field(31, 16, "bit n is 256 TiB shifted left by n")
    bar_size = field(13, 8, "1 MiB shifted left by this")
    number_of_resizable_bars = field(7, 5, "in the first of them only")
    bar_index = field(2, 0)


class ResizableRegisters(RegisterBlock, size=0xC):
    """One resizable BAR; the next follows 8 bytes on. Those of virtual functions look alike."""

    bar_capability = ro(0x04, ResizableCapability)
    bar_control = rw(0x08, ResizableControl)


class MulticastCapability(Register, width=16):
    """Multicast Capability Register."""

    ecrc_regeneration_supported = bit(15)
    window_size_requested = field(13, 8, "a power of two")
    max_group = field(5, 0, "groups - 1")


class MulticastControl(Register, width=16):
    """Multicast Control Register."""

    enable = bit(15)
    num_group = field(5, 0, "groups - 1")


class MulticastRegisters(RegisterBlock, size=0x30):
    """Multicast; addresses and vectors have 64 bits, low half first."""

    multicast_capability = ro(0x04, MulticastCapability)
    multicast_control = rw(0x06, MulticastControl)
    base_address = array(rw(0x08), count=2, stride=4)
    receive = array(rw(0x10), count=2, stride=4)
    block_all = array(rw(0x18), count=2, stride=4)
    block_untranslated = array(rw(0x20), count=2, stride=4)
    overlay_bar = array(rw(0x28), count=2, stride=4)
