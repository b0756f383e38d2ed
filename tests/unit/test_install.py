"""What `pip install .` puts into place, without the checkout: it compiles, imports and works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `pip install` filled, from a copy of what git would give."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("uspace_drv", "drivers"):
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, source],
        check=True, timeout=300,
    )  # fmt: skip
    return target


def run(installed: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=installed, env=environment, capture_output=True, text=True, check=True, timeout=50,
    )  # fmt: skip
    return ran.stdout


@pytest.mark.timeout(360)
def test_runs_a_driver_on_its_model(installed: Path) -> None:
    assert run(installed, "-m", "uspace_drv", "run", "edu", "virtual:edu", "factorial", "5") == (
        "120\n"
    )
    assert run(installed, "-c", "import uspace_drv; print(uspace_drv.__file__)").startswith(
        str(installed)
    )


@pytest.mark.timeout(360)
def test_owns_no_common_name_and_brings_the_header(installed: Path) -> None:
    assert not (installed / "drivers").exists()
    assert (installed / "uspace_drivers" / "edu" / "driver.py").exists()
    where = run(installed, "-c", "import uspace_drv; print(uspace_drv.get_include())").strip()
    assert (Path(where) / "uspace_drv.h").is_file()
