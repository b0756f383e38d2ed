"""A model as an operating system meets it: memory, MSI-X, power, reset, time, parameters."""

from __future__ import annotations

import mmap
import os
import threading
from enum import Enum

import pytest

from uspace_drv import (
    DeviceError,
    DeviceGone,
    IrqKind,
    LayoutError,
    NoDevice,
    RegisterBlock,
    UnsupportedError,
    ro,
    rw,
    w1c,
    wo,
)
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.models import (
    Area,
    Bar,
    BarKind,
    DeviceModel,
    Msix,
    PciExpress,
    PciIdentity,
    PowerManagement,
    on_read,
    on_write,
)

PAGE = mmap.PAGESIZE
PM_STATUS, DEVICE_CONTROL = 0x44, 0x50
"""Power management is the first capability (0x40), PCI Express the second one (0x48)."""

pytestmark = pytest.mark.usefixtures("nothing_left")


class Registers(RegisterBlock, size=0x40):
    plain = rw(0x00)
    whole = rw(0x08, width=64)
    late = rw(0x10, width=64, split="low first")
    early = rw(0x18, width=64, split="high first")
    events = w1c(0x20, width=64)
    time = ro(0x28, width=64)
    start = wo(0x30)


class Model(DeviceModel):
    identity = PciIdentity(1, 2)
    bars = {
        0: Bar(Registers, size=4 * PAGE, memory=(Area(PAGE, PAGE), Area(3 * PAGE, PAGE))),
        2: Bar(size=PAGE, memory=(Area(0, PAGE),), kind=BarKind.MEMORY_64),
    }
    irqs = {IrqKind.INTX: 1, IrqKind.MSIX: 3}
    capabilities = [PowerManagement(), PciExpress()]

    def power_on(self) -> None:
        self.log: list[tuple[str, int]] = []

    @on_write(Registers.whole)
    def write_whole(self, value: int) -> None:
        self.log.append(("whole", value))
        self.set(Registers.whole, value)

    @on_write(Registers.late)
    def write_late(self, value: int) -> None:
        self.log.append(("late", value))

    @on_write(Registers.early)
    def write_early(self, value: int) -> None:
        self.log.append(("early", value))

    @on_read(Registers.time)
    def read_time(self) -> int:
        return 0x1111_2222_3333_4444

    @on_write(Registers.start)
    def run(self, value: int) -> None:
        self.after(value / 1000, lambda: self.log.append(("timer", value)))


@pytest.fixture
def model() -> Model:
    return Model("toy")


class TestHalves:
    """64-bit registers that are accessed by 32 bits."""

    def test_reads(self, model: Model) -> None:
        assert (model.read_bar(0, 0x28, 4), model.read_bar(0, 0x2C, 4)) == (0x33334444, 0x11112222)

    def test_each_half_takes_effect_where_no_order_is_declared(self, model: Model) -> None:
        model.write_bar(0, 0x08, 4, 1)
        model.write_bar(0, 0x0C, 4, 2)
        assert model.log == [("whole", 1), ("whole", 2 << 32 | 1)]

    def test_declared_order_takes_effect_with_the_second_half(self, model: Model) -> None:
        for offset, value in ((0x10, 1), (0x14, 2), (0x1C, 3), (0x18, 4)):
            model.write_bar(0, offset, 4, value)
        assert model.log == [("late", 2 << 32 | 1), ("early", 3 << 32 | 4)]

    def test_ones_clear_in_the_half_that_is_written(self, model: Model) -> None:
        model.set(Registers.events, 0xFFFF_FFFF_FFFF_FFFF)
        model.write_bar(0, 0x24, 4, 0xFF)
        assert model.get(Registers.events) == 0xFFFF_FF00_FFFF_FFFF

    def test_whole_width_still_works(self, model: Model) -> None:
        model.write_bar(0, 0x10, 8, 5)
        assert model.log == [("late", 5)]


class TestMemory:
    """BARs of plain memory, beside registers or alone."""

    def test_registers_and_memory_in_one_bar(self, model: Model) -> None:
        bar = VirtualDevice(model).bar(0)
        bar.write32(PAGE + 4, 0xCAFE)
        bar.write64(4 * PAGE - 8, 7)
        assert (bar.read32(PAGE + 4), bar.read16(PAGE + 4), bar.read64(4 * PAGE - 8)) == (
            0xCAFE,
            0xCAFE,
            7,
        )
        assert model.bar_memory(0)[PAGE + 4] == 0xFE
        assert bar.read32(2 * PAGE) == 0xFFFF_FFFF  # nothing is between the areas
        bar.close()
        model.close()

    def test_memory_beside_registers_is_mapped(self, model: Model) -> None:
        bar = VirtualDevice(model).bar(0)
        view = bar.memory(3 * PAGE, PAGE)
        view[4] = 0x5A
        assert model.read_bar(0, 3 * PAGE + 4, 1) == 0x5A
        with pytest.raises(UnsupportedError, match="not all of that lies in one mapped part"):
            bar.memory(0, PAGE)
        bar.close()
        assert view[4] == 0  # it is no longer the device's
        model.close()

    def test_memory_is_a_file_that_others_map(self, model: Model) -> None:
        view = model.bar_list[0]
        assert view.areas == (Area(PAGE, PAGE), Area(3 * PAGE, PAGE))
        with mmap.mmap(view.fd, PAGE, offset=PAGE) as theirs:
            theirs[8] = 0x5A
            assert model.read_bar(0, PAGE + 8, 1) == 0x5A
            model.write_bar(0, PAGE + 9, 1, 0xA5)
            assert theirs[9] == 0xA5
        model.close()

    def test_nobody_can_make_the_file_shorter(self, model: Model) -> None:
        with pytest.raises(PermissionError):
            os.ftruncate(model.bar_list[0].fd, 0)
        model.close()

    def test_a_bar_of_memory_is_mapped(self, model: Model) -> None:
        device = VirtualDevice(model)
        bar = device.bar(2)
        bar.memory()[:4] = b"\x01\x02\x03\x04"
        assert model.read_bar(2, 0, 4) == 0x04030201
        bar.close()
        device.close()

    def test_registers_alone_have_no_file(self, model: Model) -> None:
        with pytest.raises(UnsupportedError, match="toy bar 1: no part of it is memory"):
            _ = model.bar_list[1].fd


class TestMsix:
    """The table and the pending bits, which the kit places."""

    def test_a_free_bar_is_made(self, model: Model) -> None:
        # BAR 1 is the first one that is free: BAR 2 has 64 bits and takes 3 with it.
        assert {number: view.size for number, view in model.bar_list.items()} == {
            0: 4 * PAGE,
            1: 4096,
            2: PAGE,
        }
        assert model.config.read(0x88, 4) == 1
        assert model.config.read(0x8C, 4) == 0x801

    def test_table_can_be_programmed(self, model: Model) -> None:
        for offset in (0x20, 0x24, 0x28, 0x2C):
            model.write_bar(1, offset, 4, 0xFFFF_FFFF)
        values = [model.read_bar(1, offset, 4) for offset in (0x20, 0x24, 0x28, 0x2C)]
        assert values == [0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF_FFFF, 1]
        model.write_bar(1, 0x20, 8, 0x1_FEE0_0000)
        assert model.read_bar(1, 0x20, 8) == 0x1_FEE0_0000
        model.write_bar(1, 0x800, 8, 0xFF)
        assert model.read_bar(1, 0x800, 8) == 0  # software cannot write what is pending
        assert model.read_bar(1, 0x30, 4) == 0xFFFF_FFFF  # there is no fourth vector

    def test_masking_by_the_table_holds_messages_back(self, model: Model) -> None:
        model.config.write(0x04, 2, 4)
        line = model.interrupts.line(IrqKind.MSIX, 1)
        model.write_bar(1, 0x1C, 4, 1)
        model.interrupts.send(1)
        assert (line.take(), model.read_bar(1, 0x800, 1)) == (0, 2)
        model.write_bar(1, 0x1C, 4, 0)
        assert (line.take(), model.read_bar(1, 0x800, 1)) == (1, 0)
        line.close()

    @pytest.mark.parametrize(
        ("place", "what"),
        [
            (Msix(1, 0), "there is no BAR 1"),
            (Msix(0, 0x20), "0x20 bytes at 0x20 of BAR 0"),
            (Msix(0, 0x44), "0x20 bytes at 0x44 of BAR 0"),
            (Msix(0, PAGE - 0x10), "at 0xff0 of BAR 0; .*outside of its memory"),
            (Msix(0, 0x40, 0x50), "the pending bits lie in the table of 0x20 bytes"),
            (Msix(0, 0x40, 4 * PAGE), "0x8 bytes at 0x4000 of BAR 0"),
        ],
    )
    def test_place_that_does_not_fit(self, place: Msix, what: str) -> None:
        class Misplaced(Model):
            bars = {0: Bar(Registers, size=4 * PAGE, memory=(Area(PAGE, PAGE),))}
            irqs = {IrqKind.MSIX: 2}
            capabilities = [place]

        with pytest.raises(LayoutError, match=what):
            Misplaced()

    def test_place_that_the_author_wants(self) -> None:
        class Placed(Model):
            irqs = {IrqKind.MSIX: 2}
            capabilities = [Msix(0, 0x40)]

        model = Placed()
        assert set(model.bar_list) == {0, 2}
        assert (model.read_bar(0, 0x4C, 4), model.read_bar(0, 0x60, 8)) == (1, 0)
        assert model.read_bar(0, 0, 4) == 0

    def test_no_bar_is_left(self) -> None:
        class Full(Model):
            bars = {number: Bar(size=16, kind=BarKind.MEMORY_64) for number in (0, 2, 4)}

        with pytest.raises(LayoutError, match="no BAR is left for the MSI-X table"):
            Full()


class TestReset:
    """Resets by configuration space, and what each leaves."""

    def dirty(self, model: Model) -> None:
        model.write_bar(0, 0, 4, 7)
        model.config.write(0x04, 2, 0x0006)
        model.config.write(0x10, 4, 0xE000_0000)

    def test_function_level_reset(self, model: Model) -> None:
        self.dirty(model)
        model.config.write(DEVICE_CONTROL, 2, 0x8000)
        assert model.config.read(DEVICE_CONTROL, 2) & 0x8000 == 0
        assert (model.read_bar(0, 0, 4), model.config.read(0x04, 2)) == (0, 0)
        assert model.config.read(0x10, 4) == 0

    def test_reset_through_vfio_keeps_config(self, model: Model) -> None:
        self.dirty(model)
        model.reset()
        assert (model.read_bar(0, 0, 4), model.config.read(0x04, 2)) == (0, 6)

    def test_in_d3hot_nothing_answers_and_d0_is_a_reset(self, model: Model) -> None:
        self.dirty(model)
        model.config.write(PM_STATUS, 2, 3)
        model.write_bar(0, 0, 4, 8)
        assert model.read_bar(0, 0, 4) == 0xFFFF_FFFF
        assert model.config.read(0x00, 4) == 0x0002_0001
        model.config.write(PM_STATUS, 2, 0)
        assert (model.read_bar(0, 0, 4), model.config.read(0x04, 2)) == (0, 0)

    def test_function_may_keep_its_state(self) -> None:
        class Keeping(Model):
            capabilities = [PowerManagement(keeps_state=True)]

        model = Keeping()
        self.dirty(model)
        model.config.write(PM_STATUS, 2, 3)
        model.config.write(PM_STATUS, 2, 8)
        assert (model.read_bar(0, 0, 4), model.config.read(0x04, 2)) == (7, 6)

    @pytest.mark.parametrize("state", [1, 2])
    def test_state_that_does_not_exist_is_ignored(self, model: Model, state: int) -> None:
        model.config.write(PM_STATUS, 2, state)
        assert model.config.read(PM_STATUS, 2) & 3 == 0

    def test_reset_ends_timers(self, model: Model) -> None:
        model.clock.freeze()
        model.write_bar(0, 0x30, 4, 100)
        model.reset()
        model.clock.advance(1.0)
        assert model.log == []

    def test_reset_after_sleep_wakes(self, model: Model) -> None:
        model.config.write(PM_STATUS, 2, 3)
        model.config.write(DEVICE_CONTROL, 2, 0x8000)
        model.write_bar(0, 0, 4, 5)
        model.config.write(PM_STATUS, 2, 0)  # it is awake: no second reset
        assert model.read_bar(0, 0, 4) == 5
        model.config.write(PM_STATUS, 2, 3)
        assert model.power_state == 3


class TestTime:
    """Timers and background work of a model."""

    def test_timer(self, model: Model) -> None:
        model.clock.freeze()
        model.write_bar(0, 0x30, 4, 100)
        model.clock.advance(0.099)
        assert model.log == []
        model.clock.advance(0.001)
        assert model.log == [("timer", 100)]

    @pytest.mark.parametrize(
        ("raised", "expected", "text"),
        [
            (KeyError(9), DeviceError, "toy: the model failed in the background: KeyError: 9"),
            (DeviceGone("gone"), DeviceGone, "gone"),
        ],
    )
    def test_failure_is_raised_at_the_next_access(
        self, model: Model, raised: Exception, expected: type[Exception], text: str
    ) -> None:
        failed = threading.Event()

        def fail() -> None:
            failed.set()
            raise raised

        model.after(0.001, fail)
        failed.wait(10)
        with model.quiesce():  # the timer has left
            pass
        with pytest.raises(expected, match=text):
            model.read_bar(0, 0, 4)
        assert model.read_bar(0, 0, 4) == 0
        model.close()

    def test_failure_that_nobody_saw_is_raised_at_the_end(self, model: Model) -> None:
        failed = threading.Event()

        def fail() -> None:
            failed.set()
            raise DeviceError("unseen")

        model.work(fail, lambda _: None)
        failed.wait(10)
        model.clock.freeze()
        with pytest.raises(DeviceError, match="unseen"):
            _finish(model)
        model.close()

    def test_nothing_happens_while_it_is_quiet(self, model: Model) -> None:
        called = threading.Event()
        with model.quiesce():
            model.after(0.001, called.set)
            assert not called.wait(0.05)
        assert called.wait(10)
        model.close()


def _finish(model: Model) -> None:
    """Raise what the work raised, be it before time was frozen or after."""
    model.clock.advance(1.0)
    model.close()


class Colour(Enum):
    RED = 1
    GREEN = 2


class Parametric(Model):
    def __init__(
        self,
        name: str | None = None,
        *,
        bits: int,
        delay: float = 0.5,
        loud: bool = False,
        label: str = "x",
        colour: Colour = Colour.RED,
    ) -> None:
        self.given = (bits, delay, loud, label, colour)
        super().__init__(name)


class TestParameters:
    """What an address may say after the question mark."""

    def test_text_becomes_what_the_annotation_says(self) -> None:
        options = {"bits": "0x1c", "delay": "1e-3", "loud": "Yes", "label": "7", "colour": "green"}
        model = Parametric.from_options("p", options)
        assert model.given == (28, 0.001, True, "7", Colour.GREEN)
        assert model.name == "p"

    def test_defaults_stay(self) -> None:
        model = Parametric.from_options("p", {"bits": "1"})
        assert model.given == (1, 0.5, False, "x", Colour.RED)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"bts": "1"},
                r"p: the model has no parameter 'bts'; it has bits \(int\), delay \(float, 0\.5 by "
                r"default\), loud \(bool, False by default\)",
            ),
            ({}, r"p: the model needs bits=…; it has bits \(int\)"),
            ({"bits": "many"}, "p: bits='many': expected a whole number, such as 28 or 0x1c"),
            ({"bits": "1", "delay": "soon"}, "delay='soon': expected a number, such as 0.1"),
            ({"bits": "1", "loud": "2"}, "loud='2': expected yes or no"),
            ({"bits": "1", "colour": "blue"}, "colour='blue': expected red or green"),
        ],
    )
    def test_what_does_not_fit_lists_what_does(self, options: dict[str, str], message: str) -> None:
        with pytest.raises(NoDevice, match=message):
            Parametric.from_options("p", options)

    def test_model_without_parameters(self) -> None:
        with pytest.raises(NoDevice, match="has no parameter 'x'; it has none"):
            Model.from_options("toy", {"x": "1"})

    def test_annotation_that_no_text_can_be(self) -> None:
        class Odd(Model):
            def __init__(self, name: str | None = None, *, what: list[int]) -> None:
                super().__init__(name)

        with pytest.raises(LayoutError, match="is int, float, bool, str or an enum, not list"):
            Odd.from_options("odd", {"what": "1"})
