"""Accuracy under sensor faults: what each costs a detector, and what INT8 loses on top of FP32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.accuracy import Evaluation, Predict, evaluate
from irstd_edge.benchmarks.drift import drift
from irstd_edge.benchmarks.faults import FAULTS, with_fault
from irstd_edge.edge.types import Progress, Sample, Skip

NONE = "none"
"""The frames as they are."""
FIGURES = ("f1_3px", "iou", "pd", "fa_per_mpx")
CHANGES = (*FIGURES, "targets_lost", "targets_gained", "false_alarms_gained", "p_value")
CAPTION_PX = 28
COLUMNS = 3


@dataclass(frozen=True)
class Detector:
    """A variant to judge, beside the one that it is held against."""

    name: str
    predict: Predict
    runtime: str
    reference: tuple[str, Predict] | None = None
    """(variant, what predicts by it), fp32 of the same bundle; None for weights."""


def faults_of(
    samples: Callable[[], Iterable[Sample | Skip]],
    detector: Detector,
    protocol: str,
    progress: Progress = lambda what, done, total: None,
) -> list[dict[str, Any]]:
    """A record for the frames as they are, and one under each of `FAULTS`.

    {"fault", "images", "targets", "f1_3px", "iou", "pd", "fa_per_mpx", "reference", "drift"}:
    reference has the same four figures of FP32, drift what changed from it to this variant and
    `flipped`, the targets that only one of both found; null without a reference. F1, IoU and Pd are
    null where no target can be seen, IoU of points as well. `samples` is asked for the frames once
    per fault and variant.
    """
    names = (NONE, *FAULTS)
    records = []
    for done, name in enumerate(names, start=1):
        records.append(_record(name, samples, detector, protocol))
        progress("faults", done, len(names))
    return records


def sheet_of(sample: Sample, predict: Predict) -> npt.NDArray[np.uint8]:
    """One picture (H, W, 3): the frame as it is and under each fault, with what is found drawn.

    Detections are green circles, labelled targets orange squares.
    """
    cells = [_cell(name, _spoilt(sample, name), predict) for name in (NONE, *FAULTS)]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % COLUMNS)
    rows = [np.hstack(cells[first : first + COLUMNS]) for first in range(0, len(cells), COLUMNS)]
    return np.asarray(np.vstack(rows), np.uint8)


def example_of(samples: Iterable[Sample | Skip], predict: Predict) -> Sample | None:
    """The first frame in which something is found, else one; None where none can be used."""
    last = None
    for sample in samples:
        if isinstance(sample, Sample):
            last = sample
            if len(sample.points) and predict(sample.frame).detections:
                break
    return last


def _record(
    name: str, samples: Callable[[], Iterable[Sample | Skip]], detector: Detector, protocol: str
) -> dict[str, Any]:
    def judged(predict: Predict) -> Evaluation:
        return evaluate(_all_spoilt(samples(), name), predict, protocol)

    result = judged(detector.predict)
    record: dict[str, Any] = {
        "fault": name,
        "images": len(result.images),
        "targets": sum(len(image.targets) for image in result.images),
        **_figures(result),
        "reference": None,
        "drift": None,
    }
    if detector.reference is not None:
        variant, predict = detector.reference
        before = judged(predict)
        change = drift(before, result, (variant, detector.name), detector.runtime)
        record["reference"] = {"variant": variant, **_figures(before)}
        record["drift"] = {key: change[key] for key in CHANGES}
        record["drift"]["flipped"] = [each for each in change["targets"] if each["flip"]]
    return record


def _figures(result: Evaluation) -> dict[str, float | None]:
    metrics = result.metrics()
    seen = any(image.targets for image in result.images)
    return {name: metrics[name] if seen or name == "fa_per_mpx" else None for name in FIGURES}


def _all_spoilt(samples: Iterable[Sample | Skip], name: str) -> Iterator[Sample | Skip]:
    for sample in samples:
        yield sample if isinstance(sample, Skip) else _spoilt(sample, name)


def _spoilt(sample: Sample, name: str) -> Sample:
    return sample if name == NONE else with_fault(sample, name)


def _cell(name: str, sample: Sample, predict: Predict) -> npt.NDArray[Any]:
    import cv2

    from irstd_edge.edge.overlay import overlay

    found = predict(sample.frame).detections
    points = [(float(row), float(col)) for row, col in sample.points]
    picture = overlay(sample.frame, found, points)
    caption = np.zeros((CAPTION_PX, picture.shape[1], 3), np.uint8)
    text = f"{'as it is' if name == NONE else name}: {len(found)} found"
    font, white = cv2.FONT_HERSHEY_SIMPLEX, (255, 255, 255)
    cv2.putText(caption, text, (6, CAPTION_PX - 9), font, 0.5, white, 1, cv2.LINE_AA)
    return np.vstack([caption, picture])
