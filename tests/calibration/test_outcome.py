"""What is said of a quantization, from its record alone."""

from irstd_edge.calibration.outcome import outcome_words
from irstd_edge.edge.types import DecodeSpec, InputSpec, Manifest, ModelSpec, Quantization

SCORES = {
    "ptq": {"f1_3px": 0.96, "score_error": 0.02},
    "qat": {"f1_3px": 0.97, "score_error": 0.01},
}
FLOATS = (("stem", "sees the frame"), ("high1.conv1", "--max-drop 0.1: rounded alone, it moves"))


SPEC = ModelSpec("p2p", InputSpec(8), DecodeSpec("heatmap"))


def said(recipe, float_layers=(), accuracy=None):
    how = Quantization("ptq", recipe, (), tuple(float_layers))
    return list(outcome_words(Manifest(SPEC, "0" * 64, {}, how, {}, accuracy or {})))


def test_nothing_is_said_of_a_plain_calibration():
    assert said({"seed": 0}) == []


def test_frames_left_out_are_named_whatever_they_were_for():
    fit, held_out = ({"name": name, "reason": "has no mask"} for name in ("a", "b"))
    skipped = [{**SCORES["ptq"], "images": 1, "targets": 2, "skipped": [held_out]}]
    lines = said({"skipped": [fit]}, accuracy={"fp32": skipped[0]})
    assert lines[:2] == ["skipped a: has no mask", "skipped b: has no mask"]


def test_training_that_bought_nothing_is_said_so():
    changes = "(held-out frames: f1_3px 0.9600 -> 0.9700, score_error 0.0200 -> 0.0100)"
    assert said({"qat": {"kept": True, "held_out": SCORES}}) == [f"QAT is kept {changes}"]
    (line,) = said({"qat": {"kept": False, "held_out": SCORES}})
    assert line == f"QAT bought nothing, so the calibrated network is kept {changes}"


def test_ranges_that_were_not_asked_for_are_told():
    (line,) = said({"ranges": "min-max", "ranges_instead_of": "mse"})
    assert line.startswith("ranges by min-max, not mse: the calibration frames show fewer than 8")


def test_layers_that_the_clock_chose_are_counted():
    record = {"rounded": ["a", "b"], "alone": [{}] * 5, "p50_ms": {"rule": 9.34, "first 2": 8.51}}
    (line,) = said({"time_layers": record})
    assert "rounds 2 of 5 layers" in line and "(rule 9.3 ms, first 2 8.5 ms;" in line


def test_a_rule_that_nothing_beats_by_much_is_not_called_the_fastest():
    times = {"rule": 10.2, "first 2": 9.95}
    record = {"rounded": ["a"], "alone": [{}] * 5, "p50_ms": times, "chosen": "rule"}
    (line,) = said({"time_layers": record})
    assert "1 of 5 layers, by rule, for none is over 3% faster on this machine (rule 10.2" in line
    (line,) = said({"time_layers": {**record, "chosen": "first 2"}})
    assert "the fastest on this machine" in line


def test_layers_left_in_float_for_a_budget_are_named():
    assert said({}, FLOATS) == ["in float to hold --max-drop: high1.conv1"]


def test_the_way_that_is_farthest_off_is_named():
    gaps = [
        {"way": "torch", "targets": 86, "flips": 0, "score_error": 0.00012},
        {"way": "openvino", "targets": 86, "flips": 1, "score_error": 0.0044, "f1_3px": -0.0012},
        {"way": "onnxruntime", "targets": 86, "flips": 0, "score_error": 0.0125},
    ]
    (line,) = said({"parity": gaps})
    assert "torch differs in 0 of 86 targets (scores by 0.0001), openvino differs in 1 of" in line
    assert "openvino differs in 1 of 86 targets (scores by 0.0044, F1 by -0.12)," in line
    assert line.endswith("farthest: openvino")
    masks = [{**gap, "flips": 0, "score_error": 0.0, "iou": -0.001} for gap in gaps]
    masks[2]["iou"] = -0.009
    (line,) = said({"parity": masks})
    assert "torch differs in 0 of 86 targets (IoU by -0.10), openvino" in line
    assert line.endswith("farthest: onnxruntime")
    masks[0]["f1_3px"] = -0.02
    assert said({"parity": masks})[0].endswith("farthest: torch")


def test_what_int8_costs_on_held_out_frames_is_told():
    fp32 = {"images": 61, "targets": 86, "f1_3px": 0.977, "iou": None}
    accuracy = {"fp32": fp32, "fp16": fp32, "int8": {**fp32, "f1_3px": 0.9651}}
    (line,) = said({}, accuracy=accuracy)
    assert line == (
        "held-out frames (61 with 86 targets, not the test list): fp32 F1 97.70; int8 F1 96.51"
    )
    masks = {name: {**each, "iou": 0.9} for name, each in accuracy.items()}
    assert "; int8 F1 96.51, IoU 90.00" in said({}, accuracy=masks)[0]
