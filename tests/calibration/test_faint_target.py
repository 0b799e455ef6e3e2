"""A faint target of a deep sensor is seen: by both detectors, in FP32 and INT8, on all runtimes."""

from importlib.util import find_spec

import numpy as np
import pytest

from irstd_edge.benchmarks.scenes import scene
from irstd_edge.calibration.activation_ranges import estimate_ranges
from irstd_edge.calibration.export import exports_of, graphs_of
from irstd_edge.calibration.quantize import quantize
from irstd_edge.calibration.range_rules import RULE_OF
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.bundle import write_bundle
from irstd_edge.edge.compiler import FASTEST_FIRST, compile_engine
from irstd_edge.edge.engine_from_onnx import EnginePlan
from irstd_edge.edge.engine_store import open_store
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.gpu import this_gpu
from irstd_edge.edge.normalisation import BY_DEPTH
from irstd_edge.edge.runners import installed_runtimes, open_runner, torch_runner
from irstd_edge.edge.types import Frame, Manifest, Quantization
from irstd_edge.models import MODELS
from irstd_edge.models.weights import load_model, spec_of_card

ROW, COL = 40, 77
HAS_TENSORRT = this_gpu() is not None and all(map(find_spec, ("tensorrt", "polygraphy")))
ON_TENSORRT = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(not HAS_TENSORRT, reason="needs TensorRT, Polygraphy and an NVIDIA GPU"),
]
WAYS = [
    *((variant, runtime) for runtime in installed_runtimes() for variant in ("fp32", "int8")),
    *(pytest.param(variant, "tensorrt", marks=ON_TENSORRT) for variant in FASTEST_FIRST),
]


@pytest.fixture(scope="module")
def faint() -> Frame:
    """16 bit: 3x3 pixels 300 counts above a background at 8000.

    A full well of 7 million electrons at 65535 counts is 107 a count, so 8000 counts have a shot
    noise of 9; columns that differ by 4, and clouds of 40 counts over some 30 pixels.
    """
    import cv2

    random = np.random.default_rng(11)
    size = (128, 128)
    clouds = cv2.GaussianBlur(random.standard_normal(size), (0, 0), 15)
    counts = 8000 + 40 * clouds / clouds.std()
    counts += random.normal(0, 9, size) + random.normal(0, 4, size[1])
    counts[ROW - 1 : ROW + 2, COL - 1 : COL + 2] += 300
    return Frame("faint", np.rint(counts).astype(np.uint16), 16)


@pytest.fixture(scope="module", params=MODELS)
def shipped(request, tmp_path_factory):
    """A shipped detector, calibrated on two 8-bit scenes."""
    net, model, card = load_model(request.param)
    float_net, spec = net.deploy(), spec_of_card(model, card)
    runner = torch_runner(float_net, spec)
    scenes = [scene(np.random.default_rng(k), (64, 64)) for k in range(2)]
    shown = [CalibrationFrame.of(runner.batch_of(s.frame), s) for s in scenes]
    quantized = quantize(float_net, model, [each.batch for each in shown])
    estimate_ranges(quantized.module, shown, RULE_OF[spec.decode.kind])
    graphs = graphs_of(exports_of(float_net, quantized.module, spec), spec, shown)
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    golden = golden_files([], dict.fromkeys(graphs, ()))
    return write_bundle(tmp_path_factory.mktemp(model) / "bundle", manifest, {**graphs, **golden})


@pytest.mark.slow
@pytest.mark.parametrize("variant, runtime", WAYS)
def test_a_faint_target_in_16_bits_is_found(
    shipped, faint, variant, runtime, tmp_path, monkeypatch
):
    if runtime == "tensorrt":
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        compile_engine(shipped, variant, EnginePlan(sizes=(faint.shape,)), open_store())
    with open_runner(shipped, variant, runtime, threads=1) as run:
        assert run.spec.input.normalisation == BY_DEPTH
        assert [(round(d.row), round(d.col)) for d in run.detect(faint)] == [(ROW, COL)]
