"""Networks of one layer, whose answers can be worked out by hand."""

import math

import numpy as np
import pytest

from irstd_edge.edge.types import DecodeSpec, Frame, InputSpec, ModelSpec

HEATMAP_GEOMETRY = (0.25, -0.25, math.log(1.5))  # dx, dy, log sigma, the same everywhere


def conv_graph(name, weights, biases, stride):
    """ONNX file: one Conv of kernel and stride `stride` per output, free of batch and size."""
    onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")
    helper = onnx.helper
    nodes, constants, outputs = [], [], []
    for output, weight in weights.items():
        tensors = {f"{output}.weight": weight, f"{output}.bias": biases[output]}
        constants += [onnx.numpy_helper.from_array(v, k) for k, v in tensors.items()]
        nodes.append(
            helper.make_node("Conv", ["frame", *tensors], [output], strides=[stride, stride])
        )
        sizes = ["N", len(weight), f"H{stride}", f"W{stride}"]
        outputs.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, sizes))
    frame = helper.make_tensor_value_info("frame", onnx.TensorProto.FLOAT, ["N", 1, "H", "W"])
    graph = helper.make_graph(nodes, name, [frame], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture
def mask_spec():
    return ModelSpec("mshnet", InputSpec(stride=4), DecodeSpec("mask"))


@pytest.fixture
def heatmap_spec():
    return ModelSpec("p2p", InputSpec(stride=4), DecodeSpec("heatmap"))


@pytest.fixture
def mask_graph():
    """logits = 20 * frame - 10: foreground above half of full scale."""
    weight, bias = np.full((1, 1, 1, 1), 20, np.float32), np.float32([-10])
    return conv_graph("mask", {"logits": weight}, {"logits": bias}, stride=1)


@pytest.fixture
def heatmap_graph():
    """heatmap = 20 * mean of the 2x2 cell - 10; geometry constant."""
    weights = {
        "heatmap": np.full((1, 1, 2, 2), 5, np.float32),
        "geometry": np.zeros((3, 1, 2, 2), np.float32),
    }
    biases = {"heatmap": np.float32([-10]), "geometry": np.float32(HEATMAP_GEOMETRY)}
    return conv_graph("heatmap", weights, biases, stride=2)


@pytest.fixture
def frame():
    """30x22, 8 bit: targets of 2x2 at (6, 8) and (20, 14), the second fainter."""
    counts = np.full((30, 22), 20, np.uint8)
    counts[6:8, 8:10] = 230
    counts[20:22, 14:16] = 180
    return Frame("scene", counts, 8)
