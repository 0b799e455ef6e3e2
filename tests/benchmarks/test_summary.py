from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from irstd_edge.benchmarks.summary import summaries
from irstd_edge.benchmarks.verdict import Check, Verdict

PASSED = Verdict((Check("drift.iou", "p2p", "int8", "onnxruntime", True, "fine"),))
FAILED = Verdict((Check("drift.iou", "p2p", "int8", "onnxruntime", False, "worse"),))


Spot = tuple[str | None, int | None, float | None]
"""What became of a target, its area in pixels, its signal-to-clutter ratio."""
KEPT: list[Spot] = [(None, 9, 5.0)] * 944
MakeBench = Callable[..., dict[str, Any]]


@pytest.fixture
def make_bench(make: SimpleNamespace) -> MakeBench:
    """INT8 beside FP32 at 10 fps on onnxruntime."""

    def made(
        spots: list[Spot], fps: float | None = 29.0, runtime: str = "onnxruntime"
    ) -> dict[str, Any]:
        targets = [
            make.target(k, flip, area_px=area_px, scr=scr)
            for k, (flip, area_px, scr) in enumerate(spots)
        ]
        variants = [make.variant("fp32", fps=10.0), make.variant("int8", runtime, fps=fps)]
        bench: dict[str, Any] = make.bench("p2p", variants, [make.drift(targets, runtime)])
        return bench

    return made


@pytest.mark.parametrize(
    ("spots", "fps", "verdict", "expected"),
    [
        (
            [*KEPT, ("lost", 4, 1.4)],
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
            [*KEPT, ("gained", 4, 1.4)],
            10.2,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 944 targets (gained: 1), "
            "as fast as FP32: no gain here, keep FP32",
        ),
        (
            [*KEPT, ("lost", 4, 1.44), ("lost", 12, 0.5), ("lost", None, None)],
            29.0,
            FAILED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 947 targets "
            "(lost: 3 of up to 12 px at SCR up to 1.4), 2.9x faster than FP32: "
            "do not ship it, the gate failed",
        ),
        (
            [*KEPT, ("lost", None, None)],
            None,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 945 targets (lost: 1), "
            "speed not measured: time it before you ship it",
        ),
    ],
)
def test_the_sentence(
    make_bench: MakeBench,
    spots: list[Spot],
    fps: float | None,
    verdict: Verdict,
    expected: str,
) -> None:
    assert summaries(make_bench(spots, fps=fps), verdict) == (expected,)


def test_it_is_compared_with_the_fastest_fp32_of_any_runtime(
    make: SimpleNamespace, make_bench: MakeBench
) -> None:
    slow = make_bench(KEPT, fps=9.0, runtime="openvino")
    slow["results"][0]["variants"].append(make.variant("fp32", "openvino", fps=3.0))
    (sentence,) = summaries(slow, PASSED)
    assert "INT8 on openvino" in sentence
    assert sentence.endswith(
        "1.1x slower than FP32 on onnxruntime: no gain here, keep FP32 on onnxruntime"
    )


def test_a_gate_that_failed_as_a_whole_ships_nothing(make_bench: MakeBench) -> None:
    whole = Verdict((Check("gate.baseline", None, None, None, False, "give --baseline"),))
    assert summaries(make_bench(KEPT), whole)[0].endswith("do not ship it, the gate failed")
    other = Verdict((Check("drift.iou", "mshnet", "int8", "onnxruntime", False, "worse"),))
    assert summaries(make_bench(KEPT), other)[0].endswith("ship it")


def test_a_file_that_does_not_say_what_was_found_still_counts_losses(
    make_bench: MakeBench,
) -> None:
    plain = make_bench([(None, 9, 5.0), ("lost", 4, 1.4)])
    for row in plain["results"][0]["drift"][0]["targets"]:
        del row["matched_reference"]
    assert "loses 1 of 2 targets (lost: 1 of 4 px at SCR 1.4)" in summaries(plain, PASSED)[0]


def test_without_drift_it_says_so(make_bench: MakeBench) -> None:
    none = make_bench([])
    none["results"][0]["drift"] = []
    assert summaries(none, PASSED) == ("p2p: no drift was measured; bench with --data",)
