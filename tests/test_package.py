"""What a wheel installs, and that the installed package is typed; test_demo runs it."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"irstd_edge"}
    ours = {name.removeprefix("irstd_edge/") for name in names if name.startswith("irstd_edge/")}
    assert {name.split("/")[0] for name in ours} == {
        "__init__.py",
        "benchmarks",
        "calibration",
        "cli.py",
        "edge",
        "models",
        "py.typed",
    }
    assert "models/weights/p2p.safetensors" in ours
    assert "models/weights/mshnet.safetensors" in ours
    assert not [name for name in ours if "test" in name]


def test_base_install_needs_neither_torch_nor_nncf(installed: Path) -> None:
    metadata = next(installed.glob("*.dist-info/METADATA")).read_text().splitlines()
    needs = [line.split(":")[1].strip() for line in metadata if line.startswith("Requires-Dist")]
    base = {re.split(r"[<>=; ]", need)[0] for need in needs if "extra ==" not in need}
    assert base == {"numpy", "onnxruntime", "opencv-python-headless", "rich", "tomli", "typer"}


@pytest.mark.slow
def test_installed_package_is_typed(installed: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
            "-p",
            "irstd_edge",
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
