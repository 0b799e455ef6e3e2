import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from irstd_edge.benchmarks.bench_file import told_apart
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
    """INT8 beside FP32 at 10 fps on onnxruntime, each timed in 20 equal rounds."""

    def made(
        spots: list[Spot], fps: float | None = 29.0, runtime: str = "onnxruntime"
    ) -> dict[str, Any]:
        targets = [
            make.target(k, flip, area_px=area_px, scr=scr)
            for k, (flip, area_px, scr) in enumerate(spots)
        ]
        slow, fast = [100.0] * 20, [1000 / (fps or 10.0)] * 20
        variants = [
            make.variant("fp32", fps=10.0, infer_ms=slow),
            make.variant("int8", runtime, fps=fps, infer_ms=fast),
        ]
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
            "(lost: 1 of 4 px at SCR 1.4), 2.90x ±0.01 faster than FP32: ship it",
        ),
        (
            KEPT,
            5.0,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 944 targets, "
            "2.00x ±0.01 slower than FP32: no gain here, ship FP32",
        ),
        (
            [*KEPT, ("gained", 4, 1.4)],
            10.2,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 944 targets (gained: 1), "
            "1.02x ±0.01 over FP32: no gain here, ship FP32",
        ),
        (
            [*KEPT, ("lost", 4, 1.44), ("lost", 12, 0.5), ("lost", None, None)],
            29.0,
            FAILED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 947 targets "
            "(lost: 3 of up to 12 px at SCR up to 1.4), 2.90x ±0.01 faster than FP32: "
            "do not ship it, the gate failed (drift.iou: worse)",
        ),
        (
            [*KEPT, ("lost", None, None)],
            None,
            PASSED,
            "p2p: INT8 on onnxruntime keeps 944 of FP32's 945 targets (lost: 1), "
            "speed not measured: time both before you ship it",
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
        "1.11x ±0.01 slower than FP32 on onnxruntime: no gain here, ship FP32 on onnxruntime"
    )


def test_what_failed_of_another_variant_is_told_and_does_not_hold_this_one_back(
    make_bench: MakeBench,
) -> None:
    flips = Check("drift.targets_flipped", "p2p", "int8", "openvino", False, "+0.0076")
    assert summaries(make_bench(KEPT), Verdict((flips,)))[0].endswith(
        "ship it; the gate failed int8 on openvino (drift.targets_flipped: +0.0076)"
    )
    both = Verdict((flips, *FAILED.checks))
    assert summaries(make_bench(KEPT), both)[0].endswith(
        "do not ship it, the gate failed (drift.iou: worse)"
    )


def test_a_gate_that_failed_as_a_whole_ships_nothing(make_bench: MakeBench) -> None:
    whole = Verdict((Check("gate.baseline", None, None, None, False, "give --baseline"),))
    assert summaries(make_bench(KEPT), whole)[0].endswith(
        "do not ship it, the gate failed (gate.baseline: give --baseline)"
    )
    twice = Verdict(FAILED.checks * 2)
    assert summaries(make_bench(KEPT), twice)[0].endswith("(drift.iou: worse, and 1 more)")
    second = Verdict((Check("drift.iou", "p2p", "int8", "onnxruntime", False, "worse", place=2),))
    bench = make_bench(KEPT)
    bench["results"] *= 2
    first, last = summaries(bench, second)
    assert first.startswith("p2p #1: INT8") and first.endswith("ship it")
    assert last.startswith("p2p #2: INT8") and last.endswith("(drift.iou: worse)")
    assert [each["model"] for each in told_apart(bench["results"])] == ["p2p #1", "p2p #2"]
    assert [each["model"] for each in told_apart(bench["results"][:1])] == ["p2p"]
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
    result = none["results"][0]
    result["drift"] = []
    for variant in result["variants"]:
        variant["accuracy"] = None
    assert summaries(none, PASSED) == (
        "p2p: INT8 on onnxruntime 2.90x ±0.01 faster than FP32; "
        "no drift was measured: bench with --data",
    )
    result["variants"] = result["variants"][:1]
    assert summaries(none, PASSED) == ("p2p: no drift was measured; bench with --data",)


def test_without_a_reference_it_says_what_brings_one(make: SimpleNamespace) -> None:
    engine = make.variant("int8-fp16", "tensorrt", device="cuda", fps=90.0)
    assert summaries(make.bench("p2p", [engine], []), PASSED) == (
        "p2p: INT8-FP16 on tensorrt 90 FPS, no FP32 beside it; no fp32 was measured to compare it "
        "with: compile BUNDLE --variant fp32, then bench again",
    )


def test_fp32_alone_is_not_told_to_bring_data(make: SimpleNamespace) -> None:
    bench = make.bench("p2p", [make.variant("fp32")], [])
    assert summaries(bench, PASSED) == (
        "p2p: FP32 alone was measured; bench a cheaper variant beside it",
    )


def test_a_reference_on_another_runtime_is_named(make: SimpleNamespace) -> None:
    engine = make.variant("int8-fp16", "tensorrt", device="cuda", fps=90.0)
    names = {"candidate": "int8-fp16", "reference_runtime": "onnxruntime"}
    drifts = [make.drift([make.target(), make.target(1, "lost")], "tensorrt", **names)]
    (sentence,) = summaries(make.bench("p2p", [make.variant("fp32"), engine], drifts), PASSED)
    assert sentence == (
        "p2p: INT8-FP16 on tensorrt keeps 1 of the 2 targets of FP32 on onnxruntime "
        "(lost: 1 of 5 px at SCR 0.8), 90 FPS, no FP32 beside it: time both before you ship it"
    )


def timed(make: SimpleNamespace, times: dict[str, float], noise: float = 0.02) -> dict[str, Any]:
    """Variants by their median time in ms, timed in 100 rounds, and no target lost."""
    random = np.random.default_rng(3)
    variants = []
    for name, ms in times.items():
        rounds = (ms * (1 + noise * random.standard_normal(100))).clip(0.01)
        p50 = float(np.median(rounds))
        variants.append(make.variant(name, p50=p50, infer_ms=rounds.tolist()))
    drifts = [make.drift([make.target()], candidate=name) for name in times if name != "fp32"]
    bench: dict[str, Any] = make.bench("p2p", variants, drifts)
    return bench


@pytest.mark.parametrize(
    ("times", "noise", "ending"),
    [
        ({"fp32": 29.0, "int8": 10.0}, 0.02, "2.89x ±0.02 faster than FP32: ship it"),
        ({"fp32": 29.0, "int8": 10.0}, 0.2, "2.8x ±0.2 faster than FP32: ship it"),
        (
            {"fp32": 20.0, "fp16": 10.4, "int8": 10.0},
            0.05,
            "1.05x ±0.01 over FP16: no gain here, ship FP16",
        ),
        ({"fp32": 10.0, "int8": 9.2}, 0.02, "1.08x ±0.01 faster than FP32: ship it"),
        (
            {"fp32": 10.0, "int8": 9.2},
            0.4,
            "1.0x ±0.1 over FP32: too noisy to tell, bench again with more --samples",
        ),
        (
            {"fp32": 10.0, "int8": 20.0},
            0.02,
            "2.01x ±0.01 slower than FP32: no gain here, ship FP32",
        ),
    ],
)
def test_a_gain_has_an_interval_and_counts_from_its_lower_end(
    make: SimpleNamespace, times: dict[str, float], noise: float, ending: str
) -> None:
    (sentence,) = summaries(timed(make, times, noise), PASSED)
    assert sentence == f"p2p: INT8 on onnxruntime keeps 1 of FP32's 1 targets, {ending}"


def test_a_lopsided_interval_is_told_by_its_ends(make: SimpleNamespace) -> None:
    bench = timed(make, {"fp32": 10.0, "int8": 8.0}, 0.01)
    slow = bench["results"][0]["variants"][0]["infer_ms"]
    slow[:46] = [24.0] * 46  # a busy machine: the median stays low, that of some draws does not
    (sentence,) = summaries(bench, PASSED)
    told = re.search(r"1\.(\d\d)x \(1\.(\d\d) to (\d\.\d\d)\) faster than FP32: ship it", sentence)
    assert told and int(told[2]) <= int(told[1]) and float(told[3]) > 1.5


def test_fp16_that_the_gate_refused_is_no_rival(make: SimpleNamespace) -> None:
    bench = timed(make, {"fp32": 20.0, "fp16": 10.4, "int8": 10.0})
    worse = Verdict((Check("drift.iou", "p2p", "fp16", "onnxruntime", False, "worse"),))
    assert "2.00x ±0.01 faster than FP32" in summaries(bench, worse)[0]


@pytest.mark.parametrize(
    ("rounds", "advice"),
    [
        (0, "too few times to tell, bench again with more --samples"),
        (19, "too few times to tell, bench again with more --samples"),
        (20, "ship it"),
    ],
)
@pytest.mark.parametrize("ms", [10.0, 40.0])
def test_too_few_times_ship_nothing(
    make: SimpleNamespace, rounds: int, advice: str, ms: float
) -> None:
    times = {"fp32": 30.0, "int8": ms}
    variants = [make.variant(name, p50=t, infer_ms=[t] * rounds) for name, t in times.items()]
    bench = make.bench("p2p", variants, [make.drift([make.target()])])
    expected = "no gain here, ship FP32" if rounds == 20 and ms > 30 else advice
    assert summaries(bench, PASSED)[0].endswith(f"FP32: {expected}")
