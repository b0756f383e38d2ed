"""The control plane on the model: life cycle, admin commands, events, and what they change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.control.admin import DATA_LIMIT
from uspace_drivers.nvme.control.admin_commands import command
from uspace_drivers.nvme.model.commands.firmware import MAGIC
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import AdminOpcode, CommitAction, LogPage, Opcode
from uspace_drivers.nvme.spec.identify import DescriptorType
from uspace_drivers.nvme.spec.logs import (
    AsyncEvent,
    CommandEffects,
    EventType,
    NoticeEvent,
    SmartEvent,
    revisions_of,
)
from uspace_drivers.nvme.spec.registers import Configuration, NvmeRegisters, Shutdown
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import ClosedError, IrqKind, RegisterValueError, attach
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.port import Backend

WAIT = 10.0


def a_model(**options: Any) -> NvmeModel:
    return NvmeModel("nvme", rings="python", **{"size": "4M", **options})


@pytest.fixture
def model() -> NvmeModel:
    return a_model(namespaces=2)


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        yield driver
    assert not model.complaints


class Heard:
    """Listens to events, and lets a test wait for one."""

    def __init__(self, nvme: Nvme) -> None:
        self._came = threading.Condition()
        self.events: list[AsyncEvent] = []
        nvme.controller.events.listen(self._hear)

    def _hear(self, event: AsyncEvent) -> None:
        with self._came:
            self.events.append(event)
            self._came.notify_all()

    def wait(self, count: int) -> list[AsyncEvent]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.events) >= count, WAIT), self.events
        return self.events


class Noting(NvmeModel):
    """Keeps what is written to CC."""

    def __init__(self) -> None:
        self.settings: list[Configuration] = []
        super().__init__("nvme", size="4M", rings="python")

    def write_bar(self, bar: int, offset: int, width: int, value: int) -> None:
        if (bar, offset) == (0, NvmeRegisters.cc.offset):
            self.settings.append(Configuration(value))
        super().write_bar(bar, offset, width, value)


def test_probe_enables_and_remove_shuts_down() -> None:
    model = Noting()
    with attach(model, Nvme) as driver:
        configuration = model.get(NvmeRegisters.cc)
        assert configuration.en
        assert (configuration.iosqes, configuration.iocqes, configuration.mps) == (6, 4, 0)
        assert model.get(NvmeRegisters.csts).rdy
        assert driver.controller.queue_limit == 64
        model.settings.clear()
    shutdown, disabled = model.settings
    assert shutdown.shn is Shutdown.NORMAL
    assert shutdown.en
    assert not disabled.en
    assert model.health.unsafe_shutdowns == 0


@pytest.mark.parametrize("kind", [IrqKind.INTX, IrqKind.MSIX])
def test_admin_commands_by_interrupt(model: NvmeModel, kind: IrqKind) -> None:
    with attach(model, Nvme, irq_kind=kind) as driver:
        assert driver.device.irq_kind is kind
        for _ in range(5):
            driver.controller.smart_log()


class WithoutInterrupts(VirtualDevice):
    """What sysfs gives: registers and no interrupts."""

    irq_counts = {}


def test_without_any_interrupt(model: NvmeModel) -> None:
    backend: Backend = WithoutInterrupts(model)
    with attach(backend, Nvme) as driver:
        assert driver.device.irq_count == 0
        driver.self_test()
        heard = Heard(driver)
        model.warn(spare=True)
        driver.controller.smart_log()  # with which the event is found
        assert [each.info for each in heard.wait(1)] == [SmartEvent.SPARE]


def test_bytes_of_one_command_are_limited(nvme: Nvme) -> None:
    with pytest.raises(RegisterValueError, match="moves up to 16384"):
        nvme.controller.admin(command(AdminOpcode.GET_LOG_PAGE), np.zeros(DATA_LIMIT + 4, "u1"))


def test_small_transfers_are_a_limit_for_logs_too() -> None:
    with attach(a_model(mdts=1), Nvme) as driver:
        assert driver.controller.data_limit == 8192
        assert driver.controller.get_log(LogPage.ERRORS, 64 * 64).nbytes == 4096
        driver.controller.download_firmware(firmware("3.0.0"))
        assert not driver.controller.commit_firmware(2, CommitAction.STORE)


def test_command_that_fails_says_why(nvme: Nvme) -> None:
    with pytest.raises(CommandError, match=r"^nvme: identify \(0x06\) .*failed: ") as caught:
        nvme.controller.admin(command(AdminOpcode.IDENTIFY, cdw10=0xEE), np.zeros(4096, "u1"))
    assert caught.value.opcode is AdminOpcode.IDENTIFY
    assert caught.value.code == Status.INVALID_FIELD


def test_opcode_that_does_not_exist(nvme: Nvme) -> None:
    with pytest.raises(CommandError, match=r"\(0x3c\) failed: invalid opcode"):
        nvme.controller.admin(command(0x3C))


def test_more_commands_than_places_for_data(nvme: Nvme) -> None:
    """They wait for one another, and each gets its own data."""
    failures: list[Any] = []

    def ask(number: int) -> None:
        try:
            for _ in range(20):
                found = nvme.controller.identify_namespace(number)
                if found is None or found.id != number:
                    failures.append(found)
        except BaseException as failure:  # noqa: BLE001 - looked at below
            failures.append(failure)

    threads = [threading.Thread(target=ask, args=(1 + index % 2,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures


def test_lists_and_descriptors(nvme: Nvme, model: NvmeModel) -> None:
    controller = nvme.controller
    assert controller.active_namespaces() == [1, 2]
    assert controller.allocated_namespaces() == [1, 2]
    assert controller.controllers() == [controller.identity.controller]
    assert controller.controllers(namespace=1) == [controller.identity.controller]
    found = dict(controller.namespace_descriptors(1))
    assert found[DescriptorType.NGUID] == model.namespaces.all[0].nguid


def test_event_is_logged_handed_on_and_comes_again(
    nvme: Nvme, model: NvmeModel, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard(nvme)
    model.warn(spare=True)
    heard.wait(1)
    model.warn(temperature=True)  # told only because the log page was read
    events = heard.wait(2)
    assert [each.info for each in events] == [SmartEvent.SPARE, SmartEvent.TEMPERATURE]
    assert {each.type for each in events} == {EventType.SMART}
    assert list(nvme.controller.events.recent) == events
    assert "nvme: smart: spare" in caplog.text


def test_more_events_than_requests(nvme: Nvme, model: NvmeModel) -> None:
    heard = Heard(nvme)
    for round_ in range(1, 13):
        model.warn(spare=True)
        heard.wait(round_)
        model.warn(spare=False)


def test_events_go_on_after_a_reset(nvme: Nvme, model: NvmeModel) -> None:
    heard = Heard(nvme)
    nvme.controller.reset()
    model.warn(spare=True)
    assert heard.wait(1)


def test_namespaces_come_and_go(nvme: Nvme) -> None:
    controller = nvme.controller
    controller.delete_namespace(2)
    assert list(nvme.namespaces) == [1]
    number = controller.create_namespace(1024)
    assert list(nvme.namespaces) == [1]
    controller.attach_namespace(number)
    assert sorted(nvme.namespaces) == [1, number]
    namespace = nvme.namespaces[number]
    assert namespace.blocks == 1024
    namespace.write(1023, bytes(namespace.block_size))
    controller.detach_namespace(number)
    assert list(nvme.namespaces) == [1]
    with pytest.raises(RegisterValueError):  # the engine does not know it any more
        namespace.read(0, 1)


def test_change_by_another_host_is_heard_of(nvme: Nvme, model: NvmeModel) -> None:
    changed = threading.Event()
    nvme.controller.events.listen(lambda _: changed.set())  # after the driver's own listener
    with model.quiesce():
        model.namespaces.detach(2)
        model.show_namespaces()
        model.logs.note_change(2)
        model.events.happen(
            EventType.NOTICE, NoticeEvent.NAMESPACE_CHANGED, LogPage.CHANGED_NAMESPACES
        )
    assert changed.wait(WAIT)
    assert list(nvme.namespaces) == [1]


def test_format_changes_the_block_size(nvme: Nvme) -> None:
    before = nvme.namespaces[1]
    before.write(0, np.full(512, 7, np.uint8))
    nvme.controller.format(1, 1)
    after = nvme.namespaces[1]
    assert after is not before
    assert (after.block_size, after.blocks) == (4096, before.blocks // 8)
    assert not after.read(0, 1).any()
    with pytest.raises(RegisterValueError):  # the old one's last block does not exist any more
        before.read(before.blocks - 1, 1)


def test_metadata_is_refused_until_it_is_formatted_away() -> None:
    model = a_model(metadata=True)
    with attach(model, Nvme) as driver:
        assert not driver.namespaces
        assert "8 bytes of metadata" in driver.refused[1]
        assert "formats without metadata: 1, 2" in driver.refused[1]
        driver.controller.format(1, 1)
        assert not driver.refused
        driver.namespaces[1].read(0, 1)


def test_firmware_runs_after_a_reset(nvme: Nvme) -> None:
    controller = nvme.controller
    image = firmware("2.0.0")
    controller.download_firmware(image)
    assert controller.commit_firmware(2, CommitAction.STORE_AND_ACTIVATE)
    assert controller.identify_controller().firmware != "2.0.0"
    controller.reset("new firmware")
    assert controller.identity.firmware == "2.0.0"
    assert revisions_of(controller.firmware_log())[2] == "2.0.0"


def test_changed_namespaces_are_told_once(nvme: Nvme, model: NvmeModel) -> None:
    model.logs.note_change(3)
    model.logs.note_change(1)
    assert nvme.controller.changed_namespaces() == [1, 3]
    assert nvme.controller.changed_namespaces() == []


def test_effects_of_commands(nvme: Nvme) -> None:
    effects = nvme.controller.command_effects()
    write, format_ = int(effects["iocs"][Opcode.WRITE]), int(effects["acs"][AdminOpcode.FORMAT])
    assert CommandEffects(csupp=True, lbcc=True).raw == write & 3
    assert CommandEffects(csupp=True).raw == format_ & 1
    assert not effects["iocs"][0x7F] & 1


def firmware(revision: str) -> bytes:
    return MAGIC + revision.ljust(8).encode() + bytes(40_000)


def test_what_was_open_stays_open_over_a_reset(nvme: Nvme) -> None:
    namespace = nvme.namespaces[1]
    data = np.arange(512, dtype=np.uint16).astype(np.uint8)
    namespace.write(1, data)
    pair = nvme.queue(8)
    nvme.controller.reset()
    assert nvme.namespaces[1] is namespace
    assert np.array_equal(namespace.read(1, 1), data)
    with nvme.memory.alloc("u1", 512) as memory:
        requests = namespace.requests(Opcode.READ, [1], data=memory.iova)
        assert not pair.run(requests)["status"].any()
        assert np.array_equal(memory.array, data)


def test_suspended_controller_takes_no_commands(model: NvmeModel) -> None:
    attachment = attach(model, Nvme)
    driver = attachment.driver
    attachment.suspend()
    with pytest.raises(ClosedError, match="was shut down"):
        driver.controller.smart_log()
    with pytest.raises(ClosedError, match="was shut down"):
        driver.controller.check()
    attachment.resume()
    driver.self_test()
    attachment.close()
    with pytest.raises(ClosedError, match="was shut down"):
        driver.controller.smart_log()


def test_suspended_and_left(model: NvmeModel) -> None:
    attachment = attach(model, Nvme)
    attachment.suspend()
    attachment.close()
    assert not model.get(NvmeRegisters.cc).en
