"""Values of features: dword 11 of Set Features, the result of Get Features.

NVM Express Base Specification 1.4, section 5.21.1; the fields have its names in lower case.
"""

from enum import IntEnum

from uspace_drv import Register, bit, field


class ArbitrationValue(Register):
    """FeatureId.ARBITRATION."""

    hpw = field(31, 24, "weight of high priority, less one")
    mpw = field(23, 16, "weight of medium priority, less one")
    lpw = field(15, 8, "weight of low priority, less one")
    ab = field(2, 0, "1 << ab commands at once of a queue; 7: no limit")


class PowerManagement(Register):
    """FeatureId.POWER_MANAGEMENT."""

    wh = field(7, 5, "workload hint")
    ps = field(4, 0, "power state")


class Threshold(IntEnum):
    """TemperatureThreshold.thsel."""

    OVER = 0
    UNDER = 1


class TemperatureThreshold(Register):
    """FeatureId.TEMPERATURE_THRESHOLD."""

    thsel = field(21, 20, Threshold)
    tmpsel = field(19, 16, "0: composite, 1 to 8: sensor, 15: all (Set Features)")
    tmpth = field(15, 0, "K")


class ErrorRecovery(Register):
    """FeatureId.ERROR_RECOVERY."""

    dulbe = bit(16, "reads of deallocated blocks fail")
    tler = field(15, 0, "limit of retries with Transfer.lr, in 100 ms; 0: none")


class VolatileWriteCache(Register):
    """FeatureId.VOLATILE_WRITE_CACHE."""

    wce = bit(0, "enabled")


class NumberOfQueues(Register):
    """FeatureId.NUMBER_OF_QUEUES: I/O queues, wished for or given, each less one."""

    ncq = field(31, 16, "completion queues")
    nsq = field(15, 0, "submission queues")


class InterruptCoalescing(Register):
    """FeatureId.INTERRUPT_COALESCING."""

    time = field(15, 8, "longest delay, in 100 µs")
    thr = field(7, 0, "completions for an interrupt, less one")


class InterruptVector(Register):
    """FeatureId.INTERRUPT_VECTOR."""

    cd = bit(16, "no coalescing for this vector")
    iv = field(15, 0, "vector")


class WriteAtomicity(Register):
    """FeatureId.WRITE_ATOMICITY."""

    dn = bit(0, "AWUN and NAWUN need not hold, only what power failures leave")


class AsyncEventConfiguration(Register):
    """FeatureId.ASYNC_EVENTS: which events are told of."""

    discovery = bit(31)
    endurance_group = bit(14)
    lba_status = bit(13)
    predictable_latency = bit(12)
    ana = bit(11)
    telemetry = bit(10)
    firmware_activation = bit(9)
    namespace_attributes = bit(8)
    persistent_memory = bit(5)
    backup_failed = bit(4)
    read_only = bit(3)
    unreliable = bit(2)
    temperature = bit(1)
    spare = bit(0)


class AutonomousPower(Register):
    """FeatureId.AUTONOMOUS_POWER; its table of 32 u64 is the data."""

    apste = bit(0, "enabled")


class TimestampOrigin(IntEnum):
    """Timestamp.origin."""

    RESET = 0
    HOST = 1


class Timestamp(Register, width=64):
    """FeatureId.TIMESTAMP: its 8 bytes of data, little-endian."""

    origin = field(51, 49, TimestampOrigin)
    synch = bit(48, "the controller may have stopped counting")
    timestamp = field(47, 0, "ms since 1970-01-01 UTC, or since the reset")


class KeepAlive(Register):
    """FeatureId.KEEP_ALIVE."""

    kato = field(31, 0, "ms until the controller gives up on the host; 0: never")


class HostIdentifier(Register):
    """FeatureId.HOST_IDENTIFIER; its 8 or 16 bytes are the data."""

    exhid = bit(0, "16 bytes, else 8")


class SoftwareProgress(Register):
    """FeatureId.SOFTWARE_PROGRESS."""

    pbslc = field(7, 0, "loads by the firmware before the operating system")
