"""Constants, makers, readers and names of a small graph."""

import numpy as np
import pytest

from irstd_edge.edge.onnx_graph import constants_of, makers_of, name_of, readers_of

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")


def test_a_graph_is_indexed_by_tensor() -> None:
    helper, stored = onnx.helper, onnx.numpy_helper.from_array
    nodes = [
        helper.make_node("Constant", [], ["two"], value=stored(np.float32(2))),
        helper.make_node("Constant", [], ["other"], value_float=3.0),  # none that we write
        helper.make_node("Mul", ["frame", "frame"], ["square"], "squared"),
        helper.make_node("Div", ["square", "two"], ["half"]),
    ]
    graph = helper.make_graph(nodes, "net", [], [], [stored(np.arange(3), "stored")])
    nodes = list(graph.node)
    found = {name: value.tolist() for name, value in constants_of(graph).items()}
    assert found == {"stored": [0, 1, 2], "two": 2}
    assert makers_of(nodes) == dict(zip(("two", "other", "square", "half"), nodes, strict=True))
    assert readers_of(nodes) == {"frame": [nodes[2]] * 2, "square": [nodes[3]], "two": [nodes[3]]}
    assert [name_of(node) for node in nodes[2:]] == ["squared", "Div of half"]
