"""The main job, from the wheel and an empty home, with the network cut off; on small scenes."""

import json
import platform
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the network is cut off by seccomp, which is Linux's",
)
def test_demo(tmp_path, cut_off, installed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    code = f"""
import irstd_edge
assert irstd_edge.__file__.startswith({str(installed)!r}), irstd_edge.__file__
sys.argv = ["irstd-edge", "demo", "--out", "out"]
from irstd_edge.benchmarks import scenes
whole = scenes.write_dataset
scenes.write_dataset = lambda root, frames: whole(root, frames, (96, 96))
from irstd_edge.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
"""
    status, left = cut_off(code, tmp_path)
    assert (status, left) == (0, [])
    bench = json.loads((tmp_path / "out/bench.json").read_text())
    (result,) = bench["results"]
    runtimes = {(v["name"], v["runtime"]) for v in result["variants"]}
    assert runtimes >= {("fp32", "onnxruntime"), ("int8", "onnxruntime")}
    assert all(v["measured"] and v["fps"] > 0 and v["accuracy"] for v in result["variants"])
    assert result["cost"]["gflops"] == pytest.approx(2 * result["cost"]["macs"] / 1e9)
    (drift, *_) = result["drift"]
    assert len(drift["targets"]) >= 200  # fewer, and one flip is already a large share
    page = (tmp_path / "out/report.html").read_text()
    assert "p2p" in page and "int8" in page
