"""Ranges of a graph's tensors."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from irstd_edge.calibration.ranges import ranges_of


@pytest.fixture
def model():
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["frame"], ["negative"], "neg"),
            helper.make_node("Relu", ["negative"], ["logits"], "relu"),
        ],
        "net",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, "H", "W"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_over_all_frames_of_any_size(model):
    batches = [
        np.float32([[[[1, 2], [3, 4]]]]),
        np.float32([[[[-5, 0, 1]]]]),
    ]
    found = ranges_of(model, ["negative", "logits"], batches)
    assert found == {"negative": (-4.0, 5.0), "logits": (0.0, 5.0)}
    assert [output.name for output in model.graph.output] == ["logits"]  # it is left as it was


def test_of_nothing_is_nothing(model):
    assert ranges_of(model, [], []) == {}
