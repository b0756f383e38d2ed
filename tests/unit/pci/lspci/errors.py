"""What lspci prints of the capabilities that report and contain errors."""

from __future__ import annotations

from tests.unit.pci.lspci.rules import HEX8, Rule, Value, decimal, hexadecimal, of

_UNCORRECTABLE = """DLP=data_link_protocol_error SDES=surprise_down_error TLP=poisoned_tlp_received
    FCP=flow_control_protocol_error CmpltTO=completion_timeout CmpltAbrt=completer_abort
    UnxCmplt=unexpected_completion RxOF=receiver_overflow MalfTLP=malformed_tlp ECRC=ecrc_error
    UnsupReq=unsupported_request_error ACSViol=acs_violation"""
_CORRECTABLE = """RxErr=receiver_error BadTLP=bad_tlp BadDLLP=bad_dllp Rollover=replay_num_rollover
    Timeout=replay_timer_timeout AdvNonFatalErr=advisory_non_fatal_error"""


ERRORS = {
    "UESta": of("uncorrectable_error_status", _UNCORRECTABLE),
    "UEMsk": of("uncorrectable_error_mask", _UNCORRECTABLE),
    "UESvrt": of("uncorrectable_error_severity", _UNCORRECTABLE),
    "CESta": of("correctable_error_status", _CORRECTABLE),
    "CEMsk": of("correctable_error_mask", _CORRECTABLE),
    "AERCap": of(
        "capabilities_and_control",
        "ECRCGenCap=ecrc_generation_capable ECRCGenEn=ecrc_generation_enable "
        "ECRCChkCap=ecrc_check_capable ECRCChkEn=ecrc_check_enable "
        "MultHdrRecCap=multiple_header_recording_capable "
        "MultHdrRecEn=multiple_header_recording_enable TLPPfxPres=tlp_prefix_log_present "
        "HdrLogCap=completion_timeout_prefix_header_log_capable",
        Value(r"First Error Pointer: (\w\w)", "first_error_pointer", hexadecimal(2)),
    ),
    "HeaderLog": Rule(
        values=tuple(Value(rf"^\s*{HEX8}", f"header_log[{n}]", hexadecimal(8)) for n in range(4))
    ),
    "RootCmd": of(
        "root_error_command",
        "CERptEn=correctable_error_reporting_enable NFERptEn=non_fatal_error_reporting_enable "
        "FERptEn=fatal_error_reporting_enable",
    ),
    "RootSta": of(
        "root_error_status",
        "CERcvd=err_cor_received MultCERcvd=multiple_err_cor_received "
        "UERcvd=err_fatal_nonfatal_received MultUERcvd=multiple_err_fatal_nonfatal_received "
        "FirstFatal=first_uncorrectable_fatal NonFatalMsg=non_fatal_error_messages_received "
        "FatalMsg=fatal_error_messages_received",
        Value(r"IntMsg(?:Num)? (\d+)", "advanced_error_interrupt_message_number", decimal),
    ),
    "ErrorSrc": Rule(
        values=(
            Value(r"ERR_COR: (\w{4})", "err_cor_source", hexadecimal(4)),
            Value(r"ERR_FATAL/NONFATAL: (\w{4})", "err_fatal_nonfatal_source", hexadecimal(4)),
        )
    ),
}


CONTAINMENT = {
    "DpcCap": of(
        "dpc_capability",
        "RPExt=rp_extensions_for_dpc PoisonedTLP=poisoned_tlp_egress_blocking_supported "
        "SwTrigger=software_triggering_supported "
        "DL_ActiveErr=dl_active_err_cor_signaling_supported",
        Value(r"(?:INT Msg #|IntMsgNum )(\d+)", "interrupt_message_number", decimal),
        Value(r"RP PIO Log (\d+)", "rp_pio_log_size", decimal),
    ),
    "DpcCtl": of(
        "dpc_control",
        "Cmpl=completion_control INT=interrupt_enable ErrCor=err_cor_enable "
        "PoisonedTLP=poisoned_tlp_egress_blocking_enable SwTrigger=software_trigger "
        "DL_ActiveErr=dl_active_err_cor_enable",
        Value(r"Trigger:(\w)", "trigger_enable", hexadecimal(1)),
    ),
    "DpcSta": of(
        "dpc_status",
        "Trigger=trigger_status INT=interrupt_status RPBusy=rp_busy",
        Value(r"Reason:(\w\w)", "trigger_reason", hexadecimal(2)),
        Value(r"TriggerExt:(\w\w)", "trigger_reason_extension", hexadecimal(2)),
        Value(r"RP PIO ErrPtr:(\w\w)", "rp_pio_first_error_pointer", hexadecimal(2)),
    ),
    "Source": Rule(values=(Value(r"^(\w{4})", "error_source_id", hexadecimal(4)),)),
}
