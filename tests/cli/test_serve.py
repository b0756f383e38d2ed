"""`uspace serve`: which class it finds, what it says of one with a mistake, and what it prints."""

from __future__ import annotations

import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from uspace_drv.cli.model_loading import make_model
from uspace_drv.errors import NoDevice

Uspace = Callable[..., Result]

MODEL = """\
from uspace_drv.models import DeviceModel, PciIdentity

class Mine(DeviceModel):
    identity = PciIdentity(0xABCD, 1)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's, which is the current one; what is imported is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def refusal(name: str) -> str:
    with pytest.raises(NoDevice) as caught:
        make_model(name)
    return str(caught.value)


def test_a_file_with_a_dataclass_and_a_neighbour(folder: Path) -> None:
    (folder / "away").mkdir()
    (folder / "away/next_to_it.py").write_text("ID = 7\n")
    (folder / "away/mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\nfrom next_to_it import ID\n"
        "@dataclass\nclass State:\n    level: int = ID\n" + MODEL
    )
    for name in ("./away/mine.py:Mine", f"{folder}/away/mine.py:Mine", "away/mine.py:Mine?"):
        model = make_model(name)
        assert (model.identity.vendor, model.name) == (0xABCD, name.removesuffix("?"))
        model.close()


def test_a_module_of_the_current_folder(folder: Path) -> None:
    (folder / "module_here.py").write_text(MODEL)
    make_model("module_here:Mine").close()


def test_a_file_that_is_called_like_a_module_leaves_that_alone(folder: Path) -> None:
    (folder / "json.py").write_text(MODEL)
    make_model("json.py:Mine").close()
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\nclass Mine(:\n", "mine.py:2: SyntaxError: invalid syntax"),
        ("x = 1\n\nx.no\n", "mine.py:3: AttributeError: 'int' object has no attribute 'no'"),
        ("raise SystemExit(3)\n", "mine.py:1: SystemExit: 3"),
        ("import json\njson.loads('{')\n", "mine.py:2: JSONDecodeError: Expecting"),
        (
            "import no_such_thing\n",
            "mine.py:1: ModuleNotFoundError: No module named 'no_such_thing', neither in {} nor",
        ),
        (
            "from uspace_drv import RegisterBlock, rw\n\n"
            "class Table(RegisterBlock, size=4):\n    far = rw(8)\n",
            "mine.py:3: LayoutError: Table: far",
        ),
    ],
)
def test_a_mistake_at_import_is_one_line_with_its_place(
    folder: Path, source: str, words: str
) -> None:
    (folder / "mine.py").write_text(source)
    text = refusal("mine.py:Mine")
    assert text.startswith(f"cannot load mine.py: {folder}/{words.format(folder)}")
    assert "mine" not in sys.modules


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("(self, name):\n        {}['a']", "{}/mine.py:6: KeyError: 'a'"),
        ("(self):\n        pass", "TypeError: Mine.__init__() takes 1 positional argument"),
    ],
)
def test_an_init_that_fails(folder: Path, init: str, words: str) -> None:
    (folder / "mine.py").write_text(f"{MODEL}    def __init__{init}\n")
    assert refusal("mine.py:Mine").startswith(f"mine.py:Mine: {words.format(folder)}")


def test_what_is_not_there(folder: Path) -> None:
    (folder / "mine.py").write_text(MODEL + "class Other(Mine):\n    pass\nnumber = 1\n")
    (folder / "empty.py").write_text("")
    for name, words in {
        "mine.py:Mien": "mine.py:Mien: Mien is not there, expected a subclass of DeviceModel; "
        "did you mean Mine?",
        "mine.py:number": "number is of type int, expected a subclass of DeviceModel; "
        "there are: Mine, Other",
        "empty.py:Mine": "there are: none",
        "mine.py": "name one: mine.py:Mine or mine.py:Other",
        "none.py:Mine": "cannot load none.py: No such file or directory: ",
        "none_at_all:Mine": "No module named 'none_at_all', neither in the current folder nor",
        "": "'' names no model; expected a plugin, FILE.py:CLASS or MODULE:CLASS",
        ":Mine": "':Mine' names no model",
        "mine.py:": "'mine.py:' names no model",
        "mine.py:Mine?x": "option 'x' is not NAME=VALUE",
        "mine.py:Mine?x=1": "mine.py:Mine: the model has no parameter 'x'",
    }.items():
        assert words in refusal(name)


@pytest.mark.parametrize("value", ["dma_bits=-1", "dma_bits=0", "dma_bits=65", "dma_delay=nan"])
def test_parameters_out_of_range(value: str) -> None:
    assert "expected 1 to 64" in refusal(f"edu?{value}") or "0 or more" in refusal(f"edu?{value}")
    make_model("edu?dma_bits=64").close()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("away/socket", "cannot serve at away/socket: there is no folder {}/away; make it, or"),
        ("file", "cannot serve at file: it exists and is no socket; name another path"),
        ("file/socket", "cannot serve at file/socket: there is no folder {}/file; make it, or"),
        ("/proc/socket", "cannot serve at /proc/socket: No such file or directory; name another"),
        ("x" * 108, "the path has 108 bytes and a socket's at most 107; name a shorter one"),
    ],
)
def test_a_path_at_which_nothing_can_be_served(
    uspace: Uspace, folder: Path, path: str, words: str
) -> None:
    (folder / "file").touch()
    result = uspace("serve", "edu", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words.format(folder) in result.stderr
    assert (result.stderr.count("\n"), result.stderr.count("cannot serve")) == (1, 1)


def test_a_folder_that_is_not_ours(
    uspace: Uspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refuse)  # root may write anywhere
    result = uspace("serve", "edu", "socket")
    assert f"Permission denied: {folder}; name a path in a folder that you may" in result.stderr


def test_what_is_printed_for_qemu(folder: Path) -> None:
    path = "it's a socket"
    command = [sys.executable, "-m", "uspace_drv", "serve", "edu", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(5)]
        finally:
            process.terminate()
    assert lines[0] == f"serving edu at {path}; its address is vfio-user:{path}\n"
    words = shlex.split("".join(lines[2:]))
    assert words[:3] == ["-m", "1G", "-object"]
    device = json.loads(words[-1])
    assert device["socket"] == {"type": "unix", "path": f"{folder}/{path}"}
