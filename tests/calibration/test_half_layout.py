"""float16 where it is safe, float32 where not."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irstd_edge.calibration.half_layout import OPSET, half_form
from irstd_edge.calibration.layouts import Graph

CONSTANTS = {
    "point": np.float32([[[[2.0]]]]),
    "stem": np.ones((1, 1, 3, 3), np.float32),
    "axes": np.int64([2, 3]),
    "scales": np.float32([1, 1, 2, 2]),
    "half": np.float32(0.5),
}


def model_of(**changes):
    """Pointwise conv, 3x3 conv, mean over the frame, multiply, resize, scale."""
    nodes = [
        helper.make_node("Conv", ["frame", "point"], ["a"], "point"),
        helper.make_node("Conv", ["a", "stem"], ["b"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["b", "axes"], ["m"], "mean"),
        helper.make_node("Mul", ["b", "m"], ["c"], "mul"),
        helper.make_node("Resize", ["c", "", "scales"], ["d"], "resize"),
        helper.make_node("Mul", ["d", "half"], ["logits"], "scale"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, "H2", "W2"])],
        [numpy_helper.from_array(v, k) for k, v in {**CONSTANTS, **changes}.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def kinds(model):
    """Tensor -> its type, as the checker infers it."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    items = [*inferred.input, *inferred.value_info, *inferred.output]
    return {item.name: item.type.tensor_type.elem_type for item in items}


def test_the_frame_the_means_and_the_outputs_stay_float32():
    found = kinds(half_form(model_of()))
    single = ["frame", "a", "b", "m", "logits"]
    assert {name: found[name] for name in single} == dict.fromkeys(single, TensorProto.FLOAT)
    assert found["c"] == found["d"] == TensorProto.FLOAT16


def test_it_computes_the_same():
    import onnxruntime

    frame = np.random.default_rng(0).random((2, 1, 4, 6), np.float32)
    results = [
        onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, {"frame": frame})[0]
        for model in (model_of(), half_form(model_of()))
    ]
    assert results[1].dtype == np.float32
    assert np.allclose(*results, rtol=3e-3)


def test_a_tensor_is_cast_once():
    model = half_form(model_of())
    casts = [node.input[0] for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))


def test_a_tiny_scale_stays_above_zero():
    graph = Graph(half_form(model_of(half=np.float32(1e-12))))
    assert graph.constants["half.half"] > 0


def test_what_float16_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="half: holds 70000"):
        half_form(model_of(half=np.float32(70000)))
