"""The pytest plugin in a project of its own: options, and the promise that --device is met."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = 'pytest_plugins = ["uspace_drv.testing.pytest_plugin"]\n'
ON_A_MODEL = """
from uspace_drv import attach
from uspace_drivers.edu import Edu, EduModel

def test_factorial():
    with attach(EduModel(), Edu) as edu:
        assert edu.factorial(5) == 120
"""
ON_A_TARGET = """
from uspace_drivers.edu import Edu, EduModel
from uspace_drv.testing.pytest_plugin import parametrize_targets

def pytest_generate_tests(metafunc):
    parametrize_targets(metafunc, "target", EduModel)

def test_factorial(target):
    with target.attach(Edu) as edu:
        assert edu.factorial(5) == 120
"""


def run(folder: Path, test: str, *options: str) -> tuple[int, str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(test)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


def test_a_run_that_would_not_meet_its_device_is_refused(tmp_path: Path) -> None:
    code, said = run(tmp_path, ON_A_MODEL, "--device", "virtual:edu")
    assert code == 4
    assert "none of these tests takes a target" in said


def test_a_target_is_the_device(tmp_path: Path) -> None:
    code, said = run(tmp_path, ON_A_TARGET, "--device", "virtual:edu")
    assert (code, "2 passed" in said) == (0, True)


def test_a_target_is_the_model_where_no_device_is_named(tmp_path: Path) -> None:
    code, said = run(tmp_path, ON_A_TARGET)
    assert (code, "2 passed" in said) == (0, True)
