import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd_edge.benchmarks.accuracy import Evaluation, evaluate, score_masks, score_points
from irstd_edge.benchmarks.counts import MaskCounts, PointCounts
from irstd_edge.edge.types import Detection, Frame, IrstdError, Prediction, Sample, Skip


def mask_of(boxes: list[list[int]], size: int = 64) -> np.ndarray:
    """A mask of (row, col, height, width) boxes."""
    mask = np.zeros((size, size), bool)
    for row, col, height, width in boxes:
        mask[row : row + height, col : col + width] = True
    return mask


def test_mask_scores_are_those_of_the_authors(golden: Path) -> None:
    given = json.loads((golden / "mshnet_reference.json").read_text())["metric"]
    predicted = [mask_of(case["predicted"], given["size"]) for case in given["cases"]]
    truth = [mask_of(case["truth"], given["size"]) for case in given["cases"]]
    scores = score_masks(predicted, truth)
    for name, expected in given["expect"].items():
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-9), name


def test_an_unmatched_blob_of_a_matched_ones_area_is_a_false_alarm_only_to_us() -> None:
    truth = mask_of([[10, 10, 2, 2]])
    predicted = mask_of([[10, 10, 2, 2], [40, 40, 2, 2], [50, 10, 1, 3]])
    scores = score_masks([predicted], [truth])
    assert scores.false_px == 7
    assert scores.false_legacy_px == 3
    assert scores.fa_per_mpx == pytest.approx(7e6 / 4096)
    assert scores.fa_legacy_per_mpx == pytest.approx(3e6 / 4096)


def test_niou_leaves_out_frames_with_nothing_in_them() -> None:
    some, nothing = mask_of([[1, 1, 2, 2]]), mask_of([])
    half = mask_of([[1, 1, 1, 2]])
    scores = score_masks([half, nothing, some], [some, nothing, nothing])
    assert scores.niou == pytest.approx((0.5 + 0) / 2)
    assert scores.iou == pytest.approx(2 / 8)


def test_a_ratio_over_nothing_is_none() -> None:
    empty = score_masks([mask_of([])], [mask_of([])])
    assert (empty.iou, empty.niou, empty.pd, empty.fa_per_mpx) == (None, None, None, 0)
    assert score_masks([], []) == MaskCounts()
    assert MaskCounts().fa_legacy_per_mpx is None
    blank = score_points([np.zeros((0, 3))], [np.zeros((0, 2))], 3)
    assert (blank.precision, blank.recall, blank.f1, blank.position_px) == (None,) * 4


def test_points_are_micro_averaged() -> None:
    predicted = [np.array([[0, 0, 0.9], [50, 50, 0.8]]), np.zeros((0, 3))]
    truth = [np.array([[0, 2]]), np.array([[5, 5], [9, 9]])]
    scores = score_points(predicted, truth, 3)
    assert scores == PointCounts(predicted=2, truth=3, matched=1, distance_sum_px=2.0)
    assert (scores.precision, scores.recall, scores.f1) == (1 / 2, 1 / 3, 2 / 5)
    assert scores.position_px == 2


def test_the_radius_decides() -> None:
    predicted, truth = [np.array([[0, 4, 0.9]])], [np.array([[0, 0]])]
    assert score_points(predicted, truth, 3).f1 == 0
    assert score_points(predicted, truth, 5).f1 == 1


def test_lists_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        score_points([], [np.zeros((0, 2))], 3)


boxes = st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 4)] * 2), max_size=4)


@settings(database=None, deadline=None, max_examples=50)
@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=4))
def test_counts_of_frames_add_up_to_counts_of_the_set(frames: list[tuple[list, list]]) -> None:
    predicted = [mask_of(p, 40) for p, _ in frames]
    truth = [mask_of(t, 40) for _, t in frames]
    whole = score_masks(predicted, truth)
    parts = [score_masks([p], [t]) for p, t in zip(predicted, truth, strict=True)]
    assert sum(parts, MaskCounts()) == whole
    assert whole.matched <= whole.targets
    assert whole.false_legacy_px <= whole.false_px <= sum(int(p.sum()) for p in predicted)
    assert score_masks(truth, truth).false_px == 0
    if whole.targets:
        assert score_masks(truth, truth).iou == score_masks(truth, truth).niou == 1


def sample(name: str, boxes: list[list[int]], masked: bool = True) -> Sample:
    counts = np.random.default_rng(len(name)).integers(90, 110, (64, 64)).astype(np.uint8)
    centres = [[r + (h - 1) / 2, c + (w - 1) / 2] for r, c, h, w in boxes]
    points = np.array(centres, np.float32).reshape(-1, 2)
    return Sample(Frame(name, counts, 8), mask_of(boxes) if masked else None, points)


def heatmap(frame: Frame) -> Prediction:
    """Finds frame a's first target 1 px off, and something that is none."""
    probability = np.full((32, 32), 0.1, np.float32)
    if frame.name != "a":
        return Prediction((), probability, 2, None)
    detections = (Detection(11.5, 10.5, 0.9, 4.0), Detection(50, 50, 0.6, 5.0))
    return Prediction(detections, probability, 2, None)


def segmentation(frame: Frame) -> Prediction:
    """The same for masks."""
    mask = mask_of([[11, 10, 2, 2], [50, 50, 1, 2]] if frame.name == "a" else [])
    detections = (Detection(11.5, 10.5, 0.9, 4.0), Detection(50, 50.5, 0.6, 2.0))
    found = detections if frame.name == "a" else ()
    return Prediction(found, mask.astype(np.float32) * 0.9, 1, mask)


SAMPLES = (
    sample("a", [[10, 10, 2, 2], [30, 30, 1, 3]]),
    Skip("b", "its mask has another size"),
    sample("c", []),
)


FRAMES = sha256(b'[["a", [64, 64], [[10.5, 10.5], [30.0, 31.0]]], ["c", [64, 64], []]]').hexdigest()


def test_a_point_detectors_accuracy_has_no_iou_and_says_why_not() -> None:
    assert evaluate(SAMPLES, heatmap, "native").accuracy() == {
        "protocol": "native",
        "images": 2,
        "skipped": [{"name": "b", "reason": "its mask has another size"}],
        "targets": 2,
        "frames_sha256": FRAMES,
        "iou": None,
        "niou": None,
        "pd": 0.5,
        "fa_per_mpx": pytest.approx(1e6 / 8192),
        "fa_legacy_per_mpx": None,
        "precision_3px": 0.5,
        "recall_3px": 0.5,
        "f1_3px": 0.5,
        "precision_5px": 0.5,
        "recall_5px": 0.5,
        "f1_5px": 0.5,
        "position_px": 1.0,
        "position_median_px": 1.0,
        "undefined": [],
    }


def test_a_segmentation_nets_accuracy_has_everything() -> None:
    accuracy = evaluate(SAMPLES, segmentation, "paper256").accuracy()
    assert accuracy == {
        "protocol": "paper256",
        "images": 2,
        "skipped": [{"name": "b", "reason": "its mask has another size"}],
        "targets": 2,
        "frames_sha256": FRAMES,
        "iou": pytest.approx(2 / 11),
        "niou": pytest.approx(2 / 11),
        "pd": 0.5,
        "fa_per_mpx": pytest.approx(2e6 / 8192),
        "fa_legacy_per_mpx": pytest.approx(2e6 / 8192),
        "precision_3px": 0.5,
        "recall_3px": 0.5,
        "f1_3px": 0.5,
        "precision_5px": 0.5,
        "recall_5px": 0.5,
        "f1_5px": 0.5,
        "position_px": 1.0,
        "position_median_px": 1.0,
        "undefined": [],
    }
    json.dumps(accuracy, allow_nan=False)


def test_one_point_far_off_moves_the_mean_and_not_the_median() -> None:
    truth = np.array([[10, 10], [30, 30], [50, 50]], np.float32)
    frame = Frame("a", np.zeros((64, 64), np.uint8), 8)
    found = tuple(
        Detection(row + off, row, 0.9, 4.0) for row, off in ((10, 0.25), (30, 0.5), (50, 3.0))
    )
    said = Prediction(found, np.zeros((32, 32), np.float32), 2, None)
    accuracy = evaluate([Sample(frame, None, truth)], lambda _: said, "native").accuracy()
    assert (accuracy["position_median_px"], accuracy["position_px"]) == (0.5, 1.25)
    none = Prediction((), said.probability, 2, None)
    accuracy = evaluate([Sample(frame, None, truth)], lambda _: none, "native").accuracy()
    assert accuracy["position_median_px"] is None


def test_frames_without_targets_leave_ratios_undefined_by_name() -> None:
    accuracy = evaluate(SAMPLES[2:], segmentation, "native").accuracy()
    assert accuracy["undefined"] == [
        *("iou", "niou", "pd", "precision_3px", "recall_3px", "f1_3px"),
        *("precision_5px", "recall_5px", "f1_5px", "position_px"),
    ]
    assert accuracy["fa_per_mpx"] == 0
    points = evaluate(SAMPLES[2:], heatmap, "native").accuracy()
    assert "iou" not in points["undefined"]
    assert "pd" in points["undefined"]


def test_masks_without_true_masks_are_judged_as_points() -> None:
    bare = [sample("a", [[10, 10, 2, 2], [30, 30, 1, 3]], masked=False)]
    accuracy = evaluate(bare, segmentation, "native").accuracy()
    assert (accuracy["iou"], accuracy["pd"], accuracy["f1_3px"]) == (None, 0.5, 0.5)
    assert accuracy["undefined"] == []


def test_raw_results_are_kept_by_frame() -> None:
    result = evaluate(SAMPLES, segmentation, "native")
    first, last = result.images
    assert (first.name, last.name, first.shape) == ("a", "c", (64, 64))
    assert first.mask is not None
    assert (first.mask.intersection_px, first.mask.union_px) == (2, 11)
    assert [target.matched for target in first.targets] == [True, False]
    assert [(alarm.row, alarm.col) for alarm in first.false_alarms] == [(50, 50.5)]
    assert last.targets == last.false_alarms == ()


def test_nothing_to_judge_is_an_error_with_the_first_reason() -> None:
    with pytest.raises(IrstdError, match="none of 1 frames can be used; b: its mask has another"):
        evaluate(SAMPLES[1:2], heatmap, "native")


def test_samples_are_seen_once_and_in_turn() -> None:
    seen = []

    def predict(frame: Frame) -> Prediction:
        seen.append(frame.name)
        return heatmap(frame)

    result = evaluate(iter(SAMPLES), predict, "native")
    assert isinstance(result, Evaluation)
    assert seen == ["a", "c"]


def test_frames_of_one_size_are_predicted_in_a_row_and_told_in_their_order() -> None:
    sizes = {"a": 64, "b": 32, "c": 64, "d": 16, "e": 32}
    frames = [
        Sample(Frame(name, np.zeros((size, size), np.uint8), 8), None, np.zeros((0, 2), np.float32))
        for name, size in sizes.items()
    ]
    seen, counts = [], []

    def predict(frame: Frame) -> Prediction:
        seen.append(frame.name)
        return Prediction((), np.zeros(frame.shape, np.float32), 1, None)

    mixed = [*frames[:2], Skip("skipped", "broken"), *frames[2:]]
    result = evaluate(mixed, predict, "native", done=counts.append)
    assert seen == ["d", "b", "e", "a", "c"]
    assert [image.name for image in result.images] == list(sizes)
    assert (counts[-1], sorted(counts)) == (6, counts)


def test_frames_are_read_in_parts_that_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irstd_edge.benchmarks.accuracy.AHEAD_PX", 2 * 64 * 64)
    read, most = [], []

    def samples() -> Iterator[Sample | Skip]:
        for sample in SAMPLES * 3:
            read.append(sample)
            yield sample

    def predict(frame: Frame) -> Prediction:
        most.append(len(read))
        return heatmap(frame)

    assert len(evaluate(samples(), predict, "native").images) == 6
    assert most == [3, 3, 6, 6, 9, 9]
