"""ONNX Runtime's form: what is rounded in it, and what not."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irstd_edge.calibration.cpu_layout import (
    MIN_CHANNELS,
    Scale,
    by_rule,
    cpu_form,
    cpu_outputs,
    roundable,
)
from irstd_edge.calibration.layouts import Graph

WIDE, THIN = 2 * MIN_CHANNELS, MIN_CHANNELS // 2
STEP = np.float32(0.05)


def int8_model(channels):
    """stem -> Relu -> int8 conv 3x3 of that many channels (with bias) -> Relu -> float conv."""
    rng = np.random.default_rng(0)
    constants = {
        "stem.weight": rng.normal(size=(channels, 1, 1, 1)).astype(np.float32),
        "step": STEP,
        "zero": np.int8(0),
        "w": rng.integers(-127, 128, (channels, channels, 3, 3), np.int8),
        "w.scale": rng.uniform(0.5, 1, channels).astype(np.float32) / 1000,
        "w.zero": np.zeros(channels, np.int8),
        "bias": rng.normal(size=channels).astype(np.float32),
        "head.weight": rng.normal(size=(1, channels, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["frame", "stem.weight"], ["a"], "stem"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("QuantizeLinear", ["b", "step", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"], "d"),
        helper.make_node("DequantizeLinear", ["w", "w.scale", "w.zero"], ["wd"], "wd", axis=0),
        helper.make_node("Conv", ["d", "wd", "bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["e"], "relu2"),
        helper.make_node("Conv", ["e", "head.weight"], ["logits"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model, frame):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"frame": frame})[0]


def operators(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "low, high, step, zero_point",
    [
        (0.0, 2.55, 0.01, 0),
        (1.0, 2.55, 0.01, 0),
        (-1.28, 1.27, 0.01, 128),
        (-2.55, -1.0, 0.01, 255),
    ],
)
def test_a_scale_covers_its_range_and_zero(low, high, step, zero_point):
    scale = Scale.of_range(low, high)
    assert scale.step == pytest.approx(step)
    assert scale.zero_point == zero_point


def test_a_range_of_nothing_has_a_scale():
    assert Scale.of_range(0.0, 0.0).step > 0


def test_a_wide_convolution_stays_int8_and_is_rounded_behind_its_relu():
    model = int8_model(WIDE)
    assert by_rule(model) == roundable(model) == ("conv",)
    assert cpu_outputs(model, ["conv"]) == ("e",)
    graph = Graph(cpu_form(model, {"e": (0.0, 5.1)}, ["conv"]))
    steps = {name: value for name, value in graph.constants.items() if value.dtype == np.uint8}
    assert set(steps) == {"b.zero", "e.zero"} and not any(value.any() for value in steps.values())
    # Nothing below 0 comes out of a ReLU: all 255 steps go to the positive half.
    assert graph.constants["b.step"] == pytest.approx(127 * STEP / 255)
    assert graph.constants["e.step"] == pytest.approx(0.02)
    assert graph.constants["w"].dtype == np.int8
    assert graph.constants["bias.int32"].dtype == np.int32


def test_a_thin_convolution_goes_back_to_float():
    model = int8_model(THIN)
    assert by_rule(model) == () and roundable(model) == ("conv",)
    assert cpu_outputs(model, ()) == ()
    back = cpu_form(model, {}, ())
    assert operators(back) == ["Conv", "Relu", "Conv", "Relu", "Conv"]
    assert all(value.dtype == np.float32 for value in Graph(back).constants.values())


@pytest.mark.parametrize("channels", [WIDE, THIN])
def test_it_computes_what_int8_does(channels):
    frame = np.random.default_rng(1).uniform(-1, 1, (2, 1, 6, 7)).astype(np.float32)
    model = int8_model(channels)
    expected = run(model, frame)
    nodes = by_rule(model)
    form = cpu_form(model, dict.fromkeys(cpu_outputs(model, nodes), (0.0, 8.0)), nodes)
    onnx.checker.check_model(form, full_check=True)
    assert np.abs(run(form, frame) - expected).max() < 0.03 * np.abs(expected).max()


def test_what_is_an_output_is_not_rounded():
    model = int8_model(WIDE)
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "logits"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = WIDE
    assert roundable(model) == () and cpu_outputs(model, ["conv"]) == ()
