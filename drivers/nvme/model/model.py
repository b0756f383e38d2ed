"""An NVMe controller with its namespaces (NVM Express Base Specification 1.4).

Registers and life cycle are here, sections 3.1 and 7.6; the rest of the folder has one part each.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from uspace_drivers.nvme.model.cmb import ControllerMemory
from uspace_drivers.nvme.model.commands.admin import Admin
from uspace_drivers.nvme.model.commands.events import Events
from uspace_drivers.nvme.model.commands.feature_store import FeatureStore
from uspace_drivers.nvme.model.commands.firmware import Firmware
from uspace_drivers.nvme.model.commands.health import Health
from uspace_drivers.nvme.model.commands.identity import Identity
from uspace_drivers.nvme.model.commands.io import InputOutput
from uspace_drivers.nvme.model.commands.log_pages import LogPages
from uspace_drivers.nvme.model.commands.queues import LIMITS, Queues
from uspace_drivers.nvme.model.execution import Execution
from uspace_drivers.nvme.model.options import NATIVE, PAGE, Options, bar_list
from uspace_drivers.nvme.model.rings.rings import ADMIN, PythonRings, Rings
from uspace_drivers.nvme.model.rings.vectors import Vectors
from uspace_drivers.nvme.model.store.namespaces import NamespaceStore
from uspace_drivers.nvme.model.task import Refused, Task
from uspace_drivers.nvme.model.transfer import HostData, Reach
from uspace_drivers.nvme.spec.commands import LogPage
from uspace_drivers.nvme.spec.features import Threshold
from uspace_drivers.nvme.spec.logs import (
    CriticalWarning,
    ErrorEvent,
    EventType,
    SmartEvent,
)
from uspace_drivers.nvme.spec.registers import (
    DOORBELLS,
    SUBSYSTEM_RESET,
    CmbMemorySpaceControl,
    CommandSet,
    Configuration,
    ControllerStatus,
    NvmeRegisters,
    Shutdown,
    ShutdownStatus,
)
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import IrqKind
from uspace_drv.models import (
    DeviceModel,
    PciExpress,
    PciIdentity,
    PowerManagement,
    on_read,
    on_write,
)

ALL_ONES = (1 << 64) - 1
UNLIMITED = 1 << 28
"""Bytes of a command without MDTS: as many as the most blocks of 4096 bytes have."""

READY_TIME = 2
"""CAP.TO: a second, though CSTS.RDY follows at once."""

DEFAULT_RINGS = NATIVE


class NvmeModel(DeviceModel):
    """An NVMe 1.4 controller of 64 I/O queues, with namespaces in memory, in a file, or nowhere.

    `size`: bytes of each of the `namespaces` (a number, or text such as 64M), in blocks of
    `block_size` (512 or 4096). `medium`: memory, discard, or the path of a sparse file. `rings`:
    who moves commands and completions, python or native (options.py). `latency`: seconds that each
    I/O command takes. `mdts`: a command carries up to 4096 << mdts bytes, 0: any number. `cmb`:
    bytes of controller memory buffer. `shadow`, `sgl`: whether it has a doorbell buffer, and SGLs.
    `metadata`: whether the namespaces have metadata, which is good for being refused only.
    """

    identity = PciIdentity(0x1234, 0x4E56, class_code=0x010802, revision=1, subvendor=0x1AF4)
    irqs = {IrqKind.INTX: 1, IrqKind.MSIX: LIMITS.queues + 1}
    capabilities = (PowerManagement(), PciExpress())

    def __init__(  # noqa: PLR0913 - each is an option of `virtual:nvme?…`
        self,
        name: str | None = None,
        *,
        size: int | str = "64M",
        block_size: int = 512,
        medium: str = "memory",
        namespaces: int = 1,
        rings: str = DEFAULT_RINGS,
        latency: float = 0.0,
        mdts: int = 7,
        cmb: int | str = 0,
        shadow: bool = False,
        sgl: bool = False,
        metadata: bool = False,
        serial: str = "USPACE0001",
    ) -> None:
        options = Options(
            name or "nvme", size, block_size, namespaces, latency, mdts, cmb, metadata, rings
        )
        self.serial = serial
        self.mdts = mdts
        self.has_shadow = shadow
        self.has_sgl = sgl
        self.bars = bar_list(options, rings)
        self.namespaces = NamespaceStore(serial, medium, options.bytes, namespaces, options.formats)
        self._build(rings, latency)
        self.cmb = ControllerMemory(self, options.cmb_bytes)
        super().__init__(name or "nvme")

    def _build(self, rings: str, latency: float) -> None:
        """Make the parts, none of which touches the model's function before it is powered on."""
        self.is_gone = False
        self.is_ready_stuck = False
        """For tests: CSTS.RDY does not follow CC.EN any more."""
        self.complaints: deque[str] = deque(maxlen=64)
        """For tests: what the driver did wrong, in words."""
        self._is_powered = False
        self._is_shut = True
        self.health = Health()
        self.firmware = Firmware()
        self.vectors = Vectors(lambda: (self.config, self.interrupts))
        self.features = FeatureStore(self)
        self.queues = Queues(self)
        self.events = Events(self)
        self.logs = LogPages(self)
        self.identification = Identity(self)
        self.admin = Admin(self)
        self.rings = _make_rings(self, rings)
        self.execution = Execution(self, self.admin.execute, InputOutput(self).execute, latency)
        self.faults = self.execution.faults
        self.execute = self.execution.execute

    @property
    def page_size(self) -> int:
        """Bytes of a memory page (CC.MPS)."""
        return 4096 << self.get(NvmeRegisters.cc).mps

    @property
    def most_data(self) -> int:
        """Bytes that a command may carry (MDTS)."""
        return 4096 << self.mdts if self.mdts else UNLIMITED

    @property
    def vector_count(self) -> int:
        """How many interrupt vectors there are now."""
        return self.irqs[IrqKind.MSIX] if self.config.is_msix_enabled else 1

    @property
    def is_write_through(self) -> bool:
        """Whether the driver has switched the volatile write cache off."""
        return not self.features.has_write_cache

    def data(self, task: Task) -> HostData:
        """Where a command's data is."""
        return HostData(Reach(self.memory, self.page_size, self.has_sgl), task)

    def power_on(self) -> None:
        """All registers as after a reset of the function; the queues are gone."""
        if not self._is_powered:
            self._is_powered = True
            self.health.power_cycles += 1
        self._reset_controller()
        self.cmb.reset()
        self.set(
            NvmeRegisters.cap,
            mqes=LIMITS.entries - 1,
            cqr=True,
            to=READY_TIME,
            nssrs=True,
            css=1 << CommandSet.NVM,
            cmbs=self.cmb.size > 0,
        )
        self.set(NvmeRegisters.vs, mjr=1, mnr=4)

    def close(self) -> None:
        """Switch it off: a shutdown that the driver did not ask for is counted."""
        with self._turn:
            if self._is_powered and not self._is_shut:
                self.health.unsafe_shutdowns += 1
            self._is_powered, self._is_shut = False, True
            self.execution.forget()
            self.cmb.detach()
        self.rings.close()
        try:
            super().close()
        finally:
            self.namespaces.close()

    @on_write(NvmeRegisters.cc)
    def configure(self, value: Configuration) -> None:
        """Enable, disable or shut down (section 3.1.5)."""
        before = self.get(NvmeRegisters.cc)
        if before.en and not value.en:
            self._reset_controller()
            self.set(NvmeRegisters.cc, value)
            self._set_status(rdy=self.is_ready_stuck, cfs=False, shst=ShutdownStatus.NONE)
        elif before.en:
            # All other fields are fixed while it is enabled.
            self.set(NvmeRegisters.cc, before.replace(shn=value.shn))
        else:
            self.set(NvmeRegisters.cc, value)
            if value.en:
                self._enable(value)
        if value.shn not in {Shutdown.NONE, before.shn}:
            self._shut_down()
        elif value.shn == Shutdown.NONE and before.shn != Shutdown.NONE:
            self._set_status(shst=ShutdownStatus.NONE)

    @on_write(NvmeRegisters.csts)
    def clear_status(self, value: ControllerStatus) -> None:
        """Only NSSRO can be cleared."""
        if value.nssro:
            self._set_status(nssro=False)

    @on_write(NvmeRegisters.nssr)
    def reset_subsystem(self, value: int) -> None:
        """Section 7.3.1: as a reset of everything, and CSTS says that it was one."""
        if value == SUBSYSTEM_RESET:
            self.reset()
            self._set_status(nssro=True)

    @on_read(NvmeRegisters.nssr)
    def read_subsystem_reset(self) -> int:
        """Nothing is kept."""
        return 0

    @on_write(NvmeRegisters.intms)
    def mask_interrupts(self, value: int) -> None:
        """Ones mask."""
        self.vectors.hold(value)

    @on_write(NvmeRegisters.intmc)
    def unmask_interrupts(self, value: int) -> None:
        """Ones unmask."""
        self.vectors.let(value)

    @on_read(NvmeRegisters.intms)
    def read_mask(self) -> int:
        """Both registers read the mask."""
        return self.vectors.mask

    @on_read(NvmeRegisters.intmc)
    def read_mask_again(self) -> int:
        """Both registers read the mask."""
        return self.vectors.mask

    @on_write(NvmeRegisters.cmbmsc)
    def move_cmb(self, value: CmbMemorySpaceControl) -> None:
        """Show it, and put it where it is to be."""
        self.cmb.configure(value)

    def read_bar(self, bar: int, offset: int, width: int) -> int:
        """The driver reads; all ones when the device is gone."""
        if self.is_gone:
            return ALL_ONES >> (64 - 8 * width)
        return super().read_bar(bar, offset, width)

    def write_bar(self, bar: int, offset: int, width: int, value: int) -> None:
        """The driver writes."""
        if not self.is_gone:
            super().write_bar(bar, offset, width, value)

    def read_other(self, bar: int, offset: int, width: int) -> int:
        """Reserved registers, and doorbells, read as zero."""
        return 0

    def write_other(self, bar: int, offset: int, width: int, value: int) -> None:
        """A doorbell, where it is no memory."""
        index = (offset - DOORBELLS) // 4
        if bar == 0 and index >= 0 and width == 4:
            self.rings.ring(index >> 1, bool(index & 1), value)

    def refuse_doorbell(self, why: str, *, exists: bool) -> None:
        """The driver is told by an event (section 5.2): of the register, or of its value."""
        self.complaints.append(why)
        info = ErrorEvent.INVALID_DOORBELL_VALUE if exists else ErrorEvent.INVALID_DOORBELL_REGISTER
        self.health.log_error(None, 0, Refused(Status.SUCCESS, why))
        self.events.happen(EventType.ERROR, info, LogPage.ERRORS)

    def fail(self, why: str) -> None:
        """Give up until the next reset: CSTS.CFS (section 9.5)."""
        with self._turn:
            self.complaints.append(why)
            self.rings.stop()
            self.execution.forget()
            self._set_status(cfs=True)

    def vanish(self) -> None:
        """For tests: the device is gone until `is_gone` is set back."""
        with self._turn:
            self.is_gone = True
            self.rings.stop()
            self.execution.forget()

    def warn(self, **bits: bool) -> None:
        """For tests: set or clear critical warnings; those that come up are told of."""
        kinds = {"spare": SmartEvent.SPARE, "temperature": SmartEvent.TEMPERATURE}
        with self._turn:
            before = self.health.warning
            self.health.warning = before.replace(**bits)
            for bit, value in bits.items():
                if value and not getattr(before, bit):
                    wanted = CriticalWarning(**{bit: True}).raw
                    self.events.warn(kinds.get(bit, SmartEvent.RELIABILITY), wanted)

    def set_temperature(self, kelvin: int) -> None:
        """For tests: be as warm as that."""
        self.health.temperature = kelvin
        self.check_temperature()

    def check_temperature(self) -> None:
        """Warn above or below the thresholds."""
        low, high = (self.features.threshold(each) for each in (Threshold.UNDER, Threshold.OVER))
        self.warn(temperature=not low < self.health.temperature < high)

    def show_namespaces(self) -> None:
        """Something about the namespaces has changed: tell the rings."""
        self.rings.show_namespaces(self.namespaces.attached)
        self.execution.show()

    def _enable(self, value: Configuration) -> None:
        """Section 7.6.1: what is wrong makes the controller fail, and CSTS.RDY stays 0."""
        aqa = self.get(NvmeRegisters.aqa)
        asq, acq = self.get(NvmeRegisters.asq), self.get(NvmeRegisters.acq)
        wrong = _what_is_wrong(value, asq, acq, {"ASQS": aqa.asqs, "ACQS": aqa.acqs})
        if wrong:
            self.fail(wrong)
            return
        self._is_shut = False
        self.rings.open_completion(ADMIN, acq, aqa.acqs + 1, 0)
        self.rings.open_submission(ADMIN, asq, aqa.asqs + 1, ADMIN)
        self.show_namespaces()
        self.rings.start()
        self._set_status(rdy=not self.is_ready_stuck, cfs=False, shst=ShutdownStatus.NONE)

    def _shut_down(self) -> None:
        """Section 7.6.2: all that was written is on its medium when CSTS.SHST says so."""
        self.rings.stop()
        self.execution.forget()
        self.namespaces.flush()
        self._is_shut = True
        self._set_status(shst=ShutdownStatus.COMPLETE)

    def _reset_controller(self) -> None:
        """Forget what a controller level reset forgets (section 7.3.2)."""
        self.rings.stop()
        self.execution.forget()
        self.health.add(self.rings.take_work())
        for part in (self.queues, self.events, self.features, self.logs, self.admin, self.vectors):
            part.reset()
        self.firmware.activate()

    def _set_status(self, **fields: Any) -> None:
        self.set(NvmeRegisters.csts, self.get(NvmeRegisters.csts).replace(**fields))


def _what_is_wrong(value: Configuration, asq: int, acq: int, sizes: dict[str, int]) -> str | None:
    """Why the controller cannot be enabled like this."""
    if value.css != CommandSet.NVM or value.mps or value.ams:
        return f"CC {value}: expected the NVM command set, pages of 4 KiB, round robin"
    for name, address in (("ASQ", asq), ("ACQ", acq)):
        if address % 4096:
            return f"{name} {address:#x} is no page's"
    for name, size in sizes.items():
        if not size:
            return f"AQA.{name}: an admin queue has at least 2 entries"
    return None


def _make_rings(model: NvmeModel, kind: str) -> Rings:
    if kind != NATIVE:
        return PythonRings(model)
    # Only who wants it needs the C part to be built.
    from uspace_drivers.nvme.model.rings.native_rings import NativeRings  # noqa: PLC0415

    def doorbells() -> memoryview:
        return model.bar_memory(0)[DOORBELLS : DOORBELLS + PAGE]

    return NativeRings(model, doorbells, has_sgl=model.has_sgl)
