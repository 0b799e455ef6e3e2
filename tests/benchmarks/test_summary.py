from typing import Any

import pytest

from irstd_edge.benchmarks.summary import summaries
from irstd_edge.benchmarks.verdict import Check, Verdict

PASSED = Verdict((Check("drift.iou", "p2p", "int8", "onnxruntime", True, "fine"),))
FAILED = Verdict((Check("drift.iou", "p2p", "int8", "onnxruntime", False, "worse"),))


def variant(name: str, runtime: str, fps: float | None) -> dict[str, Any]:
    place = {"runtime": runtime, "device": "cpu", "measured": True}
    return {"name": name, **place, "fps": fps, "accuracy": None}


def target(flip: str | None, area_px: int | None, scr: float | None) -> dict[str, Any]:
    place = {"image": "a", "row": 1.0, "col": 2.0, "area_px": area_px, "scr": scr}
    found = {"matched_reference": flip != "gained", "matched_candidate": flip != "lost"}
    return {**place, **found, "flip": flip}


def bench(*targets: dict[str, Any], fps: float | None = 29.0, runtime: str = "onnxruntime") -> Any:
    entry = {
        "reference": "fp32",
        "candidate": "int8",
        "runtime": runtime,
        **dict.fromkeys(("iou", "f1_3px", "fa_per_mpx"), 0.0),
        "targets_lost": sum(each["flip"] == "lost" for each in targets),
        "targets_gained": sum(each["flip"] == "gained" for each in targets),
        "targets": list(targets),
    }
    variants = [variant("fp32", "onnxruntime", 10.0), variant("int8", runtime, fps)]
    result = {"model": "p2p", "variants": variants, "drift": [entry]}
    return {"schema": "irstd-edge/bench/1", "machine": {}, "results": [result]}


KEPT = [target(None, 9, 5.0)] * 944


@pytest.mark.parametrize(
    ("targets", "fps", "verdict", "expected"),
    [
        (
            [*KEPT, target("lost", 4, 1.4)],
            29.0,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 945 targets "
            "(lost: 1 of 4 px at SCR 1.4), 2.9x faster than FP32: ship it",
        ),
        (
            KEPT,
            5.0,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 944 targets, "
            "2.0x slower than FP32: no gain here, keep FP32",
        ),
        (
            [*KEPT, target("gained", 4, 1.4)],
            10.2,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 944 targets (gained: 1), "
            "as fast as FP32: no gain here, keep FP32",
        ),
        (
            [*KEPT, target("lost", 4, 1.44), target("lost", 12, 0.5), target("lost", None, None)],
            29.0,
            FAILED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 947 targets "
            "(lost: 3 of up to 12 px at SCR up to 1.4), 2.9x faster than FP32: "
            "do not ship it, the gate failed",
        ),
        (
            [*KEPT, target("lost", None, None)],
            None,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 945 targets (lost: 1), "
            "speed not measured: time it before you ship it",
        ),
    ],
)
def test_the_sentence(
    targets: list[dict[str, Any]], fps: float | None, verdict: Verdict, expected: str
) -> None:
    assert summaries(bench(*targets, fps=fps), verdict) == (expected,)


def test_it_is_compared_with_the_fastest_fp32_of_any_runtime() -> None:
    slow = bench(*KEPT, fps=9.0, runtime="openvino")
    slow["results"][0]["variants"].append(variant("fp32", "openvino", 3.0))
    (sentence,) = summaries(slow, PASSED)
    assert "INT8 on openvino" in sentence
    assert sentence.endswith("1.1x slower than FP32: no gain here, keep FP32")


def test_a_gate_that_failed_as_a_whole_ships_nothing() -> None:
    whole = Verdict((Check("gate.baseline", None, None, None, False, "give --baseline"),))
    assert summaries(bench(*KEPT), whole)[0].endswith("do not ship it, the gate failed")
    other = Verdict((Check("drift.iou", "mshnet", "int8", "onnxruntime", False, "worse"),))
    assert summaries(bench(*KEPT), other)[0].endswith("ship it")


def test_a_file_that_does_not_say_what_was_found_still_counts_losses() -> None:
    plain = bench(target(None, 9, 5.0), target("lost", 4, 1.4))
    for row in plain["results"][0]["drift"][0]["targets"]:
        del row["matched_reference"]
    assert "loses 1 of 2 targets (lost: 1 of 4 px at SCR 1.4)" in summaries(plain, PASSED)[0]


def test_without_drift_it_says_so() -> None:
    none = bench()
    none["results"][0]["drift"] = []
    assert summaries(none, PASSED) == ("p2p: no drift was measured; bench with --data",)
