import math

import numpy as np
import pytest

from irstd_edge.edge import runners, runtimes
from irstd_edge.edge.bundle import write_bundle
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.runners import (
    RUNTIMES,
    Runner,
    installed_runtimes,
    open_graph,
    open_runner,
    torch_runner,
)
from irstd_edge.edge.runtimes import OPENVINO_SHAPES
from irstd_edge.edge.types import (
    Detection,
    Frame,
    IrstdError,
    MachineError,
    Manifest,
    Quantization,
)

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    if request.param not in installed_runtimes():
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture
def mask_file(tmp_path, mask_graph):
    path = tmp_path / "mask.onnx"
    path.write_bytes(mask_graph)
    return path


@pytest.fixture
def heatmap_file(tmp_path, heatmap_graph):
    path = tmp_path / "heatmap.onnx"
    path.write_bytes(heatmap_graph)
    return path


def torch_module(kind):
    torch = pytest.importorskip("torch", reason="torch is in the train extra")

    class Mask(torch.nn.Module):
        def forward(self, x):
            return 20 * x - 10

    class Heatmap(torch.nn.Module):
        def forward(self, x):
            heat = 20 * torch.nn.functional.avg_pool2d(x, 2) - 10
            flat = torch.ones_like(heat)
            return heat, torch.cat([0.25 * flat, -0.25 * flat, math.log(1.5) * flat], dim=1)

    return {"mask": Mask, "heatmap": Heatmap}[kind]().eval()


def open_any(runtime, kind, spec, file):
    if runtime == "torch":
        return torch_runner(torch_module(kind), spec)
    if runtime not in installed_runtimes():
        pytest.skip(f"{runtime} is not installed")
    return open_graph(file, spec, "fp32", runtime, threads=1)


@pytest.mark.parametrize("runtime", [*RUNTIMES, "torch"])
class TestEveryRuntime:
    def test_a_mask_network_sees_the_targets(self, runtime, mask_file, mask_spec, frame):
        with open_any(runtime, "mask", mask_spec, mask_file) as run:
            first, second = run.detect(frame)
        assert (first.row, first.col, first.area_px) == (6.5, 8.5, 4.0)
        assert (second.row, second.col, second.area_px) == (20.5, 14.5, 4.0)
        for detection, counts in ((first, 230), (second, 180)):
            logit = 20 * counts / 255 - 10
            assert detection.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
        assert run.name == f"mshnet fp32 on {runtime}"
        assert (run.runtime, run.variant, run.spec) == (runtime, "fp32", mask_spec)

    def test_a_heatmap_network_sees_the_targets(self, runtime, heatmap_file, heatmap_spec, frame):
        with open_any(runtime, "heatmap", heatmap_spec, heatmap_file) as run:
            prediction = run.predict(frame)
        places = [(d.row, d.col) for d in prediction.detections]
        assert places == [pytest.approx((6.0, 9.0)), pytest.approx((20.0, 15.0))]
        assert prediction.detections[0].area_px == pytest.approx(math.pi * 9, rel=1e-5)
        assert prediction.probability.shape == (15, 11)

    def test_a_batch_goes_through_in_order(self, runtime, heatmap_file, heatmap_spec):
        batch = np.random.default_rng(0).random((3, 1, 8, 12), np.float32)
        with open_any(runtime, "heatmap", heatmap_spec, heatmap_file) as run:
            heatmap, geometry = run.infer(batch)
        assert (heatmap.shape, geometry.shape) == ((3, 1, 4, 6), (3, 3, 4, 6))
        cells = batch.reshape(3, 4, 2, 6, 2).mean(axis=(2, 4))
        np.testing.assert_allclose(heatmap[:, 0], 20 * cells - 10, atol=1e-4)

    def test_sizes_may_change_from_frame_to_frame(self, runtime, mask_file, mask_spec):
        rng = np.random.default_rng(0)
        sizes = [(16 + 3 * k, 40 - 2 * k) for k in range(OPENVINO_SHAPES + 2)]
        with open_any(runtime, "mask", mask_spec, mask_file) as run:
            for height, width in [*sizes, sizes[0]]:
                counts = rng.integers(0, 256, (height, width), np.uint8)
                prediction = run.predict(Frame("f", counts, 8))
                np.testing.assert_array_equal(prediction.mask, counts > 127)

    def test_outputs_of_one_call_survive_the_next(self, runtime, mask_file, mask_spec):
        with open_any(runtime, "mask", mask_spec, mask_file) as run:
            (dark,) = run.infer(np.zeros((1, 1, 4, 4), np.float32))
            run.infer(np.ones((1, 1, 4, 4), np.float32))
        assert (dark == -10).all()

    def test_threshold_overrules_the_manifest(self, runtime, mask_file, mask_spec, frame):
        with open_any(runtime, "mask", mask_spec, mask_file) as run:
            assert len(run.predict(frame, threshold=0.99).detections) == 1
            assert len(run.predict(frame).detections) == 2

    def test_times_of_the_stages_are_kept(self, runtime, mask_file, mask_spec, frame):
        with open_any(runtime, "mask", mask_spec, mask_file) as run:
            assert run.stages_ms == {}
            run.detect(frame)
        assert list(run.stages_ms) == ["pre", "infer", "post"]
        assert all(0 < value < 10_000 for value in run.stages_ms.values())

    def test_bit_depth_is_the_frames_own(self, runtime, mask_file, mask_spec):
        counts = np.zeros((8, 8), np.uint16)
        counts[3, 4] = 12_000  # of 16383
        with open_any(runtime, "mask", mask_spec, mask_file) as run:
            assert len(run.detect(Frame("f", counts, 14))) == 1
            assert len(run.detect(Frame("f", counts, 16))) == 0

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 1, 30, 21), "30x21 is not a multiple of 4: pad to 32x24"),
            ((1, 3, 8, 8), r"\(1, 3, 8, 8\): give \(N, 1, H, W\)"),
            ((8, 8), r"\(8, 8\): give"),
        ],
    )
    def test_a_wrong_shape_is_told_the_right_one(
        self, runtime, shape, message, mask_file, mask_spec
    ):
        with (
            open_any(runtime, "mask", mask_spec, mask_file) as run,
            pytest.raises(IrstdError, match=message),
        ):
            run.infer(np.zeros(shape, np.float32))

    def test_a_closed_runner_does_not_run(self, runtime, mask_file, mask_spec, frame):
        with open_any(runtime, "mask", mask_spec, mask_file) as run:
            pass
        with pytest.raises(ValueError, match="closed"):
            run.detect(frame)


def quantized_graph(channels=32, scale=0.03, zero=np.int8, most=127):
    """A convolution of int8 weights between Q/DQ: (N, 1, H, W) -> logits, by hand."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    constants = {
        "stem": rng.normal(0, 1, (channels, 1, 3, 3)).astype(np.float32),
        "scale": np.float32(scale),
        "zero": zero(0),
        "weight": rng.integers(-most, most + 1, (1, channels, 3, 3), np.int8),
        "weight.scale": np.float32([0.002]),
        "weight.zero": np.int8([0]),
    }
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["frame", "stem"], ["a"], "stem", pads=pads),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["c"], "q"),
        helper.make_node("DequantizeLinear", ["c", "scale", "zero"], ["d"], "dq"),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight.scale", "weight.zero"], ["w"], "dqw", axis=0
        ),
        helper.make_node("Conv", ["d", "w"], ["logits"], "head", pads=pads),
    ]
    sizes = ["N", 1, "H", "W"]
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info("frame", onnx.TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, sizes)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def test_int8_is_the_same_number_on_every_runtime(runtime, tmp_path, mask_spec):
    from onnx.reference import ReferenceEvaluator

    file = tmp_path / "int8.onnx"
    most = 63 if this_machine().saturates else 127  # as of `quantize --reduced-range`
    model = quantized_graph(most=most)
    onnx.save(model, file)
    batch = np.random.default_rng(1).random((1, 1, 32, 24), np.float32)
    if runtime == "openvino":  # takes half the step for what follows a ReLU
        model = quantized_graph(scale=0.015, zero=np.uint8, most=most)
    (expected,) = ReferenceEvaluator(model).run(None, {"frame": batch})
    with open_graph(file, mask_spec, "int8", runtime, threads=1) as run:
        (logits,) = run.infer(batch)
    step = 0.03 * 0.002 * 127  # one activation that rounds the other way
    np.testing.assert_allclose(logits, expected, atol=2 * step)


def test_fp32_is_computed_in_float32(runtime, tmp_path, mask_spec):
    """bfloat16 has eight bits of mantissa: on a CPU that offers it the error would be 1e-3."""
    from onnx.reference import ReferenceEvaluator

    model = quantized_graph()
    for old in ("q", "dq", "dqw"):
        model.graph.node.remove(next(node for node in model.graph.node if node.name == old))
    head = next(node for node in model.graph.node if node.name == "head")
    weight = np.random.default_rng(2).normal(0, 1, (1, 32, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    head.input[0] = "b"
    file = tmp_path / "fp32.onnx"
    onnx.save(model, file)
    batch = np.random.default_rng(3).random((1, 1, 32, 24), np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"frame": batch})
    with open_graph(file, mask_spec, "fp32", runtime, threads=1) as run:
        (logits,) = run.infer(batch)
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_several_frames_are_seen_in_one_call(runtime, tmp_path, mask_graph, mask_spec, frame):
    path = tmp_path / "int8.onnx"
    path.write_bytes(mask_graph)
    dark = Frame("dark", np.zeros_like(frame.counts), 8)
    with open_graph(path, mask_spec, "int8", runtime, threads=1) as run:
        both = run.predict_all([frame, dark])
        assert run.stages_ms["infer"] > 0
        assert [p.detections for p in both] == [run.detect(frame), ()]
        assert len(both[0].detections) == 2
        with pytest.raises(IrstdError, match="a call takes frames of one size"):
            run.predict_all([frame, Frame("wide", np.zeros((30, 99), np.uint8), 8)])


def test_a_bundle_that_does_not_see_what_it_should_does_not_open(
    runtime, tmp_path, mask_graph, mask_spec, frame
):
    files = {"fp32.onnx": mask_graph}
    files |= golden_files([frame], {"fp32.onnx": [[Detection(20.0, 4.0, 0.9, 4.0)]]})
    manifest = Manifest(mask_spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    bundle = write_bundle(tmp_path / "b", manifest, files)
    with pytest.raises(IrstdError, match=r"in golden frame scene nothing is found at row 20\.0"):
        open_runner(bundle, "fp32", runtime, threads=1)


def test_a_bundle_opens_by_path_or_opened(runtime, tmp_path, mask_graph, mask_spec, frame):
    quantization = Quantization("ptq", {}, (), ())
    files = {"int8.onnx": mask_graph, "int8.cpu.onnx": mask_graph}
    files |= golden_files([], dict.fromkeys(files, ()))
    bundle = write_bundle(
        tmp_path / "b", Manifest(mask_spec, "0" * 64, {}, quantization, {}), files
    )
    for source in (bundle, bundle.path):
        with open_runner(source, runtime=runtime, threads=1) as run:
            assert (run.variant, len(run.detect(frame))) == ("int8", 2)
    (bundle.path / "int8.onnx").write_bytes(b"altered")
    with pytest.raises(IrstdError, match="was altered"):
        open_runner(bundle.path, runtime=runtime)


def test_nan_names_frame_and_network(tmp_path, mask_spec):
    run = Runner(mask_spec, "onnxruntime", "int8", lambda batch: [np.full_like(batch, np.nan)])
    with pytest.raises(IrstdError, match="^f: mshnet int8 on onnxruntime: logits: .*NaN"):
        run.detect(Frame("f", np.zeros((8, 8), np.uint8), 8))


def test_a_wrong_runtime_lists_the_right_ones(mask_file, mask_spec):
    with pytest.raises(IrstdError, match="'cuda' is not one of onnxruntime, openvino"):
        open_graph(mask_file, mask_spec, "fp32", "cuda")
    with pytest.raises(IrstdError, match="torch: runs weights, not bundles"):
        open_graph(mask_file, mask_spec, "fp32", "torch")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_that_is_missing_says_how_to_get_it(runtime, mask_file, mask_spec, monkeypatch):
    monkeypatch.setattr(runners, "find_spec", lambda name: None)
    assert installed_runtimes() == ()
    with pytest.raises(MachineError, match=rf"^{runtime}: not installed: pip install 'irstd-edge"):
        open_graph(mask_file, mask_spec, "fp32", runtime)


def test_threads_are_counted_from_one(runtime, mask_file, mask_spec):
    with pytest.raises(IrstdError, match="--threads: 0 is not"):
        open_graph(mask_file, mask_spec, "fp32", runtime, threads=0)


def test_a_file_that_is_no_graph(runtime, tmp_path, mask_spec):
    file = tmp_path / "fp32.onnx"
    file.write_bytes(b"not a graph")
    with pytest.raises(IrstdError, match=r"fp32\.onnx: is no ONNX graph \(.+\): quantize again"):
        open_graph(file, mask_spec, "fp32", runtime)


def test_a_graph_of_another_kind(runtime, mask_file, heatmap_spec):
    with pytest.raises(IrstdError, match=r"outputs \['logits'\], not .*'heatmap', 'geometry'"):
        open_graph(mask_file, heatmap_spec, "fp32", runtime)


def test_another_provider_than_asked_is_an_error(mask_file, mask_spec, monkeypatch):
    import onnxruntime

    class Elsewhere(onnxruntime.InferenceSession):
        def get_providers(self):
            return ["AzureExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Elsewhere)
    with pytest.raises(MachineError, match="Azure.* where .*CPU.* was asked"):
        open_graph(mask_file, mask_spec, "fp32", "onnxruntime")


def test_openvino_keeps_a_bounded_number_of_shapes(mask_file, mask_spec, monkeypatch):
    if "openvino" not in installed_runtimes():
        pytest.skip("openvino is an extra")
    compiled = []
    original = runtimes._compiled
    monkeypatch.setattr(
        runtimes, "_compiled", lambda *a: compiled.append(1) or original(*a), raising=True
    )
    with open_graph(mask_file, mask_spec, "fp32", "openvino", threads=1) as run:
        for size in [*range(1, OPENVINO_SHAPES + 1), OPENVINO_SHAPES, 1]:
            run.infer(np.zeros((1, 1, 4 * size, 4), np.float32))
        assert len(compiled) == OPENVINO_SHAPES
        run.infer(np.zeros((1, 1, 400, 4), np.float32))  # pushes out size 2, the oldest used
        run.infer(np.zeros((1, 1, 4, 4), np.float32))
        assert len(compiled) == OPENVINO_SHAPES + 1
        run.infer(np.zeros((1, 1, 8, 4), np.float32))
        assert len(compiled) == OPENVINO_SHAPES + 2


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", MemoryError),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError),
    ],
)
def test_torch_without_memory_is_told_from_its_other_faults(mask_spec, said, raised):
    torch = pytest.importorskip("torch", reason="torch is in the train extra")

    class Failing(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError(said)

    with torch_runner(Failing().eval(), mask_spec) as run, pytest.raises(raised) as error:
        run.infer(np.zeros((1, 1, 8, 4), np.float32))
    assert (str(error.value) == "mshnet on frames of 8x4") == (raised is MemoryError)


def test_torch_refuses_a_module_in_training_mode(mask_spec):
    with pytest.raises(IrstdError, match=r"training mode: call module\.eval\(\)"):
        torch_runner(torch_module("mask").train(), mask_spec)
