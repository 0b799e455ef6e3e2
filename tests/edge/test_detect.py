import math
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd_edge.edge.detect import predict_from_outputs, sigmoid
from irstd_edge.edge.types import DecodeSpec, IrstdError

MASK = DecodeSpec("mask")
HEATMAP = DecodeSpec("heatmap")
LOG_SIGMA = math.log(1.5)


def logits_of(shape, cells, background=-6.0):
    """(1, h, w) with the given {(row, col): logit}."""
    logits = np.full((1, *shape), background, np.float32)
    for cell, value in cells.items():
        logits[(0, *cell)] = value
    return logits


def geometry_of(shape, dx=0.0, dy=0.0, log_sigma=LOG_SIGMA):
    """(3, h, w), the same everywhere."""
    return np.stack([np.full(shape, v, np.float32) for v in (dx, dy, log_sigma)])


def peaks(shape, cells, frame=None, decode=HEATMAP, **geometry):
    outputs = [logits_of(shape, cells), geometry_of(shape, **geometry)]
    return predict_from_outputs(outputs, frame or (2 * shape[0], 2 * shape[1]), decode).detections


def places(detections):
    return [(round(d.row, 3), round(d.col, 3)) for d in detections]


class TestMask:
    def test_blobs_with_centroid_highest_probability_and_area_best_first(self):
        cells = {(2, 3): 1.0, (2, 4): 2.0, (3, 3): 1.0, (3, 4): 1.0, (10, 12): 3.0}
        prediction = predict_from_outputs([logits_of((16, 16), cells)], (16, 16), MASK)
        first, second = prediction.detections
        assert (first.row, first.col, first.area_px) == (10.0, 12.0, 1.0)
        assert first.score == pytest.approx(1 / (1 + math.exp(-3.0)), abs=1e-6)
        assert (second.row, second.col, second.area_px) == (2.5, 3.5, 4.0)
        assert second.score == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-6)
        assert prediction.stride == 1
        assert prediction.mask.sum() == 5

    def test_diagonal_pixels_are_one_target(self):
        logits = logits_of((8, 8), {(1, 1): 1.0, (2, 2): 1.0})
        assert len(predict_from_outputs([logits], (8, 8), MASK).detections) == 1

    def test_foreground_is_a_logit_above_zero(self):
        logits = logits_of((4, 4), {(0, 0): 0.0, (2, 2): 1e-6})
        prediction = predict_from_outputs([logits], (4, 4), MASK)
        assert np.argwhere(prediction.mask).tolist() == [[2, 2]]

    def test_threshold_moves_the_decision(self):
        logits = logits_of((4, 4), {(1, 1): 1.0})  # probability 0.731
        for threshold, count in ((0.7, 1), (0.76, 0)):
            decode = DecodeSpec("mask", threshold)
            assert len(predict_from_outputs([logits], (4, 4), decode).detections) == count

    def test_padding_is_cropped_away(self):
        logits = logits_of((16, 16), {(12, 2): 5.0, (4, 14): 5.0, (3, 3): 1.0})
        prediction = predict_from_outputs([logits], (11, 13), MASK)
        assert places(prediction.detections) == [(3.0, 3.0)]
        assert prediction.probability.shape == prediction.mask.shape == (11, 13)

    def test_nothing_and_everything(self):
        for value, count in ((-9.0, 0), (9.0, 1)):
            logits = logits_of((8, 8), {}, background=value)
            assert len(predict_from_outputs([logits], (8, 8), MASK).detections) == count

    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=30, deadline=None)
    def test_equals_a_component_at_a_time(self, seed):
        logits = np.random.default_rng(seed).normal(-1, 1, (1, 24, 20)).astype(np.float32)
        found = predict_from_outputs([logits], (24, 20), MASK).detections
        count, labels = cv2.connectedComponents((logits[0] > 0).astype(np.uint8), connectivity=8)
        expected = []
        for k in range(1, count):
            rows, cols = np.nonzero(labels == k)
            score = 1 / (1 + math.exp(-float(logits[0, rows, cols].max())))
            expected.append((rows.mean(), cols.mean(), score, len(rows)))
        # By place: two scores may be one in float32 and not in float64.
        assert sorted((round(d.row, 6), round(d.col, 6), d.score, d.area_px) for d in found) == [
            pytest.approx(e, abs=1e-5)
            for e in sorted((round(row, 6), round(col, 6), *rest) for row, col, *rest in expected)
        ]
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)


class TestHeatmap:
    def test_position_score_and_area_of_a_peak(self):
        (peak,) = peaks((16, 16), {(5, 7): 2.0}, dx=0.25, dy=-0.5, log_sigma=math.log(2.0))
        assert places([peak]) == [(2 * (5 - 0.5) + 0.5, 2 * (7 + 0.25) + 0.5)]
        assert peak.score == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-6)
        assert peak.area_px == pytest.approx(math.pi * 4.0**2, rel=1e-6)

    def test_offsets_and_sigma_are_clamped(self):
        (peak,) = peaks((16, 16), {(5, 7): 2.0}, dx=9.0, dy=-9.0, log_sigma=50.0)
        assert places([peak]) == [(8.5, 16.5)]
        assert peak.area_px == pytest.approx(math.pi * (2 * math.exp(2.5)) ** 2)

    def test_a_position_stays_inside_the_frame(self):
        corners = peaks((8, 8), {(0, 0): 3.0, (7, 7): 2.0}, frame=(15, 15), dx=1.0, dy=1.0)
        assert places(corners) == [(2.5, 2.5), (14.0, 14.0)]
        (corner,) = peaks((8, 8), {(0, 0): 2.0}, dx=-1.0, dy=-1.0)
        assert places([corner]) == [(0.0, 0.0)]

    def test_only_local_maxima_count(self):
        ridge = {(8, 8): 3.0, (8, 9): 2.0, (9, 8): 2.0, (7, 7): 1.0}
        assert places(peaks((16, 16), ridge)) == [(16.5, 16.5)]

    def test_of_a_plateau_its_first_cell(self):
        plateau = {(r, c): 2.0 for r in (3, 4, 5) for c in (6, 7, 8)}
        assert places(peaks((16, 16), plateau)) == [(6.5, 12.5)]

    def test_peaks_of_one_target_become_one_and_the_strongest_stays(self):
        # Two cells apart is 4 px: within 5 px of sigma, outside 3 px.
        cells = {(4, 4): 2.0, (4, 6): 3.0}
        assert places(peaks((16, 16), cells, log_sigma=math.log(2.5))) == [(8.5, 12.5)]
        assert len(peaks((16, 16), cells, log_sigma=math.log(1.5))) == 2

    def test_two_offsets_to_the_same_place_are_one_target_at_any_size(self):
        geometry = geometry_of((16, 16), log_sigma=-1.5)
        geometry[0, 4, 4], geometry[0, 4, 6] = 1.0, -1.0  # both at column cell 5
        logits = logits_of((16, 16), {(4, 4): 2.0, (4, 6): 3.0})
        found = predict_from_outputs([logits, geometry], (32, 32), HEATMAP).detections
        assert places(found) == [(8.5, 10.5)]

    def test_a_silenced_peak_silences_nobody(self):
        cells = {(4, 4): 4.0, (4, 6): 3.0, (4, 8): 2.0}  # a chain, 4 px a link
        found = peaks((16, 16), cells, log_sigma=math.log(2.5))
        assert places(found) == [(8.5, 8.5), (8.5, 16.5)]

    def test_padding_is_cropped_before_peaks_are_sought(self):
        # The replicated edge is brightest outside the frame: its inner end is the target.
        cells = {(4, 6): 1.0, (4, 7): 2.0}
        prediction = predict_from_outputs(
            [logits_of((8, 8), cells), geometry_of((8, 8))], (16, 13), HEATMAP
        )
        assert places(prediction.detections) == [(8.5, 12.0)]
        assert prediction.probability.shape == (8, 7)
        assert (prediction.stride, prediction.mask) == (2, None)

    def test_a_map_of_peaks_everywhere_ends_soon(self):
        logits = logits_of(
            (64, 64), {(r, c): 1.0 for r in range(0, 64, 2) for c in range(0, 64, 2)}
        )
        outputs = [logits, geometry_of((64, 64), log_sigma=-1.5)]
        assert len(predict_from_outputs(outputs, (128, 128), HEATMAP).detections) == 32 * 32


def test_a_frame_of_peaks_alone_takes_no_minutes_and_gives_what_all_with_all_gives():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(1, 300, 300)).astype(np.float32)
    geometry = rng.normal(size=(3, 300, 300)).astype(np.float32)
    decode = DecodeSpec("heatmap", 0.05)
    start = time.perf_counter()
    found = predict_from_outputs([logits, geometry], (600, 600), decode).detections
    assert time.perf_counter() - start < 5
    place = np.array([(d.row, d.col) for d in found])
    sigma_px = np.sqrt(np.array([d.area_px for d in found]) / math.pi)
    assert len(found) > 500
    for k in range(1, len(found)):  # the strongest first: none lies within one before it
        apart = np.hypot(*(place[:k] - place[k]).T)
        assert (apart >= np.maximum(sigma_px[:k], 2) - 1e-5).all()


def test_sigmoid_neither_overflows_nor_loses_small_values():
    logits = np.array([-1e30, -500.0, -40.0, 0.0, 40.0, 1e30], np.float32)
    value = sigmoid(logits)  # warnings are errors here
    assert value.dtype == np.float32
    assert value[2] == pytest.approx(math.exp(-40.0), rel=1e-5)
    assert value[3:].tolist() == [0.5, 1.0, 1.0]
    assert 0 <= value[0] < 1e-30


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("broken", ["heatmap", "geometry"])
def test_broken_numbers_are_named(broken, value):
    outputs = {"heatmap": logits_of((4, 4), {}), "geometry": geometry_of((4, 4))}
    outputs[broken][0, 1, 1] = value
    with pytest.raises(IrstdError, match=f"^{broken}: .*NaN or infinity"):
        predict_from_outputs(list(outputs.values()), (8, 8), HEATMAP)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([logits_of((4, 4), {})], r"^heatmap: .*heatmap, geometry, this one gave 1"),
        ([logits_of((4, 4), {}), geometry_of((4, 3))], r"^geometry: .*\(3, 4, 3\).*\(3, 4, 4\)"),
        ([logits_of((3, 4), {}), geometry_of((4, 4))], r"^heatmap: .*\(1, 3, 4\).*\(1, 4, 4\)"),
        ([logits_of((4, 4), {})[0], geometry_of((4, 4))], r"^heatmap: .*\(4, 4\)"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(outputs, message):
    with pytest.raises(IrstdError, match=message):
        predict_from_outputs(outputs, (8, 8), HEATMAP)


@pytest.mark.parametrize("kind", ["mask", "heatmap"])
def test_half_precision_outputs_are_taken(kind):
    outputs = [logits_of((8, 8), {(3, 3): 2.0}), geometry_of((8, 8))]
    halves = [output.astype(np.float16) for output in outputs[: 2 if kind == "heatmap" else 1]]
    prediction = predict_from_outputs(halves, (8, 8), DecodeSpec(kind))
    assert prediction.probability.dtype == np.float32
    assert len(prediction.detections) == 1


@pytest.mark.parametrize("kind", ["mask", "heatmap"])
def test_decoding_is_a_small_part_of_a_frame_time(kind):
    """Half a millisecond for 256x256 on an idle core; the limit leaves room for a busy machine."""
    size = (256, 256) if kind == "mask" else (128, 128)
    cells = {(r, c): 2.0 for r in range(10, 120, 40) for c in range(10, 120, 40)}
    outputs = [logits_of(size, cells), geometry_of(size)][: 1 if kind == "mask" else 2]
    times = []
    for _ in range(50):
        start = time.perf_counter()
        predict_from_outputs(outputs, (256, 256), DecodeSpec(kind))
        times.append(1e3 * (time.perf_counter() - start))
    print(kind, f"{min(times):.3f} ms")
    assert min(times) < 3.0
