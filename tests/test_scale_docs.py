"""docs/score_archive.py: two workers share a list, and one that is killed costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irstd_edge.edge.bundle import write_bundle
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.types import DecodeSpec, InputSpec, Manifest, ModelSpec, Quantization

pytest.importorskip("torch", reason="torchrun comes with the train extra")

SCRIPT = Path(__file__).parent.parent / "docs" / "score_archive.py"
FRAMES = 300


@pytest.fixture
def job(tmp_path: Path, threshold_net: Callable[[float], bytes]) -> list[str]:
    """Bundle and list: frame k has one target, in column k % 16; the last is no picture."""
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    files = {"fp32.onnx": threshold_net(100), **golden_files([], {"fp32.onnx": ()})}
    write_bundle(tmp_path / "bundle", manifest, files)
    paths = [tmp_path / f"{k:04d}.png" for k in range(FRAMES)]
    for k, path in enumerate(paths[:-1]):
        counts = np.zeros((16, 16), np.uint8)
        counts[3, k % 16] = 200
        path.write_bytes(png_of(counts))
    paths[-1].write_bytes(b"no picture")
    (tmp_path / "frames.txt").write_text("".join(f"{path}\n" for path in paths))
    return [str(tmp_path / "bundle"), str(tmp_path / "frames.txt")]


def command(job: list[str], out: Path, launcher: list[str], chunk: int = 2) -> list[str]:
    options = ["--chunk", str(chunk), "--variant", "fp32"]
    return [sys.executable, *launcher, str(SCRIPT), *job, str(out), *options]


def children_of(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in task.read_text().split()]


def results(out: Path) -> list[dict]:
    parts = sorted(out.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_killed_worker_is_started_again_and_nothing_is_lost_or_done_twice(
    job: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    group = subprocess.Popen(
        command(job, out, [*torchrun, "--max-restarts", "2"]),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    victim = children_of(group.pid)[0]
    os.kill(victim, signal.SIGKILL)
    done_at_kill = {part: part.stat().st_ino for part in out.glob("part-*")}
    said = group.communicate(timeout=120)[1]
    assert group.returncode == 0, said
    assert "exitcode: -9" in said and 0 < len(done_at_kill) < FRAMES // 2
    assert {part: part.stat().st_ino for part in done_at_kill} == done_at_kill, "written again"
    lines = results(out)
    assert [Path(line["path"]).stem for line in lines] == [f"{k:04d}" for k in range(FRAMES)]
    cols = [line["detections"][0]["col"] for line in lines[:-1]]
    assert cols == [k % 16 for k in range(FRAMES - 1)]
    assert "0299.png: " in lines[-1]["error"]


def test_results_of_another_job_are_left_alone(job: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert subprocess.run(command(job, out, []), check=False).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = subprocess.run(
        command(job, out, [], chunk=3), capture_output=True, text=True, check=False
    )
    assert again.returncode == 1 and "holds another job's results" in again.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
