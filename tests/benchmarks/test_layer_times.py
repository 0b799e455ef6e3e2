from pathlib import Path

import numpy as np
import pytest

from irstd_edge.benchmarks.layer_times import RUNS, WARM_UP, layer_times, layer_times_of
from irstd_edge.edge.runners import Runner, installed_runtimes
from irstd_edge.edge.types import DecodeSpec, FloatArray, Frame, InputSpec, ModelSpec

onnx = pytest.importorskip("onnx", reason="the tiny graph is written with the train extra")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A cheap and a dear convolution; the second has 64 times the work."""
    shapes = {"w": (8, 1, 1, 1), "v": (64, 8, 5, 5)}
    weights = [
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["frame", "w"], ["a"], name="/cheap/Conv"),
        onnx.helper.make_node("Conv", ["a", "v"], ["logits"], name="/dear/Conv", pads=[2] * 4),
    ]
    free = ["n", 1, "h", "w"]
    frame = onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.FLOAT, free)
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    body = onnx.helper.make_graph(nodes, "net", [frame], [logits], weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(body, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_dear_layer_takes_the_time(graph: Path, runtime: str) -> None:
    if runtime not in installed_runtimes():
        pytest.skip(f"{runtime} is not installed")
    times = layer_times(graph, runtime, np.ones((1, 1, 64, 64), np.float32), threads=1)
    assert times is not None
    assert [each.ms for each in times] == sorted((each.ms for each in times), reverse=True)
    assert min(each.ms for each in times) > 0
    share = sum(t.ms for t in times if "dear" in t.layer or "logits" in t.layer)
    assert share > 0.5 * sum(each.ms for each in times), times
    assert times[0].to_json() == {
        "layer": times[0].layer,
        "op": times[0].op,
        "ms": pytest.approx(times[0].ms, abs=1e-5),
    }


def test_a_runtime_without_a_profiler_has_none(graph: Path) -> None:
    assert layer_times(graph, "tensorrt", np.ones((1, 1, 8, 8), np.float32)) is None


class Engine:
    """Of TensorRT, as far as a runner asks it; slow at first."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()

    def __call__(self, batch: FloatArray) -> list[FloatArray]:
        raise AssertionError("is profiled, not run")

    def layer_times(self, batch: FloatArray, runs: int) -> list[tuple[str, float]]:
        self.shape = batch.shape
        warm = [("a", 90.0), ("b", 90.0)] * WARM_UP
        return warm + [("a", 1.0), ("b", 2.0)] * (runs - WARM_UP)


def test_an_engine_tells_its_own_times() -> None:
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    engine = Engine()
    runner = Runner(spec, "tensorrt", "int8", engine)
    frame = Frame("a", np.zeros((30, 32), np.uint8), 8)
    times = layer_times_of(runner, Path("int8.onnx"), frame)
    assert times is not None and engine.shape == (1, 1, 32, 32)
    assert [(each.layer, each.op, each.ms) for each in times] == [
        ("b", "engine", pytest.approx(2.0)),
        ("a", "engine", pytest.approx(1.0)),
    ]
    assert RUNS > 1
