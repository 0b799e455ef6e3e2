"""What a wheel installs, and that the installed package is typed."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # The sources are copied: setuptools leaves its build folder in the tree it builds.
    tree = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, str(tree)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


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
def test_installed_wheel_runs_away_from_the_repository(installed: Path, tmp_path: Path) -> None:
    code = "import irstd_edge.cli as c; print(c.__file__); c.main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "synth", "scenes", "--frames", "4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert str(installed) in run.stdout
    assert len(list((tmp_path / "scenes/images").iterdir())) == 4


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
