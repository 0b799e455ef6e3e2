"""Rewritings of a graph of two layers, worked out by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irstd_edge.calibration.layouts import Graph, guard_concats, share_pairs, store_int8_weights

WEIGHT = np.float32([[[[0.5]], [[-2.0]]], [[[0.26]], [[0.0]]]])  # (2, 2, 1, 1)
WEIGHT_SCALE = np.float32([0.5 / 127, 0.002])
SCALE = np.float32(0.1)


def graph_of(nodes, constants, outputs=("logits",)):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [
            helper.make_tensor_value_info(o, TensorProto.FLOAT, ["N", None, "H", "W"])
            for o in outputs
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pair(source, target, scale="scale"):
    """QuantizeLinear and DequantizeLinear."""
    return [
        helper.make_node("QuantizeLinear", [source, scale, "zero"], [f"{target}.q"], f"{target}/Q"),
        helper.make_node(
            "DequantizeLinear", [f"{target}.q", scale, "zero"], [target], f"{target}/D"
        ),
    ]


def exported():
    """What torch exports: a weight in float with its pair; a Concat rounded twice."""
    axis = {"axis": 0}
    nodes = [
        helper.make_node("Neg", ["frame"], ["negative"], "neg"),
        helper.make_node("Concat", ["frame", "negative"], ["both"], "cat", axis=1),
        *pair("both", "one"),
        *pair("both", "two"),
        helper.make_node("QuantizeLinear", ["w", "w.scale", "w.zero"], ["w.q"], "wq", **axis),
        helper.make_node("DequantizeLinear", ["w.q", "w.scale", "w.zero"], ["w.d"], "wd", **axis),
        helper.make_node("Conv", ["one", "w.d"], ["a"], "conv_a"),
        helper.make_node("Conv", ["two", "w.d"], ["b"], "conv_b"),
        helper.make_node("Add", ["a", "b"], ["logits"], "add"),
    ]
    constants = {
        "scale": SCALE, "zero": np.int8(0), "w": WEIGHT, "w.scale": WEIGHT_SCALE,
        "w.zero": np.int8([0, 0]),
    }  # fmt: skip
    return graph_of(nodes, constants)


def run(model, frame):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"frame": frame})[0]


def count(model, operator):
    return sum(node.op_type == operator for node in model.graph.node)


@pytest.fixture
def frame():
    # Up to 25.5: the scale ends at 12.7.
    return np.random.default_rng(0).uniform(0, 25.5, (2, 1, 3, 5)).astype(np.float32)


def test_weights_are_stored_as_int8_and_their_float_form_is_gone():
    model = store_int8_weights(exported())
    graph = Graph(model)
    stored = graph.constants["w.int8"]
    # 0.5 is the end of its channel's range, -2 far beyond it; 0.26 / 0.002 is over 127 as well.
    assert stored.reshape(2, 2).tolist() == [[127, -127], [127, 0]]
    assert stored.dtype == np.int8
    assert "w" not in graph.constants
    assert count(model, "QuantizeLinear") == 2


def test_a_tensor_is_rounded_once(frame):
    model = store_int8_weights(exported())
    before = run(model, frame)
    shared = share_pairs(model)
    assert count(shared, "QuantizeLinear") == 1
    assert count(shared, "DequantizeLinear") == 2  # the tensor's and the weight's
    assert np.array_equal(run(shared, frame), before)


def test_pairs_of_another_scale_are_kept_apart():
    model = exported()
    second = next(node for node in model.graph.node if node.name == "two/Q")
    third = next(node for node in model.graph.node if node.name == "two/D")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.2), "other"))
    second.input[1] = third.input[1] = "other"
    assert count(share_pairs(model), "QuantizeLinear") == 3


def test_a_guard_behind_concat_changes_no_number(frame):
    model = share_pairs(store_int8_weights(exported()))
    before = run(model, frame)
    guarded = guard_concats(model)
    (guard,) = [node for node in guarded.graph.node if node.op_type == "Max"]
    assert guard.input[0] == "both"
    assert Graph(guarded).constants[guard.input[1]] == pytest.approx(-12.8)
    assert np.array_equal(run(guarded, frame), before)


def test_no_guard_where_there_is_no_concat():
    nodes = [*pair("frame", "rounded"), helper.make_node("Neg", ["rounded"], ["logits"], "neg")]
    model = graph_of(nodes, {"scale": SCALE, "zero": np.int8(0)})
    assert count(guard_concats(model), "Max") == 0


def test_the_result_is_checked():
    model = exported()
    del model.graph.node[0]  # `negative` comes from nowhere
    with pytest.raises(onnx.checker.ValidationError):
        store_int8_weights(model)
