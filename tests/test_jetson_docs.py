"""docs/jetson.md: its code gives what ours gives, and its commands exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irstd_edge.edge.detect import OUTPUTS, predict_from_outputs
from irstd_edge.edge.frames import normalise
from irstd_edge.edge.normalisation import NORMALISATIONS
from irstd_edge.edge.types import DecodeSpec, Detection, Frame, InputSpec

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "jetson.md").read_text()
SHAPES = [(64, 80), (61, 79), (7, 2)]
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)

MAIN = """
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>
{snippet}
int main() {{
  int n[4]; float threshold;
  if (std::fread(n, 4, 4, stdin) != 4 || std::fread(&threshold, 4, 1, stdin) != 1) return 1;
  std::vector<float> data(4 * n[0] * n[1]);
  if (std::fread(data.data(), 4, data.size(), stdin) != data.size()) return 1;
  const float* heat = data.data();
  for (const Target& t : decode(heat, heat + n[0] * n[1], n[0], n[1], n[2], n[3], threshold))
    std::printf("%.9g %.9g %.9g %.9g\\n", t.row, t.col, t.score, t.sigma_px);
}}
"""


def snippet(kind: str, language: str) -> str:
    found = re.findall(rf"<!-- {re.escape(kind)} -->\n```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return "\n".join(found)


def test_the_container_may_use_the_gpu() -> None:
    (run,) = re.findall(r"^docker run .*?\n```", TEXT, re.DOTALL | re.MULTILINE)
    assert '--group-add "$(stat -c %g /dev/dri/renderD128)"' in run.replace("\\\n", "")


def heatmap_outputs(shape: tuple[int, int], seed: int) -> list[Any]:
    """Logits and geometry of a frame padded to multiples of 16, with offsets out of range too."""
    random = np.random.default_rng(seed)
    h, w = (-(-extent // 16) * 8 for extent in shape)
    geometry = random.normal(0, 0.8, (3, h, w))
    return [random.normal(-1, 3, (1, h, w)).astype(np.float32), geometry.astype(np.float32)]


def table(detections: tuple[Detection, ...]) -> Any:
    """row, col, score, sigma in pixels."""
    rows = [(d.row, d.col, d.score, np.sqrt(d.area_px / np.pi)) for d in detections]
    return np.array(rows).reshape(-1, 4)


@pytest.fixture(scope="module")
def code() -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "cv2": cv2}
    exec(snippet("numpy", "python"), names)
    return names


@pytest.mark.parametrize("bits", [8, 14, 16])
@pytest.mark.parametrize("policy", NORMALISATIONS)
def test_numpy_normalises_as_we_do(code: dict[str, Any], policy: str, bits: int) -> None:
    random = np.random.default_rng(bits)
    for low, noise, shape in ((0.1, 0.001, (90, 70)), (0.3, 0.02, (90, 70)), (0.3, 0.02, (1, 64))):
        counts = (2**bits - 1) * (low + random.normal(0, noise, shape).cumsum(axis=1))
        counts = np.clip(np.rint(counts), 0, 2**bits - 1).astype(np.uint8 if bits == 8 else "u2")
        expected = normalise(Frame("x", counts, bits), InputSpec(8, normalisation=policy))
        found = code["normalised"](counts, bits, policy)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_decodes_a_heatmap_as_we_do(
    code: dict[str, Any], shape: tuple[int, int], seed: int
) -> None:
    outputs = heatmap_outputs(shape, seed)
    for threshold in (0.3, 0.9):
        expected = predict_from_outputs(outputs, shape, DecodeSpec("heatmap", threshold)).detections
        found = np.array(code["decode"](*outputs, shape, threshold)).reshape(-1, 4)
        np.testing.assert_allclose(found, table(expected), rtol=1e-5, atol=1e-4)
    assert shape[1] < 10 or len(found) > 10


@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_decodes_a_mask_as_we_do(code: dict[str, Any], shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(-4, 3, (1, *(-(-extent // 16) * 16 for extent in shape)))
    logits = logits.astype(np.float32)
    expected = predict_from_outputs([logits], shape, DecodeSpec("mask", 0.6)).detections
    found = code["decode_mask"](logits, shape, 0.6)
    rows = [(d.row, d.col, d.score, d.area_px) for d in expected]
    np.testing.assert_allclose(found, np.array(rows).reshape(-1, 4), rtol=1e-5)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: sudo apt install g++")
def test_cpp_decodes_a_heatmap_as_we_do(tmp_path: Path) -> None:
    source, program = tmp_path / "decode.cpp", tmp_path / "decode"
    source.write_text(MAIN.format(snippet=snippet("c++", "cpp")))
    flags = ["-std=c++17", "-O1", "-Wall", "-Werror"]
    subprocess.run([str(COMPILER), *flags, "-o", str(program), str(source)], check=True)
    for seed, shape in enumerate(SHAPES):
        outputs = heatmap_outputs(shape, seed)
        ends = np.array([*outputs[0].shape[1:], *shape], np.int32).tobytes()
        data = ends + np.float32(0.4).tobytes() + b"".join(o.tobytes() for o in outputs)
        done = subprocess.run([str(program)], input=data, capture_output=True, check=True)
        found = np.array([line.split() for line in done.stdout.splitlines()], float)
        expected = predict_from_outputs(outputs, shape, DecodeSpec("heatmap", 0.4)).detections
        np.testing.assert_allclose(found.reshape(-1, 4), table(expected), rtol=1e-4, atol=1e-3)


READ = """
#include <cstdio>
#include <vector>
{snippet}
int main() {{
  float targets[4 * 5];
  if (std::fread(targets, 4, 20, stdin) != 20) return 1;
  for (const Found& t : read_targets(targets, 5))
    std::printf("%.9g %.9g %.9g %.9g\\n", t.row, t.col, t.score, t.area_px);
}}
"""
TARGETS = np.float32([[3.5, 8, 0.9, 12], [1, 2, 0.6, 3], [0] * 4, [0] * 4, [0] * 4])


def test_numpy_reads_the_targets_of_a_decoded_graph(code: dict[str, Any]) -> None:
    np.testing.assert_array_equal(code["read_targets"](TARGETS), TARGETS[:2])


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: sudo apt install g++")
def test_cpp_reads_the_targets_of_a_decoded_graph(tmp_path: Path) -> None:
    source, program = tmp_path / "read.cpp", tmp_path / "read"
    source.write_text(READ.format(snippet=snippet("c++ with decode", "cpp")))
    flags = ["-std=c++17", "-O1", "-Wall", "-Werror"]
    subprocess.run([str(COMPILER), *flags, "-o", str(program), str(source)], check=True)
    done = subprocess.run([program], input=TARGETS.tobytes(), capture_output=True, check=True)
    found = np.float32([line.split() for line in done.stdout.splitlines()])
    np.testing.assert_allclose(found, TARGETS[:2], rtol=1e-6)


def test_the_contract_of_a_decoded_graph_names_its_outputs() -> None:
    from irstd_edge.edge.decode_graph import DECODED

    rows = re.findall(r"^\| `(\w+)` \((\w+)\) \| (?:float32|uint8) \(N, ", TEXT, re.MULTILINE)
    assert {k: tuple(n for n, kind in rows if kind == k) for k in DECODED} == DECODED


def test_the_contract_names_every_output() -> None:
    rows = re.findall(r"^\| `?(\w+)`? \| `(\w+)`.*\| \(N, ", TEXT, re.MULTILINE)
    assert rows[0] == ("both", "frame")
    named: dict[str, tuple[str, ...]] = {}
    for kind, name in rows[1:]:
        named[kind] = (*named.get(kind, ()), name)
    assert named == OUTPUTS


def test_five_commands_with_options_that_exist() -> None:
    from typer.main import get_command

    from irstd_edge.cli import app

    lines = snippet("commands", "sh").splitlines()
    assert len(lines) == 5
    known = getattr(get_command(app), "commands")  # noqa: B009
    for line in lines:
        program, name, *rest = shlex.split(line, comments=True)
        if program == "irstd-edge":
            options = {option for param in known[name].params for option in param.opts}
            assert {word for word in rest if word.startswith("--")} <= options
