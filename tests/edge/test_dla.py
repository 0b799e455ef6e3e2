"""NVIDIA's rules for a DLA, each met by a graph of one node."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd_edge.edge import dla
from irstd_edge.edge.dla import Fallback, placement_of, reasons
from irstd_edge.edge.types import IrstdError, MachineError

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")
HALF, SINGLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def save(
    path: Path, *nodes: tuple[Any, ...], constants: dict[str, Any] | None = None, kind: int = HALF
) -> Path:
    """A graph from `x` (N, 2, H, W) to `y`; a node is (operator, inputs, output, attributes)."""
    helper = onnx.helper
    made = [helper.make_node(op, i, [o], f"n{k}", **a) for k, (op, i, o, a) in enumerate(nodes)]
    x, y = (helper.make_tensor_value_info(n, kind, s) for n, s in (("x", FREE), ("y", None)))
    stored = [onnx.numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(made, "net", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, path / "net.onnx")
    return path / "net.onnx"


FREE = ["N", 2, "H", "W"]
SHAPE = (1, 2, 32, 48)
CONV = {"w": np.ones((4, 2, 3, 3), np.float16)}
BIG_CONV = {"w": np.ones((4, 2, 33, 1), np.float16)}
DOUBLE = {"s": np.float32([1, 1, 2, 2])}
PLACES = "coordinate_transformation_mode"
CUBIC = {"mode": "cubic"}
BOUNDS = {n: np.int64([v]) for n, v in (("from", 0), ("to", 8), ("axis", 3))}


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (("Conv", ["x", "w"], "y", {}), CONV),
        (("Relu", ["x"], "y", {}), {}),
        (("Add", ["x", "x"], "y", {}), {}),
        (("MaxPool", ["x"], "y", {"kernel_shape": [2, 2], "strides": [2, 2]}), {}),
        (("Concat", ["x", "x"], "y", {"axis": 1}), {}),
        (("Resize", ["x", "", "s"], "y", {"mode": "linear", PLACES: "half_pixel"}), DOUBLE),
        (("Resize", ["x", "", "s"], "y", {"mode": "nearest", PLACES: "asymmetric"}), DOUBLE),
        (("Slice", ["x", "from", "to", "axis"], "y", {}), BOUNDS),
        (("Softmax", ["x"], "y", {"axis": 1}), {}),
        (("ReduceMax", ["x"], "y", {}), {}),
        (
            ("Clip", ["x", "low", "high"], "y", {}),
            {"low": np.float16(0), "high": np.float16(6)},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_a_dla_takes(node: Any, constants: Any, tmp_path: Path) -> None:
    placed = placement_of(save(tmp_path, node, constants=constants), SHAPE)
    assert (placed.fallbacks, placed.on_dla) == ((), 1)


@pytest.mark.parametrize(
    ("node", "constants", "why"),
    [
        (("Conv", ["x", "w"], "y", {}), BIG_CONV, "its kernel is larger than 32"),
        (("Conv", ["x", "w"], "y", {"strides": [9, 1]}), CONV, "its stride is over 8"),
        (("Conv", ["x", "x"], "y", {}), {}, "its weights are computed"),
        (("MaxPool", ["x"], "y", {"kernel_shape": [9, 9]}), {}, "its window is larger than 8"),
        (("Concat", ["x", "x"], "y", {"axis": 3}), {}, "DLA puts channels together alone"),
        (
            ("Resize", ["x", "", "s"], "y", {"mode": "linear", PLACES: "align_corners"}),
            DOUBLE,
            "its bilinear resize counts align_corners, DLA only half_pixel",
        ),
        (
            ("Resize", ["x", "", "s"], "y", {"mode": "cubic"}),
            DOUBLE,
            "DLA does not resize by cubic",
        ),
        (
            ("Resize", ["x", "", "s"], "y", {"mode": "linear"}),
            {"s": np.float32([1, 1, 1.5, 2])},
            "DLA enlarges by whole factors of 1 to 4",
        ),
        (
            ("Clip", ["x", "low", "high"], "y", {}),
            {"low": np.float16(-1.5), "high": np.float16(2.5)},
            "DLA clips from 0 to at most 127 alone",
        ),
        (("ReduceMean", ["x"], "y", {}), {}, "of reductions, DLA has the maximum alone"),
        (("Erf", ["x"], "y", {}), {}, "DLA has no such layer"),
        (("Cast", ["x"], "y", {"to": HALF}), {}, "DLA does not change types"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_falls_back_and_why(node: Any, constants: Any, why: str, tmp_path: Path) -> None:
    placed = placement_of(save(tmp_path, node, constants=constants), SHAPE)
    assert placed.fallbacks == (Fallback("n0", node[0], why),)


def test_what_is_float32_in_the_graph_stays_on_the_gpu(tmp_path: Path) -> None:
    graph = save(tmp_path, ("Relu", ["x"], "y", {}), kind=SINGLE)
    assert [f.reason for f in placement_of(graph, SHAPE).fallbacks] == [
        "it is float32 in the graph, and DLA computes in FP16"
    ]


def test_a_side_beyond_8192_is_too_long(tmp_path: Path) -> None:
    graph = save(tmp_path, ("Relu", ["x"], "y", {}))
    (fallback,) = placement_of(graph, (1, 2, 32, 8200)).fallbacks
    assert fallback.reason == "1x2x32x8200 is more than 8192 on a side"


def test_reasons_are_counted_and_the_record_has_every_node(tmp_path: Path) -> None:
    nodes = [("Erf", ["x"], "a", {}), ("Relu", ["a"], "b", {}), ("Erf", ["b"], "c", {})]
    placed = placement_of(save(tmp_path, *nodes, ("Cast", ["c"], "y", {"to": HALF})), SHAPE)
    assert list(reasons(placed)) == [
        ("Erf", "DLA has no such layer", 2),
        ("Cast", "DLA does not change types", 1),
    ]
    record = placed.record()
    assert (record["nodes"], record["on_dla"]) == (4, 1)
    assert [f["node"] for f in record["fallbacks"]] == ["n0", "n2", "n3"]


def test_no_file_and_no_onnx_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.onnx").write_bytes(b"hello")
    with pytest.raises(IrstdError, match=r"no\.onnx: is no ONNX file"):
        placement_of(tmp_path / "no.onnx", SHAPE)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MachineError, match="--dla: looking at the graph needs onnx"):
        dla.placement_of(tmp_path / "no.onnx", SHAPE)
