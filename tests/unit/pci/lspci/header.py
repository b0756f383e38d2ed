"""What lspci prints of the header."""

from __future__ import annotations

from collections.abc import Mapping

from tests.unit.pci.lspci.rules import Rule, Value, decimal, hexadecimal, of

_COMMAND = of(
    "command",
    "I/O=io_space_enable Mem=memory_space_enable BusMaster=bus_master_enable "
    "SpecCycle=special_cycle_enable MemWINV=memory_write_and_invalidate "
    "VGASnoop=vga_palette_snoop ParErr=parity_error_response Stepping=idsel_stepping "
    "SERR=serr_enable FastB2B=fast_back_to_back_transactions_enable DisINTx=interrupt_disable",
)
_STATUS = (
    "66MHz=mhz_66_capable FastB2B=fast_back_to_back_transactions_capable "
    "ParErr=master_data_parity_error >TAbort=signaled_target_abort "
    "<TAbort=received_target_abort <MAbort=received_master_abort "
    "{}SERR=signaled_system_error <PERR=detected_parity_error"
)
_DEVSEL = Value(r"DEVSEL=(\S+)", "devsel_timing", lambda n: ("fast", "medium", "slow", "??")[n])
_PIN = Value(r"pin (.)", "interrupt_pin", lambda n: f"{n and ord('A') - 1 + n:c}" if n else "?")
HEADER: Mapping[str, Rule] = {
    "BIST result": Rule(values=(Value(r"^(\w\w)", "bist", lambda n: f"{n & 0xF:02x}"),)),
    "Control": _COMMAND,
    "Status": of(
        "status",
        "Cap=capabilities_list UDF=user_definable_features INTx=interrupt_status "
        + _STATUS.format(">"),
        _DEVSEL,
    ),
    "Secondary status": of("secondary_status", _STATUS.format("<"), _DEVSEL),
    "BridgeCtl": of(
        "bridge_control",
        "Parity=parity_error_response_enable SERR=serr_enable NoISA=isa_enable VGA=vga_enable "
        "VGA16=vga_16_bit_decode MAbort=master_abort_mode >Reset=secondary_bus_reset "
        "FastB2B=fast_back_to_back_transactions_enable PriDiscTmr=primary_discard_timer "
        "SecDiscTmr=secondary_discard_timer DiscTmrStat=discard_timer_status "
        "DiscTmrSERREn=discard_timer_serr_enable",
    ),
    "Bus": Rule(
        values=(
            Value(r"primary=(\w\w)", "primary_bus_number", hexadecimal(2)),
            Value(r"secondary=(\w\w)", "secondary_bus_number", hexadecimal(2)),
            Value(r"subordinate=(\w\w)", "subordinate_bus_number", hexadecimal(2)),
            Value(r"sec-latency=(\d+)", "secondary_latency_timer", decimal),
        )
    ),
    "Latency": Rule(
        values=(
            Value(r"^(\d+)", "latency_timer", decimal),
            Value(r"\(?(\d+)ns min", "min_gnt", lambda n: str(n * 250)),
            Value(r"(\d+)ns max", "max_lat", lambda n: str(n * 250)),
            Value(r"Cache Line Size: (\d+) bytes", "cache_line_size", lambda n: str(n * 4)),
        )
    ),
    "Interrupt": Rule(
        values=(_PIN, Value(r"routed to IRQ (\d+)", "interrupt_line", decimal)),
    ),
}
