"""The server's life: its socket, its clients one after the other, and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.vfiouser.raw_client import Copier, RawClient
from uspace_drivers.edu import Edu, EduModel
from uspace_drv import BusyError, HostError, attach
from uspace_drv.errors import DeviceGone
from uspace_drv.testing.served import ServedModel
from uspace_drv.vfiouser.numbers import Command
from uspace_drv.vfiouser.server import Server


def test_readme_line(tmp_path: Path, nothing_left: None) -> None:
    model = EduModel()
    with Server(model, tmp_path / "edu"), attach(f"vfio-user:{tmp_path / 'edu'}", Edu) as edu:
        assert edu.factorial(5) == 120
    model.close()
    assert not (tmp_path / "edu").exists()


def test_clients_one_after_the_other(server: Server) -> None:
    for value in range(20):
        with RawClient(server.path) as one:
            one.greet()
            one.write(0, value)
            assert one.read(0) == value
    assert not server.complaints


def test_what_the_device_holds_outlives_a_client(server: Server) -> None:
    with RawClient(server.path) as first:
        first.greet()
        first.write(0, 0x1234)
    with RawClient(server.path) as second:
        second.greet()
        assert second.read(0) == 0x1234


def test_a_second_client_waits_for_its_turn(server: Server) -> None:
    with RawClient(server.path) as second, RawClient(server.path) as third:
        third.send(Command.VERSION, b"\0\0\1\0")
        second.greet()
        second.read(0)
        second.close()
        reply = third.channel.receive(10.0)
        assert reply is not None
        assert reply.command == Command.VERSION


def test_closing_the_server_sends_the_client_away(model: Copier, tmp_path: Path) -> None:
    server = Server(model, tmp_path / "socket").start()
    with RawClient(server.path) as client:
        client.greet()
        server.close()
        server.close()
        with pytest.raises(DeviceGone):
            client.read(0)
    assert not server.path.exists()


def test_a_socket_that_was_left_behind_is_replaced(model: Copier, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(tmp_path / "socket"))
    with Server(model, tmp_path / "socket"), RawClient(tmp_path / "socket") as client:
        client.greet()


def test_a_path_in_use_is_left_alone(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BusyError, match="another server listens there"):
        Server(Copier(), server.path)
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(HostError, match="is no socket"):
        Server(Copier(), file)
    assert file.read_text() == "precious"
    with pytest.raises(HostError, match="cannot serve at"):
        Server(Copier(), tmp_path / "nowhere" / "socket")


def test_a_server_does_not_remove_its_successors_socket(model: Copier, tmp_path: Path) -> None:
    first = Server(model, tmp_path / "socket").start()
    first.path.unlink()
    with Server(model, first.path):
        first.close()
        assert first.path.exists()


def test_busy_polling_serves_too(model: Copier, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(model, path, busy_poll=True), RawClient(path) as client:
        client.greet()
        client.write(0, 7)
        assert client.read(0) == 7


def test_serving_in_the_calling_thread(model: Copier, tmp_path: Path) -> None:
    server = Server(model, tmp_path / "socket")
    thread = threading.Thread(target=server.serve)
    thread.start()
    with RawClient(server.path) as client:
        client.greet()
    server.close()
    thread.join(10.0)
    assert not thread.is_alive()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_command_ends_by_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    path = tmp_path / "edu"
    command = [sys.executable, "-m", "uspace_drv", "serve", "edu?dma_bits=32", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert str(path) in process.stdout.readline()
            with RawClient(path) as client:
                client.greet()
                process.send_signal(number)
                assert client.is_dropped()
            assert process.wait(10.0) == code
            assert f"client of process {os.getpid()} came" in process.stderr.readline()
        finally:
            process.kill()
    assert not path.exists()


def test_command_says_what_is_wrong(tmp_path: Path) -> None:
    for model, words in (
        ("edo", "no driver is called 'edo'"),
        ("edu?bits=3", "no parameter 'bits'"),
        ("os:getcwd", "expected a subclass of DeviceModel"),
        ("no_such_module:Thing", "cannot load no_such_module"),
    ):
        command = [sys.executable, "-m", "uspace_drv", "serve", model, str(tmp_path / "socket")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)
        assert done.returncode == 1
        assert words in done.stderr


def test_a_file_of_the_user_is_served(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "from uspace_drv.models import DeviceModel, PciIdentity\n"
        "class Mine(DeviceModel):\n    identity = PciIdentity(0xABCD, 1)\n"
    )
    path = tmp_path / "socket"
    command = [sys.executable, "-m", "uspace_drv", "serve", f"{source}:Mine", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            with RawClient(path) as client:
                client.greet()
                assert client.read(0, 2, region=7) == 0xABCD
        finally:
            process.terminate()


def test_starting_needs_no_numpy() -> None:
    code = "import sys; from uspace_drv.cli.serve import make_model; make_model('edu'); "
    code += "sys.exit('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], timeout=30.0, check=False)
    assert done.returncode == 0


def test_a_served_model_survives_the_crash_of_its_client() -> None:
    crash = "import os, sys; from uspace_drv import attach; from uspace_drivers.edu import Edu\n"
    crash += "with attach(sys.argv[1], Edu) as edu: edu.factorial(3); os.kill(os.getpid(), 9)"
    with ServedModel(EduModel) as served:
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", crash, served.address], timeout=30.0, check=False
            )
            assert done.returncode == -9
        with attach(served.address, Edu) as edu:
            edu.self_test()
