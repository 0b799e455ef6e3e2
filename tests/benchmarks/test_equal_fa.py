from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd_edge.benchmarks.bootstrap import RESAMPLES, resamples
from irstd_edge.benchmarks.curves import THRESHOLDS, Curve, curve_of
from irstd_edge.benchmarks.equal_fa import equal_fa_words, pd_at_fa

SHAPE = (100, 100)
Scores = tuple[float, float]
"""Of a frame's target and of its false alarm."""


def curve(frames: Sequence[Scores], own: float = 0.5) -> Curve:
    """Points: a target and a false alarm in each frame of 10^4 pixels."""
    thresholds = np.array(THRESHOLDS)
    counts = []
    for target, alarm in frames:
        hit, false = target > thresholds, alarm > thresholds
        none = np.zeros_like(hit)
        counts.append(np.stack([hit | none, hit, none, none], axis=1).astype(np.int64))
        counts[-1][:, 0] += false
    pixels = [SHAPE[0] * SHAPE[1]] * len(frames)
    return curve_of(counts, pixels, [1] * len(frames), [1] * len(frames), own, of_masks=False)


def compare(reference: Curve, candidate: Curve) -> list[dict[str, Any]]:
    return pd_at_fa(reference, candidate, resamples(len(reference.pixels)))


def shifted(frames: Sequence[Scores], logit: float) -> list[Scores]:
    odds = np.exp(logit) * np.array(frames) / (1 - np.array(frames))
    return [(float(t), float(a)) for t, a in odds / (1 + odds)]


RANDOM = np.random.default_rng(5)
FRAMES = [(float(t), float(a)) for t, a in RANDOM.beta((6, 2), (2, 6), (400, 2))]


def sentence(entries: list[dict[str, Any]], pd: float, **changes: Any) -> str:
    names = {"reference": "fp32", "candidate": "int8", "iou": None, "pd": pd}
    words = equal_fa_words({**names, **changes, "pd_at_fa": entries})
    assert words is not None
    return words


def test_no_drift_is_no_difference_at_any_rate() -> None:
    entries = compare(curve(FRAMES), curve(FRAMES))
    assert entries[0]["own"] and not any(entry["own"] for entry in entries[1:])
    for entry in entries:
        assert entry["pd_reference"] == entry["pd_candidate"]
        assert entry["threshold_reference"] == entry["threshold_candidate"]
        assert entry["ci95"] == [0, 0]
    assert sentence(entries, 0.0).endswith("nothing is lost.")


def test_a_threshold_that_moved_is_told_from_information_that_is_lost() -> None:
    """Four steps of the thresholds down: at 0.5 targets go, at equal false alarms they are back."""
    (own, *_) = entries = compare(curve(FRAMES), curve(shifted(FRAMES, -0.4)))
    assert own["pd_candidate"] == own["pd_reference"]
    assert (own["threshold_reference"], own["threshold_candidate"]) == (
        0.5,
        pytest.approx(1 / (1 + np.exp(0.4)), abs=1e-6),
    )
    assert sentence(entries, -0.05) == (
        f"At the false alarms of fp32, {own['fa_per_mpx']:.2f} per Mpx: fp32 finds "
        f"{100 * own['pd_reference']:.2f} % (threshold 0.500), int8 finds "
        f"{100 * own['pd_reference']:.2f} % (threshold 0.401): "
        "the threshold moved, the information is there."
    )

    flat = [{**own, "threshold_candidate": own["threshold_reference"]}, *entries[1:]]
    words = sentence(flat, -0.05)
    assert words.endswith("nothing is lost at this threshold, only at the bundle's own.")

    drowned = [(0.02 if k % 10 == 0 else t, a) for k, (t, a) in enumerate(FRAMES)]
    (own, *_) = entries = compare(curve(FRAMES), curve(drowned))
    assert own["pd_candidate"] < own["pd_reference"] - 0.05
    assert own["ci95"][1] < 0
    change = own["pd_candidate"] - own["pd_reference"]
    points = f"−{-100 * change:.2f}"
    assert sentence(entries, change).endswith(
        f": the information is lost, {points} points that no threshold brings back."
    )
    assert sentence(entries, -0.5).endswith(
        ": the information is lost, of the −50.00 points at the old threshold, no threshold "
        f"brings back {points}."
    )
    assert "px per Mpx" in sentence(entries, -0.09, iou=-0.1)


def test_one_target_of_many_may_be_chance() -> None:
    one = [(0.02 if k == 7 else t, a) for k, (t, a) in enumerate(FRAMES)]
    entries = compare(curve(FRAMES), curve(one))
    assert sentence(entries, -1 / 400).endswith(
        "−0.25 points that no threshold brings back, no more than chance gives on these frames."
    )


def test_round_rates_are_there_where_both_sides_pass_them() -> None:
    """100 frames are one Mpx: k of them have a false alarm at 0.3, one at 0.7."""
    frames = [(0.9, 0.7 if k == 0 else 0.3 if k < 8 else 0.001) for k in range(100)]
    entries = compare(curve(frames), curve(frames))
    assert [(e["fa_per_mpx"], e["own"]) for e in entries] == [
        (1.0, True),
        (1.0, False),
        (5.0, False),
    ]
    clean = [(0.9, 0.001)] * 100
    assert [e["fa_per_mpx"] for e in compare(curve(frames), curve(clean))] == [1.0]
    assert [e["fa_per_mpx"] for e in compare(curve(clean), curve(frames))] == [0.0]


def test_a_candidate_that_cannot_get_so_few_false_alarms_finds_nothing() -> None:
    loud = [(0.9, 0.99999)] * 100
    (own, *_) = compare(curve([(0.9, 0.1)] * 100), curve(loud))
    assert (own["pd_reference"], own["pd_candidate"]) == (1.0, 0.0)
    assert own["threshold_candidate"] == 1.0


def mask_curve(alarm_px: Sequence[int]) -> Curve:
    """20 frames: a target found up to 0.999; an alarm of so many pixels to 0.6 and to 0.99."""
    thresholds = np.array(THRESHOLDS)
    found = (thresholds < 0.999).astype(np.int64)
    false = np.select([thresholds < 0.6, thresholds < 0.99], alarm_px, 0)
    counts = [np.stack([found + (false > 0), found, found, false], axis=1)] * 20
    return curve_of(counts, [10_000] * 20, [1] * 20, [1] * 20, 0.5, of_masks=True)


def test_a_mask_that_breaks_at_high_thresholds_is_not_held_to_them() -> None:
    (own, *_) = compare(mask_curve((4, 6)), mask_curve((4, 6)))
    assert (own["pd_reference"], own["pd_candidate"]) == (1.0, 1.0)
    assert own["threshold_reference"] == own["threshold_candidate"] == THRESHOLDS[0]
    (own, *_) = compare(mask_curve((4, 6)), mask_curve((5, 6)))
    quiet = next(threshold for threshold in THRESHOLDS if threshold >= 0.99)
    assert (own["threshold_candidate"], own["pd_candidate"]) == (quiet, 1.0)


def test_masks_that_get_down_to_a_rate_by_finding_nothing_are_not_compared_at_it() -> None:
    """One more saturated blob is no loss of every target, nor is a draw that holds more of them."""
    thresholds = np.array(THRESHOLDS)

    def saturated(blobs: int) -> Curve:
        found = (thresholds < 1).astype(np.int64)
        with_blob = np.stack([2 * found, found, found, 5 * found], axis=1)
        without = np.stack([found, found, found, 0 * found], axis=1)
        counts = [with_blob] * blobs + [without] * (40 - blobs)
        return curve_of(counts, [10_000] * 40, [1] * 40, [1] * 40, 0.5, of_masks=True)

    assert compare(saturated(4), saturated(5)) == []
    (own, *_) = compare(saturated(5), saturated(4))
    assert (own["pd_reference"], own["pd_candidate"], own["ci95"]) == (1.0, 1.0, None)
    lower = {**own, "pd_candidate": 0.975}
    assert sentence([lower], -0.025, iou=0.0).endswith(
        "−2.50 points that no threshold brings back; these frames do not tell whether by chance."
    )


def test_without_targets_or_curves_there_is_nothing_to_compare() -> None:
    some = curve(FRAMES)
    none = replace(some, targets=np.zeros_like(some.targets))
    assert pd_at_fa(None, some, np.ones((1, 400))) == []
    assert pd_at_fa(some, None, np.ones((1, 400))) == []
    assert compare(none, none) == []
    assert equal_fa_words({"pd_at_fa": []}) is None
    assert equal_fa_words({}) is None


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Targets lost at random, without a false alarm: a share with its binomial spread."""
    before = [(0.9, 0.001)] * 400
    lost = np.random.default_rng(3).random(400) < 0.1
    (own, *_) = compare(curve(before), curve([(0.001 if one else 0.9, 0.001) for one in lost]))
    share, (low, high) = lost.mean(), own["ci95"]
    assert low < -share < high
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / 400) ** 0.5, rel=0.1)


probabilities = st.floats(0.001, 0.999)


@settings(database=None, deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(probabilities, probabilities), min_size=1, max_size=6),
    st.lists(st.tuples(probabilities, probabilities), min_size=6, max_size=6),
    st.sampled_from(THRESHOLDS[:-1]),
)
def test_each_side_takes_the_lowest_threshold_that_stays_within_the_rate(
    before: list[Scores], after: list[Scores], own: float
) -> None:
    after = after[: len(before)]
    entries = compare(curve(before, own), curve(after, own))
    mpx = len(before) * SHAPE[0] * SHAPE[1] / 1e6
    rate = sum(alarm > own for _, alarm in before) / mpx
    assert entries[0]["fa_per_mpx"] == pytest.approx(rate)
    for entry in entries:
        for side, frames in (("reference", before), ("candidate", after)):
            at = next(
                threshold
                for threshold in THRESHOLDS
                if sum(alarm > threshold for _, alarm in frames) / mpx <= entry["fa_per_mpx"] + 1e-6
            )
            assert entry[f"threshold_{side}"] == at
            assert entry[f"pd_{side}"] == sum(t > at for t, _ in frames) / len(frames)


def test_draws_are_of_as_many_frames_and_repeatable() -> None:
    drawn = resamples(7)
    assert drawn.shape == (RESAMPLES, 7)
    assert set(drawn.sum(axis=1)) == {7}
    assert (drawn == resamples(7)).all()
    assert (drawn != drawn[0]).any()
