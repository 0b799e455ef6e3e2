import json
import math
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from irstd_edge.benchmarks.accuracy import Evaluation, ImageResult
from irstd_edge.benchmarks.counts import MaskCounts, PointCounts
from irstd_edge.benchmarks.drift import drift, mcnemar_p_value
from irstd_edge.benchmarks.equal_fa import false_alarm_unit
from irstd_edge.benchmarks.targets import FalseAlarm, Target
from irstd_edge.edge.types import IrstdError

try:
    from scipy.stats import binomtest
except ImportError:  # on a device
    binomtest = None


def image(k: int, found: str, alarms: int = 0, masked: bool = False) -> ImageResult:
    """A frame with a target for each letter of `found`: x is found, - is not."""
    targets = tuple(
        Target(row=8.0 * n, col=5.0, area_px=4, scr=2.5, matched=one == "x", score=0.25)
        for n, one in enumerate(found)
    )
    hits = found.count("x")
    points = PointCounts(hits + alarms, len(found), hits, 0.5 * hits)
    mask = MaskCounts(4096, hits, len(found), 0.0, 1, len(found), hits) if masked else None
    false = tuple(FalseAlarm(20.0 * n, 60.0, 0.6, 1.0) for n in range(alarms))
    return ImageResult(f"f{k}", (64, 64), mask, points, points, targets, false)


def evaluation(*found: str, alarms: int = 0, masked: bool = False) -> Evaluation:
    images = tuple(image(k, each, alarms, masked) for k, each in enumerate(found))
    return Evaluation("native", images)


def test_differences_are_candidate_minus_reference() -> None:
    entry = drift(evaluation("xx", "x-"), evaluation("x-", "xx", alarms=1), ("fp32", "fp16"))
    assert (entry["reference"], entry["candidate"], entry["runtime"]) == (
        *("fp32", "fp16", "onnxruntime"),
    )
    assert entry["f1_3px"] == pytest.approx(6 / 9 - 6 / 7)
    assert entry["f1_5px"] == pytest.approx(6 / 9 - 6 / 7)
    assert entry["pd"] == entry["position_px"] == 0
    assert entry["fa_per_mpx"] == pytest.approx(2e6 / 8192)
    assert (entry["iou"], entry["niou"]) == (None, None)
    assert (entry["targets_lost"], entry["targets_gained"]) == (1, 1)
    assert entry["false_alarms_gained"] == 2
    assert entry["p_value"] == 1


def test_every_target_is_listed_with_its_flip() -> None:
    entry = drift(evaluation("xx-", "-"), evaluation("x-x", "-"), runtime="openvino")
    assert [(t["image"], t["row"], t["flip"]) for t in entry["targets"]] == [
        ("f0", 0.0, None),
        ("f0", 8.0, "lost"),
        ("f0", 16.0, "gained"),
        ("f1", 0.0, None),
    ]
    assert entry["targets"][1] == {
        "image": "f0",
        "row": 8.0,
        "col": 5.0,
        "area_px": 4,
        "scr": 2.5,
        "score_reference": 0.25,
        "score_candidate": 0.25,
        "matched_reference": True,
        "matched_candidate": False,
        "flip": "lost",
    }
    json.dumps(entry, allow_nan=False)


def test_what_is_undefined_on_one_side_has_no_difference() -> None:
    entry = drift(evaluation(""), evaluation("", alarms=1))
    assert (entry["f1_3px"], entry["pd"], entry["targets"]) == (None, None, [])
    assert entry["ci95"] is None
    assert entry["false_alarms_gained"] == 1


@pytest.mark.parametrize(
    ("row", "col", "gained"), [(20, 60, 0), (23, 60, 0), (23.01, 60, 1), (22.5, 62.5, 1)]
)
def test_a_false_alarm_is_new_where_the_reference_had_none_within_three_pixels(
    row: float, col: float, gained: int
) -> None:
    before = evaluation("x", alarms=2)
    moved = replace(before.images[0], false_alarms=(FalseAlarm(row, col, 0.5, 1.0),))
    assert drift(before, Evaluation("native", (moved,)))["false_alarms_gained"] == gained


@pytest.mark.parametrize("at_once", [1, 100, 2**20])
def test_new_false_alarms_are_those_of_a_comparison_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Places of tenths of a pixel, where many distances are 3 px to the bit."""
    random = np.random.default_rng(9)
    sides = [
        [FalseAlarm(float(r), float(c), 0.6, 1.0) for r, c in random.integers(0, 640, (k, 2)) / 10]
        for k in (70, 90)
    ]
    before = evaluation("x")
    known, found = (
        Evaluation("native", (replace(before.images[0], false_alarms=tuple(side)),))
        for side in sides
    )
    expected = sum(
        all(math.hypot(one.row - each.row, one.col - each.col) > 3 for each in sides[0])
        for one in sides[1]
    )
    monkeypatch.setattr("irstd_edge.benchmarks.drift.DISTANCES", at_once)
    assert 0 < expected < 90
    assert drift(known, found)["false_alarms_gained"] == expected
    assert drift(before, found)["false_alarms_gained"] == 90
    assert drift(known, before)["false_alarms_gained"] == 0


def test_of_equally_sure_false_alarms_the_largest_come_first() -> None:
    """Those of masks have scores of nearly 1, and Fa counts their pixels."""
    rows = [(0.99999, 4.0), (1.0, 2.0), (0.6, 90.0), (0.9999, 30.0)]
    alarms = tuple(FalseAlarm(4.0 * k, 4.0, *each) for k, each in enumerate(rows))
    before = Evaluation("native", (image(0, "x"),))
    after = Evaluation("native", (replace(image(0, "x"), false_alarms=alarms),))
    assert [a["area_px"] for a in drift(before, after)["false_alarms"]] == [30.0, 4.0, 2.0, 90.0]


def test_thousands_of_false_alarms_are_compared_at_once() -> None:
    known, found = (
        tuple(FalseAlarm(4.0 * (k // 64), left + 4.0 * (k % 64), 0.6, 1.0) for k in range(2600))
        for left in (0.0, 300.0)
    )
    before, after = (
        Evaluation("native", (replace(image(0, "x"), false_alarms=alarms),))
        for alarms in (known, found)
    )
    start = time.perf_counter()
    assert drift(before, after)["false_alarms_gained"] == 2600
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (8, 1, 0.0390625), (3, 3, 1.0)],
)
def test_p_value_is_exact(lost: int, gained: int, expected: float) -> None:
    assert mcnemar_p_value(lost, gained) == expected
    assert mcnemar_p_value(gained, lost) == expected


def test_p_value_counts_what_is_as_one_sided() -> None:
    for lost, gained in product(range(7), range(6)):
        flips = lost + gained
        ways = product((0, 1), repeat=flips)
        extreme = sum(abs(2 * sum(way) - flips) >= abs(lost - gained) for way in ways)
        assert mcnemar_p_value(lost, gained) == pytest.approx(extreme / 2**flips)


def test_p_value_is_that_of_the_binomial_test() -> None:
    for lost, gained in product(range(0, 60, 7), range(0, 50, 3)):
        flips = lost + gained
        tail = sum(math.comb(flips, k) for k in range(min(lost, gained) + 1))
        assert mcnemar_p_value(lost, gained) == min(1.0, 2 * tail / 2**flips)
        if binomtest is not None and flips:
            expected = binomtest(lost, flips).pvalue
            assert mcnemar_p_value(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_p_value_of_thirty_thousand_flips_takes_no_time() -> None:
    start = time.perf_counter()
    p_value = mcnemar_p_value(15_000, 15_010)
    assert time.perf_counter() - start < 1
    assert p_value == pytest.approx(math.erfc(9 / math.sqrt(2 * 30_010)), abs=1e-5)


def test_p_value_stands_a_whole_test_set_of_flips() -> None:
    assert mcnemar_p_value(945, 0) == pytest.approx(2.0**-944)
    assert mcnemar_p_value(470, 475) == pytest.approx(0.896, abs=1e-3)


def test_zero_drift_is_zero_in_every_sense() -> None:
    one = evaluation(*["xx-", "x"] * 10, alarms=1, masked=True)
    entry = drift(one, one)
    assert {entry[name] for name in ("iou", "niou", "pd", "fa_per_mpx", "f1_3px", "f1_5px")} == {0}
    assert entry["ci95"] == [0, 0]
    assert entry["p_value"] == 1


def test_the_interval_holds_the_difference_and_is_repeatable() -> None:
    before, after = evaluation(*["x"] * 80), evaluation(*["x"] * 72, *["-"] * 8)
    entry = drift(before, after)
    low, high = entry["ci95"]
    assert low < entry["f1_3px"] < high < 0
    assert drift(before, after)["ci95"] == [low, high]


def test_the_interval_is_of_pd_for_masks_and_of_f1_for_points() -> None:
    points = drift(evaluation(*["x"] * 50), evaluation(*["x"] * 50, alarms=1))
    assert points["ci95"] == [pytest.approx(-1 / 3)] * 2
    masks = [evaluation(*["x"] * 50, alarms=n, masked=True) for n in (0, 1)]
    assert drift(*masks)["ci95"] == [0, 0]


def test_every_difference_has_an_interval_beside() -> None:
    before, after = ["xx-", "x"] * 10, ["x--", "x"] * 10
    masks = drift(evaluation(*before, masked=True), evaluation(*after, masked=True))
    assert set(masks["ci95_of"]) == {"iou", "niou", "pd", "fa_per_mpx", "f1_3px", "f1_5px"}
    assert masks["ci95_of"]["pd"] == masks["ci95"]
    for name, (low, high) in masks["ci95_of"].items():
        assert low <= masks[name] <= high, name
    points = drift(evaluation(*before), evaluation(*after))
    assert points["ci95_of"]["iou"] is None
    assert points["ci95_of"]["f1_3px"] == points["ci95"]
    low, high = points["ci95_of"]["pd"]
    assert low < points["pd"] <= high


def test_a_few_frames_say_nothing_of_chance() -> None:
    """However often they are drawn: of one frame that lost a target, every draw lost it."""
    few = drift(evaluation(*["xx"] * 19, masked=True), evaluation(*["x-"] * 19, masked=True))
    assert few["targets_lost"] == 19 and few["ci95"] is None
    assert set(few["ci95_of"].values()) == {None}
    assert all(entry["ci95"] is None for entry in few["pd_at_fa"])
    enough = drift(evaluation(*["xx"] * 20, masked=True), evaluation(*["x-"] * 20, masked=True))
    assert enough["ci95"] == [-0.5, -0.5]


@pytest.mark.parametrize("masked", [True, False])
def test_targets_of_one_frame_say_nothing_of_chance(masked: bool) -> None:
    """A third of the draws are without that frame; the others all say the same."""
    rest = [""] * 39
    one = drift(evaluation("x", *rest, masked=masked), evaluation("-", *rest, masked=masked))
    assert one["targets_lost"] == 1 and one["ci95"] is None
    assert one["ci95_of"]["pd"] is None and one["ci95_of"]["fa_per_mpx"] == [0.0, 0.0]


@pytest.mark.parametrize("masked", [True, False])
def test_it_says_whether_it_is_of_masks_also_where_nothing_is_defined(masked: bool) -> None:
    empty = evaluation(*[""] * 3, masked=masked)
    entry = drift(empty, empty)
    assert entry["iou"] is None and entry["masked"] is masked
    assert false_alarm_unit(entry) == ("px per Mpx" if masked else "per Mpx")


def test_flips_are_told_by_size_and_by_contrast() -> None:
    """All targets of these frames have 4 px and an SCR of 2.5."""
    entry = drift(evaluation("xx-", "x"), evaluation("--x", "x"))
    names = ("above", "up_to", "targets", "lost", "gained")
    assert [tuple(each[name] for name in names) for each in entry["by_area"]] == [
        (0, 9, 4, 2, 1),
        (9, 25, 0, 0, 0),
        (25, 50, 0, 0, 0),
        (50, None, 0, 0, 0),
    ]
    assert [each["lost"] for each in entry["by_scr"]] == [0, 2, 0, 0]


def test_without_curves_pd_is_not_compared_at_equal_false_alarms() -> None:
    assert drift(evaluation("x"), evaluation("x"))["pd_at_fa"] == []


def test_the_interval_of_pd_is_as_wide_as_theory_says() -> None:
    random = np.random.default_rng(3)
    found = ["x" if one else "-" for one in random.random(400) < 0.9]
    before = evaluation(*["x"] * 400, masked=True)
    low, high = drift(before, evaluation(*found, masked=True))["ci95"]
    share = found.count("x") / 400
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / 400) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (evaluation("x"), "2 frames against 1"),
        (evaluation("x", "xx"), "frame f1 is not f1, or differs"),
        (Evaluation("paper256", evaluation("x", "x").images), "protocols native and paper256"),
        (Evaluation("native", evaluation("x", "x").images[::-1]), "frame f0 is not f1"),
        (evaluation("x", "x", masked=True), "frame f0 is not f0, or differs"),
    ],
)
def test_other_frames_do_not_compare(other: Evaluation, message: str) -> None:
    with pytest.raises(IrstdError, match=f"drift: {message}.*same data"):
        drift(evaluation("x", "x"), other)
