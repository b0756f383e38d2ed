"""What the numbers in capabilities mean, in words: sizes, speeds, latencies, powers and states.

PCI Express Base Specification 6.0, the sections of each register in `express_registers`,
`error_registers`, `sharing_registers`, `link_registers` and `capability_registers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uspace_drv.pci import capability_registers as standard
from uspace_drv.pci import error_registers as errors
from uspace_drv.pci import express_registers as express
from uspace_drv.pci import link_registers as links
from uspace_drv.pci import sharing_registers as sharing
from uspace_drv.pci.config import BaseAddress, RomAddress, Status
from uspace_drv.registers import Field, Register

RESERVED = "reserved"
LARGEST = 43
"""The largest size of a resizable BAR: 8 EiB, a power of two in MiB."""

Words = Callable[[int], str]

SPEEDS = ("?", "2.5", "5", "8", "16", "32", "64", "128")
"""Link speeds in GT/s, by their code."""


def speed(code: int) -> str:
    """Return a link speed: '8 GT/s'."""
    return f"{SPEEDS[code]} GT/s" if 0 < code < len(SPEEDS) else "unknown"


def _one_of(*names: str) -> Words:
    return lambda number: names[number] if number < len(names) else RESERVED


def _of(names: Mapping[int, str]) -> Words:
    return lambda number: names.get(number, RESERVED)


def _shifted(first: int, unit: str) -> Words:
    return lambda number: f"{first << number} {unit}"


def _hex(digits: int) -> Words:
    return lambda number: f"{number:#0{digits + 2}x}"


def _more(number: int) -> str:
    return str(number + 1)


def _speeds(vector: int) -> str:
    found = [SPEEDS[n + 1] for n in range(7) if vector >> n & 1]
    return "/".join(found) + " GT/s" if found else "not said"


def _granularity(nothing: str) -> Words:
    return lambda number: {0: nothing, 0xFF: "more than 254 ns"}.get(number, f"{number} ns")


def mebibytes(power: int) -> str:
    """Return the size of a resizable BAR: '256 MiB' for 8."""
    units = ("MiB", "GiB", "TiB", "PiB", "EiB")
    return f"{1 << power % 10} {units[power // 10]}" if power <= LARGEST else RESERVED


def _sizes(first: int) -> Words:
    return lambda bits: " ".join(mebibytes(n + first) for n in range(28) if bits >> n & 1) or "none"


_L0S = ("<64 ns", "<128 ns", "<256 ns", "<512 ns", "<1 us", "<2 us", "<4 us", "unlimited")
_L1 = ("<1 us", "<2 us", "<4 us", "<8 us", "<16 us", "<32 us", "<64 us", "unlimited")
_ASPM = ("none", "L0s", "L1", "L0s L1")
_INDICATOR = ("reserved", "on", "blink", "off")
_DE_EMPHASIS = ("-6 dB", "-3.5 dB")
_PRESETS = tuple(
    f"{de_emphasis} dB de-emphasis, {preshoot} dB preshoot"
    for de_emphasis, preshoot in (
        ("-6", "0"),
        ("-3.5", "0"),
        ("-4.4", "0"),
        ("-2.5", "0"),
        ("0", "0"),
        ("0", "1.9"),
        ("0", "2.5"),
        ("-6.0", "3.5"),
        ("-3.5", "3.5"),
        ("0", "3.5"),
    )
)
_RANGES = {
    0: "not supported", 1: "range A", 2: "range B", 3: "range AB", 6: "range BC", 7: "range ABC",
    14: "range BCD", 15: "range ABCD",
}  # fmt: skip
_TIMEOUTS = {
    0: "50 us to 50 ms", 1: "50 us to 100 us", 2: "1 ms to 10 ms", 5: "16 ms to 55 ms",
    6: "65 ms to 210 ms", 9: "260 ms to 900 ms", 10: "1 s to 3.5 s", 13: "4 s to 13 s",
    14: "17 s to 64 s",
}  # fmt: skip
_PAYLOAD = _shifted(128, "bytes")
_VC_ARBITERS = ("fixed", "WRR32", "WRR64", "WRR128")
_PORT_ARBITERS = (*_VC_ARBITERS, "TWRR128", "WRR256")

_STANDARD: dict[Field[Any], Words] = {
    Status.devsel_timing: _one_of("fast", "medium", "slow"),
    BaseAddress.address: lambda n: f"{n << 4:#010x}",
    BaseAddress.type: _one_of("32-bit", "below 1 MiB", "64-bit"),
    RomAddress.address: lambda n: f"{n << 11:#010x}",
    standard.PowerManagementCapabilities.pme_support: lambda bits: (
        " ".join(s for n, s in enumerate(("D0", "D1", "D2", "D3hot", "D3cold")) if bits >> n & 1)
        or "none"
    ),
    standard.PowerManagementCapabilities.aux_current: _one_of(
        *(f"{current} mA" for current in (0, 55, 100, 160, 220, 270, 320, 375))
    ),
    standard.PowerManagementStatus.power_state: _one_of("D0", "D1", "D2", "D3hot"),
    standard.MsiControl.multiple_message_enable: lambda n: f"{1 << n} vectors",
    standard.MsiControl.multiple_message_capable: lambda n: f"{1 << n} vectors",
    standard.MsixControl.table_size: lambda n: f"{n + 1} vectors",
    standard.BarOffset.offset: lambda n: f"{n * 8:#010x}",
}

_EXPRESS: dict[Field[Any], Words] = {
    express.DeviceCapabilities.max_payload_size_supported: _PAYLOAD,
    express.DeviceCapabilities.phantom_functions_supported: lambda n: str((1 << n) - 1),
    express.DeviceCapabilities.endpoint_l0s_acceptable_latency: _one_of(*_L0S),
    express.DeviceCapabilities.endpoint_l1_acceptable_latency: _one_of(*_L1),
    express.DeviceControl.max_payload_size: _PAYLOAD,
    express.DeviceControl.max_read_request_size: _PAYLOAD,
    express.LinkCapabilities.max_link_speed: speed,
    express.LinkCapabilities.maximum_link_width: lambda n: f"x{n}",
    express.LinkCapabilities.aspm_support: _one_of("not supported", *_ASPM[1:]),
    express.LinkCapabilities.l0s_exit_latency: _one_of(*_L0S),
    express.LinkCapabilities.l1_exit_latency: _one_of(*_L1),
    express.LinkControl.aspm_control: _one_of("disabled", *(f"{s} enabled" for s in _ASPM[1:])),
    express.LinkControl.read_completion_boundary: _one_of("64 bytes", "128 bytes"),
    express.LinkStatus.current_link_speed: speed,
    express.LinkStatus.negotiated_link_width: lambda n: f"x{n}",
    express.SlotControl.attention_indicator_control: _one_of(*_INDICATOR),
    express.SlotControl.power_indicator_control: _one_of(*_INDICATOR),
    express.RootStatus.pme_requester_id: _hex(4),
    express.DeviceCapabilities2.completion_timeout_ranges_supported: _of(_RANGES),
    express.DeviceCapabilities2.obff_supported: _one_of(
        "not supported", "via message", "via WAKE#", "via message/WAKE#"
    ),
    express.DeviceCapabilities2.tph_completer_supported: _one_of(
        "not supported", "TPH", RESERVED, "TPH and extended TPH"
    ),
    express.DeviceCapabilities2.emergency_power_reduction_supported: _one_of(
        "not supported", "device-specific", "form factor or device-specific", RESERVED
    ),
    express.DeviceControl2.completion_timeout_value: _of(_TIMEOUTS),
    express.DeviceControl2.obff_enable: _one_of(
        "disabled", "via message A", "via message B", "via WAKE#"
    ),
    express.LinkCapabilities2.supported_link_speeds_vector: _speeds,
    express.LinkControl2.target_link_speed: lambda n: speed(n or 1),
    express.LinkControl2.transmit_margin: _one_of(
        "normal operating range", "800-1200mV(full-swing)/400-700mV(half-swing)",
        *["200-400mV(full-swing)/100-200mV(half-swing)"] * 4,
    ),
    express.LinkControl2.compliance_preset: _one_of(*_PRESETS),
    express.LinkControl2.selectable_de_emphasis: _one_of(*_DE_EMPHASIS),
    express.LinkStatus2.current_de_emphasis_level: _one_of(*_DE_EMPHASIS),
    express.LinkStatus2.downstream_component_presence: _one_of(
        "link down - not determined", "link down - not present", "link down - present", RESERVED,
        "link up - present", "link up - present and DRS received",
    ),
    express.LinkStatus2.crosslink_resolution: _one_of(
        "unsupported", "upstream port", "downstream port", "incomplete"
    ),
}  # fmt: skip

_EXTENDED: dict[Field[Any], Words] = {
    errors.ErrorCapabilities.first_error_pointer: _hex(2),
    errors.ContainmentControl.trigger_enable: _one_of(
        "disabled", "fatal errors", "non-fatal and fatal errors"
    ),
    errors.ContainmentStatus.trigger_reason: _one_of(
        "unmasked uncorrectable error", "ERR_NONFATAL", "ERR_FATAL", "see the extension"
    ),
    sharing.TranslationCapability.invalidate_queue_depth: lambda n: str(n or 32),
    sharing.TranslationControl.smallest_translation_unit: _shifted(4096, "bytes"),
    sharing.ProcessSpaceCapability.max_pasid_width: lambda n: f"{n} bits",
    sharing.MigrationArray.offset: lambda n: f"{n * 8:#010x}",
    sharing.ResizableCapability.sizes: _sizes(0),
    sharing.ResizableControl.larger_sizes: _sizes(28),
    sharing.ResizableControl.bar_size: mebibytes,
    sharing.MulticastCapability.max_group: _more,
    sharing.MulticastControl.num_group: _more,
    links.ChannelCapability1.port_arbitration_table_entry_size: _shifted(1, "bits"),
    links.ChannelCapability1.reference_clock: _one_of("100 ns"),
    links.ChannelControl.vc_arbitration_select: _one_of(*_VC_ARBITERS),
    links.ChannelResourceCapability.maximum_time_slots: _more,
    links.ChannelResourceControl.port_arbitration_select: _one_of(*_PORT_ARBITERS),
    links.ChannelResourceControl.tc_vc_map: _hex(2),
    links.PowerBudgetingData.pm_state: _one_of("D0", "D1", "D2", "D3"),
    links.PowerBudgetingData.data_scale: _one_of("1", "0.1", "0.01", "0.001"),
    links.PowerBudgetingData.type: _of({
        0: "PME aux", 1: "auxiliary", 2: "idle", 3: "sustained", 4: "sustained in an emergency",
        5: "maximum in an emergency", 7: "maximum",
    }),
    links.PowerBudgetingData.power_rail: _of({0: "12 V", 1: "3.3 V", 2: "1.5 or 1.8 V", 7: "heat"}),
    links.TimeCapability.local_clock_granularity: _granularity("no clock"),
    links.TimeControl.effective_granularity: _granularity("unknown"),
    links.HintsCapability.st_table_location: _one_of("none", "in this capability", "in MSI-X"),
    links.HintsCapability.st_table_size: lambda n: f"{n + 1} entries",
}  # fmt: skip

WORDS: Mapping[Field[Any], Words] = {**_STANDARD, **_EXPRESS, **_EXTENDED}
"""What the content of a field means, where the number alone does not say it."""


def watts(value: int, scale: int) -> str:
    """Return a power limit; from F0h on, values of scale 0 go up in steps of 25 W (7.5.3.9)."""
    if scale == 0 and value >= 0xF0:
        return f"{250 + 25 * (value - 0xF0)} W" if value < 0xFF else ">600 W"
    return f"{value / 10**scale:g} W"


def nanoseconds(value: int, scale: int) -> str:
    """Return a latency (7.8.2.2); scales from 6 on have no meaning."""
    return f"{value << 5 * scale} ns" if scale < 6 else RESERVED


def _power_on(value: int, scale: int) -> str:
    return f"{value * (2, 10, 100)[scale]} us" if scale < 3 else RESERVED


PAIRS: Mapping[type[Register], Sequence[tuple[str, Callable[[Any], str]]]] = {
    express.DeviceCapabilities: [(
        "captured_slot_power_limit",
        lambda r: watts(r.captured_slot_power_limit_value, r.captured_slot_power_limit_scale),
    )],
    express.SlotCapabilities: [(
        "slot_power_limit", lambda r: watts(r.slot_power_limit_value, r.slot_power_limit_scale),
    )],
    links.Latency: [("latency", lambda r: nanoseconds(r.latency_value, r.latency_scale))],
    links.SubstatesCapabilities: [(
        "port_t_power_on",
        lambda r: _power_on(r.port_t_power_on_value, r.port_t_power_on_scale),
    )],
    links.SubstatesControl1: [(
        "ltr_l1_2_threshold",
        lambda r: nanoseconds(r.ltr_l1_2_threshold_value, r.ltr_l1_2_threshold_scale),
    )],
    links.SubstatesControl2: [(
        "t_power_on", lambda r: _power_on(r.t_power_on_value, r.t_power_on_scale),
    )],
}  # fmt: skip
"""What several fields of a register say together, each with the name that the pair goes by."""


def describe(value: Register) -> dict[str, str]:
    """Return each field by its name: '+' or '-' for a bit, else its number or what it means.

    What pairs of fields say together follows under a name of its own.
    """
    said = {each.name: _content(each, value) for each in value.FIELDS.values()}
    return said | {name: pair(value) for name, pair in PAIRS.get(type(value), ())}


def _content(each: Field[Any], value: Register) -> str:
    number = (value.raw & each.mask) >> each.low
    if each in WORDS:
        return WORDS[each](number)
    if each.kind is not None and isinstance(number, int):
        names = [member.name for member in each.kind if member.value == number]
        return names[0].lower().replace("_", " ") if names else f"{number} (unknown)"
    if each.width == 1:
        return "+" if number else "-"
    return str(number) if number < 10 else f"{number:#x}"
