"""Judging graphs that are not in a bundle yet."""

import json

import numpy as np
import pytest

from irstd_edge.benchmarks.accuracy import evaluate
from irstd_edge.calibration.judge import (
    GOLDEN_FRAMES,
    golden_of,
    is_better,
    judge,
    opened,
    refuse_drop,
    scores_of,
)
from irstd_edge.edge.types import Detection, Frame, IrstdError, Prediction, Sample

TRUTH = np.float32([[4, 4], [12, 12]])


class Seer:
    """A runner that sees what it is told to, frame by frame."""

    def __init__(self, spec, seen):
        self.spec, self.seen, self.variant = spec, seen, "seer"

    def predict(self, frame):
        found = tuple(Detection(row, col, score, 4.0) for row, col, score in self.seen[frame.name])
        probability = np.zeros((8, 8), np.float32)
        for d in found:
            probability[round(d.row) // 2, round(d.col) // 2] = d.score
        return Prediction(found, probability, 2, None)

    def detect(self, frame):
        return self.predict(frame).detections


def sample(name, points=TRUTH):
    frame = Frame(name, np.zeros((16, 16), np.uint8), 8)
    return Sample(frame, None, np.float32(points).reshape(-1, 2))


BOTH = [(4, 4, 0.9), (12, 12, 0.8)]
ONE = [(4, 4, 0.9)]


@pytest.fixture
def results(case):
    """F1 of 1 for the reference, 2/3 for the candidate."""
    runners = {
        "fp32.onnx": Seer(case.spec, {"a": BOTH}),
        "int8.onnx": Seer(case.spec, {"a": ONE}),
    }
    return judge(runners, [sample("a")], lambda *_: None)


def test_each_graph_is_judged(results):
    assert {name: result.points_3px.matched for name, result in results.items()} == {
        "fp32.onnx": 2, "int8.onnx": 1,
    }  # fmt: skip


@pytest.mark.parametrize("max_drop", [None, 33.4, 100])
def test_a_drop_within_the_limit_passes(results, max_drop):
    refuse_drop(results, "fp32.onnx", max_drop, "try")


@pytest.mark.parametrize("max_drop", [0, 0.1, 33.3])
def test_a_drop_beyond_the_limit_is_named_with_the_way_out(results, max_drop):
    message = rf"--max-drop: int8\.onnx loses 33\.33 points of F1 on 1 .* {max_drop} are .*: try x"
    with pytest.raises(IrstdError, match=message):
        refuse_drop(results, "fp32.onnx", max_drop, "try x")


def test_a_drop_cannot_be_judged_without_targets(case):
    runners = {"fp32.onnx": Seer(case.spec, {"a": []})}
    results = judge(runners, [sample("a", [])], lambda *_: None)
    with pytest.raises(IrstdError, match="--max-drop: the held-out frames have no targets"):
        refuse_drop(results, "fp32.onnx", 1.0, "")


def test_scores_are_those_that_count(case):
    scores = scores_of(Seer(case.spec, {"a": ONE}), [sample("a")], "", lambda *_: None)
    assert scores == {"f1_3px": pytest.approx(2 / 3)}
    nothing = scores_of(Seer(case.spec, {"a": []}), [sample("a", [])], "", lambda *_: None)
    assert nothing == {"f1_3px": 0.0}


@pytest.mark.parametrize(
    "after, better",
    [((0.9, 0.8), False), ((0.91, 0.8), True), ((0.9, 0.81), True), ((0.95, 0.79), False)],
)
def test_better_is_a_rise_without_a_fall(after, better):
    names = ("f1_3px", "iou")
    before = dict(zip(names, (0.9, 0.8), strict=True))
    assert is_better(dict(zip(names, after, strict=True)), before) is better


def test_golden_frames_are_those_with_the_clearest_targets(case):
    seen = {
        "clear": [(4, 4, 0.99), (12, 12, 0.98)],
        "faint": BOTH,
        "missed": ONE,
        "false": [*BOTH, (4, 12, 0.95)],
        "clearer": [(4, 4, 0.99), (12, 12, 0.99)],
    }
    samples = [sample(name) for name in seen] + [sample("empty", [])]
    seen["empty"] = []
    runners = {"fp32.onnx": Seer(case.spec, seen), "int8.onnx": Seer(case.spec, seen)}
    files = golden_of(runners, "fp32.onnx", samples)
    assert GOLDEN_FRAMES == 3
    assert set(files) == {
        "golden/clear.png", "golden/clearer.png", "golden/faint.png", "golden/golden.json",
    }  # fmt: skip
    expected = json.loads(files["golden/golden.json"])["expected"]
    assert set(expected) == set(runners)
    assert len(expected["int8.onnx"]["faint"]) == 2


def test_every_graph_of_a_network_can_be_opened_and_run(case):
    frame = Frame("a", np.zeros((40, 40), np.uint8), 8)
    with opened(case.graphs, case.spec) as runners:
        assert set(runners) == set(case.graphs)
        for runner in runners.values():
            result = evaluate([sample("a")], runner.predict, "native")
            assert result.images[0].name == frame.name
