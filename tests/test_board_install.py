"""The requirements of a board have wheels for it: `make check-board` asks the package index."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ASKED = "IRSTD_EDGE_ASK_INDEX"
GLIBC = {"3.10": 35, "3.12": 39}
"""Python of JetPack 6 (Ubuntu 22.04) and 7 (24.04) -> minor version of its C library."""
TAGS = (17, 24, 26, 27, 28, 31, 34, 35, 39)
"""Of manylinux, those that wheels are built for."""
ON_A_BOARD = ("polygraphy",)
"""Installed beside irstd-edge, to compile."""


def requirements(python: str) -> list[str]:
    """Of the base install; pip takes markers for its own Python, so they are taken here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    kept = []
    for requirement in project["dependencies"]:
        name, _, marker = requirement.partition(";")
        assert marker.strip() in ("", "python_version < '3.11'")
        kept += [name] if not marker or python == "3.10" else []
    return [*kept, *ON_A_BOARD]


def resolved(python: str, folder: Path) -> dict[str, Any]:
    """Name -> the file that pip would install; skips where the index can't be asked."""
    platforms = [f"manylinux_2_{tag}_aarch64" for tag in TAGS if tag <= GLIBC[python]]
    options = [
        word for name in (*platforms, "manylinux2014_aarch64") for word in ("--platform", name)
    ]
    report = folder / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
            *("--disable-pip-version-check", "--only-binary=:all:", "--target", str(folder / "to")),
            *("--implementation", "cp", "--python-version", python, *options),
            *("--retries", "0", "--timeout", "10", "--report", str(report)),
            *requirements(python),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        unreachable = ("NewConnectionError", "ConnectTimeout", "ProxyError", "from versions: none)")
        if "No module named pip" in done.stderr or any(w in done.stderr for w in unreachable):
            pytest.skip(f"no package index here: {done.stderr.strip().splitlines()[-1]:.200}")
        raise AssertionError(done.stderr)
    items = json.loads(report.read_text())["install"]
    return {i["metadata"]["name"].lower(): i["download_info"]["url"].split("/")[-1] for i in items}


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(ASKED), reason=f"asks the package index: set {ASKED}=1")
@pytest.mark.parametrize("python", GLIBC)
def test_a_board_installs_from_wheels_alone(python: str, tmp_path: Path) -> None:
    files = resolved(python, tmp_path)
    wanted = {"numpy", "onnxruntime", "opencv-python-headless", "rich", "typer", "polygraphy"}
    assert wanted <= set(files)
    assert ("tomli" in files) == (python == "3.10")
    assert all(file.endswith(("aarch64.whl", "any.whl")) for file in files.values()), files
    assert "aarch64" in files["onnxruntime"] and "aarch64" in files["numpy"]
    assert not {"torch", "nncf", "tensorrt", "onnx"} & set(files)
