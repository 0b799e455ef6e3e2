import math
from typing import Any

import pytest

from irstd_edge.benchmarks.accuracy import Evaluation, ImageResult
from irstd_edge.benchmarks.counts import MaskCounts, PointCounts
from irstd_edge.benchmarks.noise_floor import entry_score_error, noise_floor, noise_words
from irstd_edge.benchmarks.targets import Target

SCORES = (0.9, 0.8, 0.4)


def evaluation(*moves: float, masked: bool = False) -> Evaluation:
    """One frame with a target for each of `SCORES`, moved by so much; found from 0.5 on."""
    scores = [score + move for score, move in zip(SCORES, moves, strict=True)]
    targets = tuple(
        Target(row=8.0 * n, col=5.0, area_px=4, scr=2.5, matched=score > 0.5, score=score)
        for n, score in enumerate(scores)
    )
    hits = sum(target.matched for target in targets)
    points = PointCounts(hits, 3, hits, 0.5 * hits)
    mask = MaskCounts(4096, hits, 3, 0.0, 1, 3, hits) if masked else None
    return Evaluation("native", (ImageResult("f", (64, 64), mask, points, points, targets, ()),))


CLEAN, NOISY = evaluation(0, 0, 0), evaluation(-0.03, -0.4, 0.2)


def test_noise_is_compared_as_a_variant_is() -> None:
    noise = noise_floor(CLEAN, NOISY, 0.5, "fp32", "openvino")
    assert (noise["counts"], noise["variant"], noise["runtime"]) == (0.5, "fp32", "openvino")
    assert (noise["targets_lost"], noise["targets_gained"], noise["targets"]) == (1, 1, 3)
    assert noise["f1_3px"] == 0 and noise["iou"] is None
    assert noise["score_error"] == pytest.approx(math.sqrt((0.03**2 + 0.4**2 + 0.2**2) / 3))
    masked = (evaluation(0, 0, 0, masked=True), evaluation(0, -0.4, 0, masked=True))
    of_masks = noise_floor(*masked, 0.5, "fp32", "openvino")
    assert of_masks["score_error"] is None
    assert of_masks["iou"] == pytest.approx(-1 / 3)


def entry(*changes: float | None) -> dict[str, Any]:
    targets = [
        {"score_reference": 0.5, "score_candidate": change and 0.5 + change} for change in changes
    ]
    return {"candidate": "int8", "runtime": "onnxruntime", "iou": None, "targets": targets}


def test_scores_that_are_not_told_or_saturate_do_not_move() -> None:
    assert entry_score_error(entry(0.3, -0.4)) == pytest.approx(math.sqrt(0.125))
    assert entry_score_error(entry()) is entry_score_error(entry(0.3, None)) is None
    assert entry_score_error(entry(0.3) | {"iou": 0.0}) is None


def test_the_sentence_has_noise_beside_every_variant() -> None:
    noise = noise_floor(CLEAN, NOISY, 0.5, "fp32", "openvino")
    result = {"noise": noise, "drift": [entry(0.003, -0.004), entry(None)]}
    assert noise_words(result) == (
        "for scale: noise of 0.5 counts in the frames makes fp32 on openvino lose 1 and gain 1 of "
        "3 targets (F1 +0.00 points, Fa +0.00 per Mpx); it moves targets' scores by 0.2588, int8 "
        "on onnxruntime by 0.0035"
    )
    assert noise_words({"drift": []}) is noise_words({"noise": None, "drift": []}) is None


def test_the_sentence_on_masks_has_iou_and_pixels_but_no_scores() -> None:
    clean, noisy = (evaluation(0, move, 0, masked=True) for move in (0, -0.4))
    result = {"noise": noise_floor(clean, noisy, 2, "fp32", "onnxruntime"), "drift": []}
    words = noise_words(result)
    assert words is not None and "noise of 2 counts" in words
    assert "IoU −33.33 points" in words and words.endswith("px per Mpx)")
