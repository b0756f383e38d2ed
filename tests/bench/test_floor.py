import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from uspace_drv.bench import floor
from uspace_drv.bench.floor import compile_floor
from uspace_drv.errors import HostError


def written(folder: Path, text: str) -> Path:
    source = folder / "answer.c"
    source.write_text(text)
    return source


def test_a_library_is_one_that_ctypes_can_load(tmp_path: Path) -> None:
    library = compile_floor(written(tmp_path, "int answer(void) { return 42; }"), tmp_path,
                            shared=True)  # fmt: skip
    assert library == tmp_path / "answer.so"
    assert ctypes.CDLL(str(library)).answer() == 42


def test_a_program_runs(tmp_path: Path) -> None:
    program = compile_floor(written(tmp_path, "int main(void) { return 7; }"), tmp_path,
                            shared=False)  # fmt: skip
    assert program == tmp_path / "answer"
    assert subprocess.run([str(program)], check=False).returncode == 7


def test_what_the_compiler_says_is_in_the_error(tmp_path: Path) -> None:
    source = written(tmp_path, "int answer(void) { return nonsense; }")
    with pytest.raises(HostError, match="nonsense") as caught:
        compile_floor(source, tmp_path, shared=True)
    assert str(source) in str(caught.value)


def test_a_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexec sleep 5\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(floor, "PATIENCE", 0.05)
    with pytest.raises(HostError, match="cc did not end within"):
        compile_floor(written(tmp_path, ""), tmp_path, shared=False)


def test_without_a_compiler_the_error_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="no cc; run: apt-get install gcc"):
        compile_floor(written(tmp_path, ""), tmp_path, shared=False)
