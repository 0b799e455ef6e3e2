from pathlib import Path

import numpy as np
import pytest

from irstd_edge.edge.first_step import first_step, sensor_step, step_words
from irstd_edge.edge.types import Frame, InputSpec, IrstdError

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")

KERNEL = np.array([[[[0, 1, 0], [1, -4, 1], [0, 1, 0]]], [[[0.5] * 3] * 3]], np.float32)
SCALE = 0.02


def graph_file(path: Path, rounds: bool = True) -> Path:
    """frame -> Conv in float -> Relu -> Q, DQ -> logits; one pixel moves a cell by up to 4."""
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    nodes = [
        helper.make_node("Conv", ["frame", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["act"]),
    ]
    if rounds:
        nodes.append(helper.make_node("QuantizeLinear", ["act", "scale", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["logits"]))
    else:
        nodes.append(helper.make_node("Identity", ["act"], ["logits"]))
    constants = {
        "w": KERNEL,
        "b": np.full(2, 5, np.float32),
        "scale": np.float32(SCALE),
        "zero": np.int8(0),
    }
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", channels, "H", "W"])
        for name, channels in (("frame", 1), ("logits", 2))
    ]
    values = [to_tensor(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], values)
    opset = helper.make_opsetid("", 17)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    )
    return path


def test_the_first_rounded_activation_is_measured_in_front_of_its_quantizer(tmp_path: Path) -> None:
    found = first_step(graph_file(tmp_path / "int8.onnx"), stride=8)
    assert found.tensor == "act"
    assert found.scale == pytest.approx(SCALE)
    assert found.response == pytest.approx(4, rel=1e-4)
    assert found.of_input == pytest.approx(0.005, rel=1e-4)


@pytest.mark.parametrize(("depth", "full"), [(8, 255), (14, 16383), (16, 65535)])
def test_steps_in_counts_follow_the_bits_of_the_sensor(
    tmp_path: Path, depth: int, full: int
) -> None:
    graph = graph_file(tmp_path / "int8.onnx")
    frame = Frame("x", np.full((32, 32), 40, np.uint8 if depth == 8 else np.uint16), depth)
    found = sensor_step(graph, InputSpec(8), [frame])
    assert (found["bit_depth"], found["normalisation"]) == (depth, "full-scale")
    assert found["counts_per_unit"] == full
    assert found["int8_input"] == pytest.approx(full / 127)  # 129 counts of 14 bits
    assert found["first_activation"] == pytest.approx(full * 0.005, rel=1e-4)


def test_a_stretched_frame_has_finer_steps_and_the_sentence_says_so(tmp_path: Path) -> None:
    graph = graph_file(tmp_path / "int8.onnx")
    slope = np.arange(10_000, dtype=np.uint16).reshape(100, 100)  # 19600 counts from 0 to 1
    found = sensor_step(graph, InputSpec(8, normalisation="percentile"), [Frame("x", slope, 16)])
    assert found["counts_per_unit"] == pytest.approx(19600)
    assert step_words(found) == (
        "counts per INT8 step: 98 of 16 bits, one pixel's rise, at the first rounded activation; "
        "an INT8 input would have 154 (percentile; the input stays float)"
    )


def test_a_graph_that_rounds_nothing_has_no_step(tmp_path: Path) -> None:
    with pytest.raises(IrstdError, match=r"fp32\.onnx: has no QuantizeLinear"):
        first_step(graph_file(tmp_path / "fp32.onnx", rounds=False), stride=8)


def test_a_scale_that_is_computed_is_no_step(tmp_path: Path) -> None:
    model = onnx.load(graph_file(tmp_path / "int8.onnx"))
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["scale"], ["same"]))
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            node.input[1] = "same"
    onnx.save(model, tmp_path / "int8.onnx")
    with pytest.raises(IrstdError, match="act has no scale of its own: quantize again"):
        first_step(tmp_path / "int8.onnx", stride=8)


def test_a_constant_node_tells_a_sign_as_a_stored_constant_does(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "int8.onnx")
    model = onnx.load(str(path))
    conv, _, *rest = model.graph.node
    floor = onnx.numpy_helper.from_array(np.float32(0))
    nodes = [
        onnx.helper.make_node("Constant", [], ["floor"], value=floor),
        conv,
        onnx.helper.make_node("Max", ["conv", "floor"], ["act"]),
        *rest,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())
    assert first_step(path, stride=8).never_negative
