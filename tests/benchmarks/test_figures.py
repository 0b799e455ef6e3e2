import math
from dataclasses import replace

import numpy as np
import pytest
from gate_benches import Make, entry, failed, int8, lose_everywhere, skipped

from irstd_edge.benchmarks.bench_file import bench_from_json
from irstd_edge.benchmarks.curves import HITS, PREDICTED, Curve, curve_of, thresholds_with
from irstd_edge.benchmarks.equal_fa import pd_at_fa
from irstd_edge.benchmarks.figures import equal_fa_between, told
from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits


def test_iou_is_not_asked_of_points(make_bench: Make) -> None:
    verdict = judge(make_bench("p2p"), Limits(), strict=True)
    assert verdict.passed
    assert "drift.iou" not in [check.name for check in verdict.checks]
    assert len(verdict.checks) == 4


@pytest.mark.parametrize("name", ["f1_3px", "iou", "fa_per_mpx"])
def test_an_undefined_metric_is_red(make_bench: Make, name: str) -> None:
    bench = make_bench()
    int8(bench)["accuracy"] |= {name: None, "undefined": [name]}
    entry(bench)[name] = None
    verdict = judge(bench, Limits())
    assert failed(verdict) == [f"drift.{name}"]
    assert "undefined" in [check.why for check in verdict.checks if not check.passed][0]


def test_a_null_that_nobody_explains_is_red(make_bench: Make) -> None:
    bench = make_bench("p2p")
    entry(bench)["f1_3px"] = None
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["f1_3px"] = None
    assert failed(judge(bench, Limits())) == ["drift.f1_3px"]
    lone = make_bench()
    int8(lone)["accuracy"]["iou"] = entry(lone)["iou"] = None
    assert failed(judge(lone, Limits())) == ["drift.iou"]


def test_a_file_that_does_not_say_what_was_found_is_judged_by_its_pd(make_bench: Make) -> None:
    old = make_bench()
    for row in entry(old)["targets"]:
        del row["matched_reference"], row["matched_candidate"]
    verdict = judge(make_bench(change=lose_everywhere), Limits(), old)
    assert failed(verdict) == ["baseline.net_targets_lost"] * 2
    assert skipped(verdict) == ["baseline.targets_flipped"] * 2


def test_pd_at_equal_false_alarms_is_told_by_two_curves_as_by_a_drift(
    make_bench: Make,
) -> None:
    random = np.random.default_rng(5)
    for own in (0.3, 0.5, 0.62):
        sides = [curve_of_points(random, each) for each in (own, 0.5)]
        bench = make_bench("p2p")
        for variant, curve in zip(bench["results"][0]["variants"], sides, strict=True):
            variant["accuracy"] |= {"curve": curve.to_json(), "threshold": curve.own}
        before, after = (v.accuracy for v in bench_from_json(bench).results[0].variants)
        assert before is not None and after is not None
        told = pd_at_fa(*sides, np.ones((1, 20)))[0]
        at = equal_fa_between(before, after)
        assert at is not None and at.pd_reference != at.pd_candidate
        assert (at.fa_per_mpx, at.pd_reference, at.pd_candidate) == pytest.approx(
            [told[name] for name in ("fa_per_mpx", "pd_reference", "pd_candidate")], abs=1e-6
        )
        assert equal_fa_between(before, replace(after, curve=())) is None
        loud = replace(after, curve=tuple((t, 1e6 * (t < 1), pd) for t, _, pd in after.curve))
        assert equal_fa_between(before, loud) is not None
        of_masks = replace(loud, metrics={**loud.metrics, "iou": 0.5})
        assert equal_fa_between(before, of_masks) is None
        assert equal_fa_between(before, replace(of_masks, curve=())) is None
        assert equal_fa_between(replace(before, curve=()), after) is None


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.97611, 0.97612), ("0.97611", "0.97612")),
        ((0.9761, 0.9), ("0.9761", "0.9")),
        ((12345.0, 12346.0), ("12345", "12346")),
        ((0.5, 0.5), ("0.5", "0.5")),
        ((27.1 + 1e-12, 27.1), ("27.100000000001", "27.100000000000001")),
        ((1e12, math.inf), ("1e+12", "inf")),
    ],
)
def test_what_differs_is_told_apart(values: tuple[float, ...], texts: tuple[str, ...]) -> None:
    assert told(*values) == texts


def test_changes_have_a_sign_and_no_minus_zero() -> None:
    assert told(-0.0, 1.0, sign="+") == ("+0", "+1")
    assert told(-0.0051, -0.005, sign="+") == ("-0.0051", "-0.005")


def curve_of_points(random: np.random.Generator, own: float) -> Curve:
    """Twenty frames of 64x64 with five targets each; fewer hits and alarms at each threshold."""
    steps = len(thresholds_with(own))
    frames = np.zeros((20, steps, 4), np.int64)
    hits = np.sort(random.integers(0, 6, (20, steps)), axis=1)[:, ::-1]
    frames[:, :, HITS] = hits
    frames[:, :, PREDICTED] = hits + np.sort(random.integers(0, 9, (20, steps)), axis=1)[:, ::-1]
    return curve_of(list(frames), [4096] * 20, [5] * 20, [5] * 20, own, of_masks=False)
