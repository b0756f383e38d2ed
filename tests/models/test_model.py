"""The kit for models: what a register does by itself, by its methods, and when they fail."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from uspace_drv import LayoutError, Register, RegisterBlock, array, bit, field, ro, rw, w1c, wo
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.errors import DeviceError, DeviceGone
from uspace_drv.models import Bar, DeviceModel, PciIdentity, on_read, on_write


class Mode(Register):
    on = bit(31)
    speed = field(7, 0)


class Registers(RegisterBlock, size=0x40):
    plain = rw(0x00)
    mode = rw(0x04, Mode)
    fixed = ro(0x08, width=16)
    events = w1c(0x0C, width=8)
    receive = ro(0x10)
    transmit = wo(0x10)
    clock = ro(0x18, width=64)
    trap = rw(0x20)
    gone = ro(0x24)
    slots = array(rw(0x30, width=16), count=4, stride=4)


class Model(DeviceModel):
    identity = PciIdentity(1, 2)
    bars = {0: Bar(Registers, size=64)}

    def power_on(self) -> None:
        self.sent: list[int] = []
        self.time = 0
        self.set(Registers.fixed, 0xCAFE)
        self.set(Registers.events, 0xFF)

    @on_write(Registers.mode)
    def change(self, mode: Mode) -> None:
        self.set(Registers.mode, mode.replace(speed=min(mode.speed, 9)))

    @on_write(Registers.transmit)
    def send(self, value: int) -> None:
        self.sent.append(value)

    @on_read(Registers.receive)
    def echo(self) -> int:
        return self.sent.pop()

    @on_read(Registers.clock)
    def tick(self) -> int:
        self.time += 1
        return self.time << 32

    @on_write(Registers.trap)
    def fail(self, value: int) -> None:
        raise KeyError(value)

    @on_read(Registers.gone)
    def vanish(self) -> int:
        raise DeviceGone("the model was unplugged")


@pytest.fixture
def model() -> Model:
    return Model("toy")


@pytest.fixture
def registers(model: Model) -> Registers:
    return Registers(VirtualDevice(model).bar(0))


def test_registers_without_methods_follow_their_right(model: Model, registers: Registers) -> None:
    registers.plain.write(7)
    assert registers.plain.read() == 7
    registers.events.clear(0x0F)
    assert registers.events.read() == 0xF0
    assert registers.fixed.read() == 0xCAFE
    VirtualDevice(model).bar(0).write16(0x08, 1)
    assert registers.fixed.read() == 0xCAFE


def test_elements_of_an_array_are_apart(registers: Registers) -> None:
    for index, slot in enumerate(registers.slots):
        slot.write(index * 3)
    assert [slot.read() for slot in registers.slots] == [0, 3, 6, 9]


def test_methods_get_values_and_decide(registers: Registers) -> None:
    registers.mode.write(on=True, speed=200)
    assert registers.mode.read() == Mode(on=True, speed=9)
    assert [registers.clock.read() >> 32 for _ in range(3)] == [1, 2, 3]


def test_two_registers_at_one_place(model: Model, registers: Registers) -> None:
    registers.transmit.write(5)
    registers.transmit.write(6)
    assert model.sent == [5, 6]
    assert registers.receive.read() == 6


@pytest.mark.parametrize(("offset", "width"), [(0x28, 32), (0x00, 8), (0x02, 16), (0x3C, 32)])
def test_where_nothing_answers(model: Model, offset: int, width: int) -> None:
    window = VirtualDevice(model).bar(0)
    getattr(window, f"write{width}")(offset, 1)
    seen = getattr(window, f"read{width}")(offset)
    assert seen == (1 << width) - 1


def test_reset_forgets_all(model: Model, registers: Registers) -> None:
    registers.plain.write(7)
    registers.events.clear(0xFF)
    registers.transmit.write(5)
    model.reset()
    assert (registers.plain.read(), registers.events.read(), model.sent) == (0, 0xFF, [])


def test_model_that_raises_names_the_access(registers: Registers) -> None:
    expected = r"toy: the model failed at a write of trap \(0x20\): KeyError: 9"
    with pytest.raises(DeviceError, match=expected) as caught:
        registers.trap.write(9)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DeviceError, match=r"failed at a read of receive \(0x10\): IndexError"):
        registers.receive.read()


def test_errors_of_the_framework_pass(registers: Registers) -> None:
    with pytest.raises(DeviceGone, match="unplugged"):
        registers.gone.read()


def test_threads_reach_it_one_at_a_time(model: Model, registers: Registers) -> None:
    inside = threading.Event()

    def read() -> None:
        inside.set()
        values.append(registers.clock.read())

    values: list[int] = []
    with model.quiesce():
        thread = threading.Thread(target=read)
        thread.start()
        inside.wait(10)
        thread.join(0.01)
        assert values == []
    thread.join(10)
    assert values == [1 << 32]


@pytest.mark.parametrize("size", [0, 8, 32, 100, 65])
def test_bar_is_a_power_of_two_that_holds_its_table(size: int) -> None:
    with pytest.raises(LayoutError, match=rf"a BAR of {size:#x} bytes for Registers \(0x40\)"):
        Bar(Registers, size)


def test_name_is_that_of_the_class_by_default() -> None:
    assert Model().name == "Model"


class Other(RegisterBlock, size=8):
    elsewhere = rw(0x0)
    told = ro(0x4)


@pytest.mark.parametrize(
    ("mark", "register", "reason"),
    [
        (on_write, Other.told, r"@on_write\(told \(0x4\)\) would never be called"),
        (on_write, Registers.mode, r"@on_write\(mode \(0x4\)\) would never be called"),
        (on_read, Registers.fixed, r"@on_read\(fixed \(0x8\)\) would never be called"),
    ],
)
def test_reactions_that_could_never_happen(mark: Any, register: Any, reason: str) -> None:
    class Mistaken(DeviceModel):
        identity = PciIdentity(0x1234, 1)
        bars = {0: Bar(Other, size=16)}

        @mark(register)  # type: ignore[untyped-decorator]
        def react(self, *_: Any) -> None: ...

    with pytest.raises(LayoutError, match=reason):
        Mistaken()


def test_two_reactions_to_one_register() -> None:
    class Torn(DeviceModel):
        identity = PciIdentity(0x1234, 1)
        bars = {0: Bar(Other, size=16)}

        @on_write(Other.elsewhere)
        def react(self, value: int) -> None: ...

        @on_write(Other.elsewhere)
        def react_too(self, value: int) -> None: ...

    with pytest.raises(LayoutError, match=r"Torn: two methods react to elsewhere \(0x0\)"):
        Torn()
