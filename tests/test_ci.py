"""docs/ci.md: its limits are read, and its shell lines run, as they stand there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irstd_edge.benchmarks.limits import RANGES, load_limits
from irstd_edge.edge.bundle import write_bundle
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.types import DecodeSpec, InputSpec, Manifest, ModelSpec, Quantization

pytest.importorskip("onnx", reason="the tiny graphs are written with the train extra")

PAGE = (Path(__file__).parent.parent / "docs" / "ci.md").read_text()
(LIMITS,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
WORKFLOW, BOARD, HOOKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
STEPS, ON_BOARD = (
    re.findall(r"^ +-? ?run: (.*)$", workflow, re.MULTILINE) for workflow in (WORKFLOW, BOARD)
)
(HOOK,) = re.findall(r"entry: (.*)$", HOOKS, re.MULTILINE)
INSTALL, BENCH, GATE, SUMMARY, REPORT = STEPS

TARGETS = {"a": [(8, 8, 200)], "b": [(5, 20, 200), (20, 6, 120)], "c": [(10, 24, 200)]}
"""Name -> (row, col, counts) of its 2x2 targets; one is faint."""


def write_frames(root: Path) -> None:
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name, targets in TARGETS.items():
        counts, mask = random.integers(18, 23, (32, 32)).astype(np.uint8), np.zeros((32, 32), bool)
        for row, col, value in targets:
            counts[row : row + 2, col : col + 2] = value
            mask[row : row + 2, col : col + 2] = True
        (root / "images" / f"{name}.png").write_bytes(png_of(counts))
        (root / "masks" / f"{name}.png").write_bytes(png_of(mask))
    (root / "test.txt").write_text("\n".join(TARGETS))


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell line in the folder, as GitHub runs it, with this interpreter's irstd-edge."""
    command = folder / "bin" / "irstd-edge"
    if not command.exists():
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m irstd_edge.cli "$@"\n')
        command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    return subprocess.run(
        ["bash", "-e", "-c", line], cwd=folder, env=environment, capture_output=True, text=True
    )


def project(folder: Path, fp32: bytes, int8: bytes) -> Path:
    """A repository of these graphs, measured once before."""
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    graphs = {"fp32.onnx": fp32, "int8.cpu.onnx": int8}
    golden = golden_files([], dict.fromkeys(graphs, ()))
    write_bundle(folder / "bundle", manifest, {**graphs, **golden})
    write_frames(folder / "frames")
    (folder / "gate.toml").write_text(LIMITS)
    measured = run(BENCH, folder)
    assert measured.returncode == 0, measured.stderr
    bench = json.loads((folder / "bench.json").read_text())
    for variant in bench["results"][0]["variants"]:
        variant["fps"] /= 100  # so that a busy machine does not decide the test
    (folder / "baseline.json").write_text(json.dumps(bench))
    return folder


@pytest.mark.slow
def test_a_detector_that_lost_nothing_goes_through_the_workflow_and_the_hook(
    tmp_path: Path,
    threshold_net: Callable[[float], bytes],
) -> None:
    folder = project(tmp_path, threshold_net(60), int8=threshold_net(60))
    for line in (GATE, SUMMARY, REPORT, HOOK):
        done = run(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (folder / "summary.md").read_text().startswith("## irstd-edge gate: passed")
    assert (folder / "verdict.xml").exists() and "✓ Passed" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_lost_target_stops_the_workflow_and_the_commit_and_is_told(
    tmp_path: Path, threshold_net: Callable[[float], bytes]
) -> None:
    folder = project(tmp_path, threshold_net(60), int8=threshold_net(160))
    assert [run(line, folder).returncode for line in (GATE, SUMMARY, REPORT, HOOK)] == [1, 0, 0, 1]
    summary = (folder / "summary.md").read_text()
    for name in ("net_targets_lost", "pd_at_fa", "lost_by_area.0 to 9"):
        assert f"| FAILED | tiny | int8 on onnxruntime | drift.{name} |" in summary
    assert "1 lost of 4 targets of 0 to 9 px, highest allowed 0" in summary
    page = (folder / "report.html").read_text()
    first = page[page.index("<main") : page.index("<details")]
    reason = "do not ship it, the gate failed (drift.net_targets_lost: 4 -&gt; 3: +1, highest"
    for words in ("✗ Failed", "keeps 3 of FP32&#x27;s 4 targets (lost: 1 of 4 px", reason):
        assert words in first, "the first screen says what is wrong"
    assert "lost, tiny int8 on onnxruntime: b at 20.5, 6.5, 4 px" in page
    assert "data:image/png;base64," in page
    assert reason.replace("&gt;", ">") in summary


def test_the_page_names_every_range_and_no_other_step_is_left_out(tmp_path: Path) -> None:
    assert INSTALL == "pip install ./irstd_edge-*.whl"  # the package is on no index
    (tmp_path / "gate.toml").write_text(LIMITS)
    limits = load_limits(tmp_path / "gate.toml")
    assert limits.baseline_asked and set(limits.lost) == {
        ("lost_by_scr", "0 to 1.5"),
        ("lost_by_area", "0 to 9"),
    }
    assert all(f'"{name}"' in LIMITS for names in RANGES.values() for name in names)


def test_the_options_of_the_boards_workflow_exist() -> None:
    from typer.main import get_command

    from irstd_edge.cli import app

    known = getattr(get_command(app), "commands")  # noqa: B009
    ran = [words for line in ON_BOARD for words in re.findall(r"irstd-edge (\w+) ([^;]*)", line)]
    assert [name for name, _ in ran] == ["compile", "bench", "gate"]
    for name, rest in ran:
        options = {option for param in known[name].params for option in param.opts}
        assert {word for word in rest.split() if word.startswith("--")} <= options
