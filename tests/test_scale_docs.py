"""docs/score_archive.py: two workers share a list, and one that is killed costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from irstd_edge import cli
from irstd_edge.edge.bundle import write_bundle
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.runners import open_runner
from irstd_edge.edge.types import (
    DecodeSpec,
    InputSpec,
    IrstdError,
    Manifest,
    ModelSpec,
    Quantization,
)

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
    assert lines[-1]["frame"] == "0299" and "0299.png: " in lines[-1]["skipped"]


@pytest.fixture
def script() -> ModuleType:
    spec = spec_from_file_location("score_archive", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_name_that_is_no_text_ends_no_job(
    job: list[str], tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, out = tmp_path / "frames.txt", tmp_path / "out"
    good = Path(job[1]).read_text().splitlines()[0]
    listing.write_bytes(b"b\xe9d.png\n" + good.encode() + b"\n")
    monkeypatch.setattr(sys, "argv", command([job[0], str(listing)], out, [])[1:])
    script.main()
    lines = [json.loads(line) for line in (out / "part-0000000.jsonl").read_text().splitlines()]
    assert "skipped" in lines[0] and lines[1]["path"] == good and "detections" in lines[1]


def test_a_chunk_of_nothing_is_refused(
    job: list[str], tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["score_archive.py", *job[:2], str(tmp_path / "out"), "--chunk", "0"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        script.main()
    assert not (tmp_path / "out").exists()


OTHERS = (("--chunk", "3"), ("--variant", "int8"), ("--runtime", "openvino"), ("--bits", "14"))


def test_results_of_another_job_are_left_alone(
    job: list[str], tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = command(job, out, [])[1:]
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for other in OTHERS:
        monkeypatch.setattr(sys, "argv", [*arguments, *other])
        with pytest.raises(IrstdError, match="holds another job's results: choose another folder"):
            script.main()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()


def test_nothing_is_written_into_a_folder_of_something_else(job: list[str], tmp_path: Path) -> None:
    before = sorted(path.name for path in Path(job[0]).iterdir())
    run = subprocess.run(command(job, Path(job[0]), []), capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert (
        run.stderr == f"score_archive: {job[0]}: holds something else: choose a new folder, or "
        "an empty one\n"
    )
    assert sorted(path.name for path in Path(job[0]).iterdir()) == before


def test_the_lines_are_those_of_predict(
    job: list[str], tmp_path: Path, script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """14 bits in a file of 16, said by --bits or by dataset.json."""
    images = tmp_path / "set" / "images"
    images.mkdir(parents=True)
    counts = np.zeros((16, 16), np.uint16)
    counts[3, 5] = 12000
    (images / "deep.png").write_bytes(png_of(counts))
    (images / "bad.png").write_bytes(b"no picture")
    files = [str(images / "deep.png"), str(images / "bad.png")]
    for bits in (14, None):
        with open_runner(Path(job[0]), "fp32") as run:
            lines = [line for file in files for line in script.lines_of(file, run, bits)]
        options = ["--variant", "fp32", *(["--bits", str(bits)] if bits else [])]
        with pytest.raises((IrstdError, SystemExit)):  # of the file that cannot be read
            cli.app(["predict", job[0], *files, *options], standalone_mode=False)
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines == [{"path": file, **line} for file, line in zip(files, said, strict=True)]
        assert len(lines[0]["detections"]) == 1 and "skipped" in lines[1]
        (images.parent / "dataset.json").write_text('{"bit_depth": 14}')
