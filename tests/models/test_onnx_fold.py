"""Folding, on graphs small enough to see through."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from irstd_edge.models.onnx_fold import fold_constants


def folded(nodes, constants, shape=("N", 4, "H", "W")):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fold_constants(model)
    onnx.checker.check_model(model, full_check=True)
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    return [node.op_type for node in model.graph.node], values


def half_of(axis):
    """The second half along an axis, as torch exports `chunk`."""
    nodes = [
        helper.make_node("Shape", ["frame"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "axis"], ["size"], "gather"),
        helper.make_node("Div", ["size", "two"], ["half"], "div"),
        helper.make_node("Slice", ["frame", "half", "size", "axis"], ["out"], "slice"),
    ]
    return nodes, {"axis": np.int64([axis]), "two": np.int64([2])}


def test_the_number_of_channels_is_a_constant():
    operators, values = folded(*half_of(axis=1))
    assert operators == ["Slice"]
    assert {name: value.tolist() for name, value in values.items()} == {
        "half": [2], "size": [4], "axis": [1],
    }  # fmt: skip


def test_the_height_is_the_callers():
    operators, _ = folded(*half_of(axis=2))
    assert operators == ["Shape", "Gather", "Div", "Slice"]


def test_what_follows_from_a_folded_size_is_folded_too():
    nodes, constants = half_of(axis=1)
    nodes[-1].output[0] = "first"
    more, _ = half_of(axis=1)
    renamed = {"frame": "first", "shape": "shape2", "size": "size2", "half": "half2"}
    for node in more:
        node.name += "2"
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    operators, values = folded([*nodes, *more], constants)
    assert operators == ["Slice", "Slice"]
    assert values["half2"].tolist() == [1]


def test_what_says_a_precision_is_kept():
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"),
        helper.make_node("Neg", ["scale"], ["unused"], "neg"),
        helper.make_node("Mul", ["frame", "d"], ["out"], "mul"),
    ]
    constants = {"w": np.float32(3), "scale": np.float32(0.5), "zero": np.int8(0)}
    operators, values = folded(nodes, constants)
    assert operators == ["QuantizeLinear", "DequantizeLinear", "Mul"]
    assert "unused" not in values


def test_constants_in_nodes_become_constants_of_the_file():
    value = numpy_helper.from_array(np.float32([2.0]), "value")
    nodes = [
        helper.make_node("Constant", [], ["two"], "two", value=value),
        helper.make_node("Identity", ["two"], ["same"], "same"),
        helper.make_node("Mul", ["frame", "same"], ["out"], "mul"),
    ]
    operators, values = folded(nodes, {})
    assert operators == ["Mul"]
    assert values["same"].tolist() == [2.0]
