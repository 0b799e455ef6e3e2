import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from irstd_edge.benchmarks.accuracy import Evaluation, evaluate
from irstd_edge.benchmarks.blob_curve import blob_counts, blobs_above
from irstd_edge.benchmarks.curves import THRESHOLDS, threshold_to_predict, thresholds_with
from irstd_edge.benchmarks.matching import components_of_mask, match_masks, match_points
from irstd_edge.edge.detect import predict_from_outputs
from irstd_edge.edge.types import DecodeSpec, Frame, Prediction, Sample

SIZE = 24
LEVELS = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
masks = hnp.arrays(bool, (SIZE, SIZE), elements=st.booleans(), fill=st.just(False))


@st.composite
def maps(draw: st.DrawFn) -> np.ndarray:
    """A map of distinct probabilities, of which few or many are above the lowest level."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = (random.permutation(SIZE * SIZE) + 1) / (SIZE * SIZE + 2)
    smooth = draw(st.sampled_from([1, 2, 4]))
    coarse = values.reshape(SIZE, SIZE)[:: smooth * 2, :: smooth * 2]
    grown = np.kron(coarse, np.ones((2 * smooth, 2 * smooth)))[:SIZE, :SIZE]
    mixed = grown * 0.9 + values.reshape(SIZE, SIZE) * 0.1
    mixed[random.random((SIZE, SIZE)) < draw(st.sampled_from([0.0, 0.5, 0.9, 0.99]))] *= 0.05
    return np.asarray(mixed, np.float32)


def plain(probability: np.ndarray, truth: np.ndarray, points: np.ndarray) -> list[list[int]]:
    """The counts of one frame, threshold by threshold, as a single mask is scored."""
    rows = []
    for level in LEVELS[:, None]:
        mask = probability > level
        match = match_masks(mask, truth)
        blobs = components_of_mask(mask)
        best = [probability[blobs.labels == k + 1].max() for k in range(len(blobs.areas_px))]
        scored = np.column_stack([blobs.centroids, np.array(best)]).reshape(-1, 3)
        near = match_points(scored, points, 3).counts
        counts = match.counts
        rows.append([near.predicted, near.matched, counts.matched, counts.false_px])
    return rows


@settings(database=None, deadline=None, max_examples=200)
@given(maps(), masks)
def test_all_thresholds_at_once_are_each_threshold_by_itself(
    probability: np.ndarray, truth: np.ndarray
) -> None:
    points = components_of_mask(truth).centroids
    counts = blob_counts(probability, LEVELS, points, points)
    assert counts.tolist() == plain(probability, truth, points)


@settings(database=None, deadline=None, max_examples=50)
@given(maps())
def test_blobs_are_those_of_each_threshold_in_their_order(probability: np.ndarray) -> None:
    found = blobs_above(probability, LEVELS)
    for index, level in enumerate(LEVELS[:, None]):
        expected, own = components_of_mask(probability > level), found.level == index
        assert found.centroids[own].tolist() == expected.centroids.tolist()
        assert found.areas_px[own].tolist() == expected.areas_px.tolist()


def test_a_frame_with_nothing_in_it_has_no_counts() -> None:
    nothing = np.zeros((8, 8), np.float32)
    points = np.zeros((0, 2))
    assert not blob_counts(nothing, LEVELS, points, points).any()
    assert not blob_counts(nothing, LEVELS, points, None).any()


def sample(name: str, points: list[list[float]], masked: bool) -> Sample:
    mask = np.zeros((64, 64), bool)
    for row, col in points:
        mask[int(row), int(col)] = True
    labels = np.array(points, np.float32).reshape(-1, 2)
    counts = np.random.default_rng(1).integers(90, 110, (64, 64)).astype(np.uint8)
    return Sample(Frame(name, counts, 8), mask if masked else None, labels)


SAMPLES = [sample("a", [[10, 10], [40, 40]], True), sample("b", [[20, 20]], True)]


def logits_of(frame: Frame, step: int) -> np.ndarray:
    """Peaks: a's targets at 3 and -1 with a false one at 1; b's 2 px off at 0.5."""
    peaks = {"a": [(10, 10, 3.0), (40, 40, -1.0), (55, 20, 1.0)], "b": [(20, 22, 0.5)]}
    logits = np.full((1, 64 // step, 64 // step), -9.0, np.float32)
    for row, col, value in peaks[frame.name]:
        logits[0, row // step, col // step] = value
    return logits


def predicted(frame: Frame, decode: DecodeSpec, threshold: float) -> Prediction:
    step = 1 if decode.kind == "mask" else 2
    outputs = [logits_of(frame, step)]
    if step == 2:
        outputs.append(np.zeros((3, 32, 32), np.float32))
    return predict_from_outputs(outputs, (64, 64), DecodeSpec(decode.kind, threshold))


def evaluated(kind: str, own: float) -> Evaluation:
    decode = DecodeSpec(kind, own)
    low = threshold_to_predict(decode.kind, decode.threshold)
    return evaluate(SAMPLES, lambda frame: predicted(frame, decode, low), "native", own)


@pytest.mark.parametrize("kind", ["mask", "heatmap"])
@pytest.mark.parametrize("own", [0.01, 0.2, 0.45, 0.5, 0.7, 0.97])
def test_a_curve_goes_through_the_scores_at_every_own_threshold(kind: str, own: float) -> None:
    decode = DecodeSpec(kind, own)
    found = evaluated(kind, own).accuracy()
    alone = evaluate(SAMPLES, lambda frame: predicted(frame, decode, own), "native").accuracy()
    curve = found.pop("curve")
    assert found.pop("threshold") == own
    assert found == alone
    at = curve["threshold"].index(own)
    for name in ("precision_3px", "recall_3px", "pd", "fa_per_mpx"):
        expected = None if found[name] is None else pytest.approx(found[name], abs=1e-6)
        assert curve[name][at] == expected, name


def test_a_curve_is_counted_out() -> None:
    curve = evaluated("heatmap", 0.5).accuracy()["curve"]
    rows = dict(
        zip(
            curve["threshold"],
            zip(curve["precision_3px"], curve["recall_3px"], curve["fa_per_mpx"], strict=True),
            strict=True,
        )
    )
    alarm = pytest.approx(1e6 / (2 * 64 * 64), abs=1e-6)
    assert rows[THRESHOLDS[0]] == (0.75, 1.0, alarm)  # all of them, one false
    assert rows[0.5] == (pytest.approx(2 / 3, abs=1e-6), pytest.approx(2 / 3, abs=1e-6), alarm)
    assert rows[0.904651] == (1.0, pytest.approx(1 / 3, abs=1e-6), 0.0)  # logit 2.25: a's first
    assert rows[1.0] == (None, 0.0, 0.0)
    json.dumps(curve, allow_nan=False)


def test_labels_that_are_points_give_masks_a_curve_of_points() -> None:
    decode = DecodeSpec("mask")
    labels = [sample(each.frame.name, each.points.tolist(), False) for each in SAMPLES]
    result = evaluate(labels, lambda frame: predicted(frame, decode, 0.5), "native", 0.5)
    found, curve = result.accuracy(), result.accuracy()["curve"]
    at = curve["threshold"].index(0.5)
    assert curve["pd"][at] == curve["recall_3px"][at] == pytest.approx(found["pd"], abs=1e-6)
    assert curve["fa_per_mpx"][at] == pytest.approx(found["fa_per_mpx"], abs=1e-6)


def test_thresholds_rise_to_one_and_hold_the_own() -> None:
    assert all(one < other for one, other in pairwise(THRESHOLDS))
    assert THRESHOLDS[-1] == 1.0
    assert thresholds_with(0.333).tolist() == sorted([*THRESHOLDS, 0.333])
    assert thresholds_with(0.5).tolist() == list(THRESHOLDS)
    assert threshold_to_predict("mask", 0.6) == 0.6
    assert threshold_to_predict("heatmap", 0.6) == THRESHOLDS[0]
    assert threshold_to_predict("heatmap", 0.001) == 0.001
