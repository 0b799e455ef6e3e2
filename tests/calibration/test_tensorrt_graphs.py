"""Every graph that `quantize` writes, of both models, through the real builder of TensorRT-RTX."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irstd_edge.calibration.export import exports_of, graphs_of
from irstd_edge.calibration.quantize import quantize
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.bundle import VARIANTS
from irstd_edge.edge.dla import placement_of
from irstd_edge.edge.engine_from_onnx import engine_from_onnx
from irstd_edge.edge.engine_plan import EnginePlan
from irstd_edge.models import spec_of
from irstd_edge.models.weights import load_model

SIZE = (64, 64)
QUANTIZED = [variant for variant in VARIANTS if variant != "fp32"]
"""The float graphs are built in tests/edge/test_engine_from_onnx.py."""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory, case: Any) -> dict[str, Path]:
    """Model and variant -> a file; MSHNet of the shipped weights and one frame of noise."""
    root, files = tmp_path_factory.mktemp("graphs"), {}
    batch = torch.from_numpy(np.random.default_rng(0).random((1, 1, *SIZE), np.float32))
    float_net, spec = load_model("mshnet")[0].deploy(), spec_of("mshnet")
    exports = exports_of(float_net, quantize(float_net, "mshnet", [batch]).module, spec)
    mshnet = graphs_of(exports, spec, [CalibrationFrame(batch, batch[0, 0] < 0)])
    for model, written in (("p2p", case.graphs), ("mshnet", mshnet)):
        for variant in QUANTIZED:
            files[f"{model} {variant}"] = root / f"{model}-{VARIANTS[variant]}"
            files[f"{model} {variant}"].write_bytes(written[VARIANTS[variant]])
    return files


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="needs irstd-edge[tensorrt-rtx]")
@pytest.mark.parametrize("variant", QUANTIZED)
@pytest.mark.parametrize("model", ["p2p", "mshnet"])
def test_each_variant_of_each_model_builds(
    model: str, variant: str, graphs: dict[str, Path]
) -> None:
    plan = EnginePlan("tensorrt-rtx", "sm_86", sizes=(SIZE,))
    engine = engine_from_onnx(graphs[f"{model} {variant}"], spec_of(model), plan)
    assert engine.data[1:4] == b"trt" and engine.version


@pytest.mark.parametrize(("model", "resizes"), [("p2p", 0), ("mshnet", 7)])
def test_what_a_dla_leaves_to_the_gpu(model: str, resizes: int, graphs: dict[str, Path]) -> None:
    placed = placement_of(graphs[f"{model} fp16"], (1, 1, *SIZE))
    aligned = [f for f in placed.fallbacks if "align_corners" in f.reason]
    assert [f.operator for f in aligned] == ["Resize"] * resizes
    assert 0.5 < placed.on_dla / placed.nodes < 1
    convolutions = [f.reason for f in placed.fallbacks if f.operator == "Conv"]
    assert set(convolutions) <= {"it is float32 in the graph, and DLA computes in FP16"}
