"""One rule of signs, read from OpenVINO graphs and from ONNX graphs."""

import time
from typing import Any

import numpy as np
import pytest

from irstd_edge.edge.signs import Made, made_in_onnx, made_in_openvino, never_negative


def graph(**nodes: Any) -> Any:
    """`made` of nodes by name: (operator, sources...), an array, or None for an input."""

    def made(name: str) -> Made[str]:
        node = nodes[name]
        if node is None:
            return Made(name, "Parameter")
        if isinstance(node, np.ndarray):
            return Made(name, "Constant", constant=node)
        return Made(name, node[0], node[1:])

    return made


PARTS = {
    "x": None,
    "minus": np.float32([-1, 2]),
    "plus": np.float32([0, 2]),
    "shape": np.array([0, -1]),
    "stored": np.int8([-3, 5]),
    "relu": ("Relu", "x"),
    "gate": ("Sigmoid", "x"),
}


@pytest.mark.parametrize(
    "node",
    [
        *[("Relu", "x"), ("Sigmoid", "x"), ("Softmax", "x"), ("Reshape", "relu", "shape")],
        *[("Add", "relu", "plus"), ("Mul", "relu", "gate"), ("Concat", "relu", "gate")],
        *[("Min", "relu", "plus"), ("Max", "x", "plus"), ("MaxPool", "relu"), ("Split", "gate")],
        *[("Resize linear", "relu"), ("Interpolate nearest", "relu"), ("Pad", "relu", "shape")],
        *[("Pad", "relu", "shape", "plus"), ("DequantizeLinear", "relu", "plus")],
    ],
)
def test_what_is_never_negative(node: tuple[str, ...]) -> None:
    assert never_negative("y", graph(**PARTS, y=node))


@pytest.mark.parametrize(
    "node",
    [
        *[("Conv", "relu"), ("Identity", "x"), ("Add", "relu", "minus"), ("Mul", "relu", "minus")],
        *[("Concat", "relu", "x"), ("Min", "relu", "minus"), ("Max", "x", "minus")],
        *[("Sub", "relu", "plus"), ("Exp", "x"), ("Resize cubic", "relu")],
        *[("Pad", "relu", "shape", "minus"), ("MaxPool", "x"), ("Neg", "relu")],
        *[("DequantizeLinear", "stored", "plus"), ("Convert", "stored"), ("Add", "relu", "stored")],
    ],
)
def test_what_may_be_negative(node: tuple[str, ...]) -> None:
    assert not never_negative("y", graph(**PARTS, y=node))


def test_many_joins_take_no_time() -> None:
    chain: dict[str, Any] = {"y0": ("Relu", "x")}
    chain |= {f"y{i}": ("Add", f"y{i - 1}", f"y{i - 1}") for i in range(1, 60)}
    start = time.monotonic()
    assert never_negative("y59", graph(**PARTS, **chain))
    assert time.monotonic() - start < 1


def test_a_sign_too_far_back_is_not_known() -> None:
    chain: dict[str, Any] = {"y0": ("Relu", "x")}
    chain |= {f"y{i}": ("Identity", f"y{i - 1}") for i in range(1, 200)}
    assert not never_negative("y199", graph(**PARTS, **chain))


def test_of_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node
    nodes = {
        "a": node("Relu", ["x"], ["a"]),
        "b": node("Resize", ["a", "", "", "size"], ["b"], mode="linear"),
        "c": node("Resize", ["a", "", "", "size"], ["c"], mode="cubic"),
        "d": node("Mul", ["b", "two"], ["d"]),
        "e": node("Mul", ["b", "less"], ["e"]),
    }
    stored = {"two": np.float32(2), "less": np.float32(-2), "size": np.array([1, 1, 8, 8])}
    found = {name for name in nodes if never_negative(name, made_in_onnx(nodes.get, stored.get))}
    assert found == {"a", "b", "d"}


def test_of_openvino() -> None:
    pytest.importorskip("openvino")
    from openvino import opset8 as ops

    x = ops.parameter([1, 4, 8, 8], np.float32, name="x")
    relu, gate = ops.relu(x), ops.sigmoid(x)
    minus, plus = (ops.constant(np.float32(value)) for value in (-1.0, 1.0))
    halves = ops.split(ops.multiply(relu, gate), 1, 2)
    good = [relu, ops.add(relu, plus), ops.concat([relu, gate], 1), ops.maximum(x, plus)]
    good += [ops.minimum(relu, plus), ops.depth_to_space(relu, "blocks_first", 2)]
    bad = [x, ops.add(relu, minus), ops.multiply(relu, minus), ops.concat([relu, x], 1)]
    bad += [ops.minimum(relu, minus), ops.maximum(x, minus), ops.subtract(relu, plus)]
    outputs = [*(node.output(0) for node in good), halves.output(1)]
    assert all(never_negative(each, made_in_openvino) for each in outputs)
    assert not any(never_negative(node.output(0), made_in_openvino) for node in bad)
