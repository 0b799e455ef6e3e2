"""Ranges of a graph's tensors."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from irstd_edge.calibration import ranges
from irstd_edge.calibration.ranges import ranges_of
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.types import Frame, Sample


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


def shown(values, points=()):
    frame = Frame("a", np.zeros(np.shape(values), np.uint8), 8)
    truth = Sample(frame, None, np.reshape(points, (-1, 2)).astype(float))
    return CalibrationFrame.of(np.float32([[values]]), truth)


@pytest.mark.parametrize("at_once", [1, 16])
def test_over_all_frames_of_any_size(model, at_once, monkeypatch):
    monkeypatch.setattr(ranges, "AT_ONCE", at_once)
    frames = [shown([[1, 2], [3, 4]]), shown([[-5, 0, 1]])]
    found = ranges_of(model, ["negative", "logits"], frames, "min-max")
    assert found == {"negative": (-4.0, 5.0), "logits": (0.0, 5.0)}
    assert [output.name for output in model.graph.output] == ["logits"]  # it is left as it was


@pytest.mark.parametrize("rule", ["percentile", "mse"])
def test_a_rule_cuts_on_either_side_and_spares_targets(model, rule):
    values = np.random.default_rng(0).uniform(-0.5, 0.5, (400, 400))
    values[10, 10], values[300, 300], values[200, 100] = -0.9, 0.9, -0.8
    frame = [shown(values)]
    found = ranges_of(model, ["negative", "logits"], frame, rule)
    low, high = found["negative"]
    assert -0.75 < low < -0.45 and 0.45 < high < 0.75
    assert found["logits"][0] == 0 and 0.45 < found["logits"][1] < 0.75
    target = [shown(values, [(201, 99)])]
    found = ranges_of(model, ["negative", "logits"], target, rule)
    assert found["negative"] == pytest.approx((-0.8, 0.8), abs=1e-6)
    assert found["logits"] == pytest.approx((0, 0.8), abs=1e-6)


def test_of_nothing_is_nothing(model):
    assert ranges_of(model, [], [], "percentile") == {}
