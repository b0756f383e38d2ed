"""Bits and offsets that lspci does not print, typed from the kernel's list of them."""

from __future__ import annotations

import pytest

from uspace_drv.pci import capability_registers as standard
from uspace_drv.pci import error_registers as errors
from uspace_drv.pci import express_registers as express
from uspace_drv.pci import link_registers as links
from uspace_drv.pci import sharing_registers as sharing
from uspace_drv.registers import Declaration, Field

# Linux include/uapi/linux/pci_regs.h.
MASKS = [
    (standard.PowerManagementBridge.b2_b3_support, 0x40),
    (standard.PowerManagementBridge.bus_power_clock_control_enable, 0x80),
    (standard.ProductDataAddress.vpd_address, 0x7FFF),
    (standard.ProductDataAddress.flag, 0x8000),
    (express.LinkControl.retrain_link, 0x0020),
    (express.SlotControl.auto_slot_power_limit_disable, 0x2000),
    (express.SlotControl.in_band_pd_disable, 0x4000),
    (express.DeviceControl2.ido_request_enable, 0x0100),
    (express.DeviceControl2.ido_completion_enable, 0x0200),
    (errors.UncorrectableErrors.uncorrectable_internal_error, 0x00400000),
    (errors.UncorrectableErrors.mc_blocked_tlp, 0x00800000),
    (errors.UncorrectableErrors.atomic_op_egress_blocked, 0x01000000),
    (errors.UncorrectableErrors.tlp_prefix_blocked, 0x02000000),
    (errors.CorrectableErrors.corrected_internal_error, 0x00004000),
    (errors.CorrectableErrors.header_log_overflow, 0x00008000),
    (sharing.TranslationCapability.page_aligned_request, 0x0020),
    (sharing.PageRequestStatus.prg_response_pasid_required, 0x8000),
    (sharing.ResizableControl.bar_index, 0x00000007),
    (sharing.ResizableControl.number_of_resizable_bars, 0x000000E0),
    (links.ChannelCapability1.extended_vc_count, 0x00000007),
    (links.ChannelCapability2.vc_arbitration_table_offset, 0xFF000000),
    (links.ChannelResourceControl.load_port_arbitration_table, 0x00010000),
    (links.PowerBudgetingData.base_power, 0xFF),
    (links.PowerBudgetingData.data_scale, 0x300),
    (links.PowerBudgetingData.pm_sub_state, 0x1C00),
    (links.PowerBudgetingData.pm_state, 0x6000),
    (links.PowerBudgetingData.type, 0x38000),
    (links.PowerBudgetingData.power_rail, 0x1C0000),
    (links.PowerBudgetingCapability.system_allocated, 0x1),
    (links.HintsCapability.st_table_size, 0x07FF0000),
    (links.FeatureCapabilities.exchange_enable, 0x80000000),
    (links.ExchangeControl.abort, 0x00000001),
    (links.ExchangeControl.go, 0x80000000),
    (links.ExchangeStatus.error, 0x00000004),
]

OFFSETS = [
    (standard.PowerManagementRegisters.bridge_extensions, 6),
    (standard.ProductDataRegisters.vpd_data, 4),
    (links.PowerBudgetingRegisters.data, 0x08),
    (links.PowerBudgetingRegisters.power_budget_capability, 0x0C),
    (links.Physical16Registers.status_16, 0x0C),
    (links.HintsRegisters.tph_requester_control, 8),
    (links.FeatureRegisters.data_link_feature_status, 8),
]


@pytest.mark.parametrize(("field", "mask"), MASKS, ids=str)
def test_bits(field: Field[object], mask: int) -> None:
    assert field.mask == mask


@pytest.mark.parametrize(("register", "offset"), OFFSETS, ids=str)
def test_offsets(register: Declaration[object, object], offset: int) -> None:
    assert register.offset == offset
