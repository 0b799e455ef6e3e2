"""Which frames to calibrate on: those that hold the extremes, and some of the rest.

A range that is taken from average frames clips the brightest targets and rounds off the faintest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irstd_edge.edge.dataset import DataSet, samples_of
from irstd_edge.edge.frames import normalise
from irstd_edge.edge.types import (
    FloatArray,
    Frame,
    InputSpec,
    IrstdError,
    Progress,
    Sample,
    Skip,
)

if TYPE_CHECKING:
    from torch import Tensor

PEAK_PX = 2
"""A target's peak is the highest value within so many rows and columns of its centre."""
SURROUND_PX = 8
"""Its surroundings are all within so many rows and columns."""

FULL_SCALE = InputSpec(stride=1)


@dataclass(frozen=True, eq=False)
class CalibrationFrame:
    """A calibration frame as the network takes it."""

    batch: Tensor
    """(1, 1, H, W) in 0..1."""
    near: Tensor
    """(H, W) whether a pixel is within `PEAK_PX` of a target's centre, in rows and in columns."""

    @classmethod
    def of(cls, batch: FloatArray, sample: Sample) -> CalibrationFrame:
        """What a runner makes of a sample's frame, which may be padded, with the sample's truth."""
        import torch
        from torch.nn import functional as F

        height, width = batch.shape[-2:]
        places = torch.zeros(height, width)
        rows, cols = np.rint(sample.points).astype(int).clip(0, (height - 1, width - 1)).T
        places[rows, cols] = 1
        near = F.max_pool2d(places[None, None], 2 * PEAK_PX + 1, 1, PEAK_PX)
        return cls(torch.from_numpy(batch), near[0, 0] > 0)


def calibration_samples(
    sets: Sequence[DataSet],
    count: int,
    seed: int,
    progress: Progress = lambda *_: None,
    spec: InputSpec = FULL_SCALE,
    skip: Callable[[Skip], None] = lambda _: None,
) -> tuple[Sample, ...]:
    """Choose frames of data sets; the same arguments give the same frames, in the lists' order.

    Of all together a quarter hold the highest peaks, a quarter the faintest targets, the rest is
    drawn; fewer than `count` are taken whole. spec: how frames are normalised. skip: is given what
    cannot be used. Raises IrstdError for a test list, for a set of which no frame can be used, and
    where frames differ in bit depth, for a bundle has one.
    """
    for data in sets:
        if data.split not in ("train", "trainval"):
            raise IrstdError(
                f"{data.root}: calibrate on its train part, {data.split} is to judge by"
            )
    figures: dict[_Place, tuple[float, float]] = {}
    first: Frame | None = None
    total = sum(len(data.names) for data in sets)
    for done, (index, sample) in enumerate(samples_of(sets), start=1):
        if isinstance(sample, Sample):
            first = first or sample.frame
            _refuse_depth(sample.frame, first, sets[index].root)
            figures[index, sample.frame.name] = _figures(sample, spec)
        else:
            skip(sample)
        progress("choosing frames", done, total)
    for index, data in enumerate(sets):
        if not any(place[0] == index for place in figures):
            raise IrstdError(f"{data.root}: none of its frames can be used: check the masks")
    chosen = _chosen(figures, min(count, len(figures)), seed)
    return tuple(sets[place[0]].sample(place[1]) for place in figures if place in chosen)


def _refuse_depth(frame: Frame, first: Frame, root: Path) -> None:
    if frame.bit_depth != first.bit_depth:
        raise IrstdError(
            f"--data: {root}: {frame.name} has {frame.bit_depth} bits, {first.name} has "
            f"{first.bit_depth}: a bundle is for one depth: quantize for each of them"
        )


_Place = tuple[int, str]
"""Which data set, and the frame's name there."""


def _chosen(figures: dict[_Place, tuple[float, float]], count: int, seed: int) -> set[_Place]:
    places = list(figures)
    quarter = count // 4
    by_peak = sorted(places, key=lambda place: -figures[place][0])
    by_contrast = sorted(places, key=lambda place: figures[place][1])
    chosen = {*by_peak[:quarter], *by_contrast[:quarter]}
    rest = [place for place in places if place not in chosen]
    random = np.random.default_rng(seed)
    drawn = random.choice(len(rest), count - len(chosen), replace=False)
    return chosen | {rest[index] for index in drawn}


def _figures(sample: Sample, spec: InputSpec) -> tuple[float, float]:
    """Highest value of a target in 0..1, below any other where there is none; and the faintest."""
    image = normalise(sample.frame, spec)
    peaks = list(_patches(image, sample, PEAK_PX))
    return max((float(peak.max()) for peak in peaks), default=-1.0), _faintest(image, sample)


def _faintest(image: FloatArray, sample: Sample) -> float:
    """Lowest contrast of a target to its surroundings; above any other where there is none."""
    peaks = _patches(image, sample, PEAK_PX)
    around = _patches(image, sample, SURROUND_PX)
    contrasts = (
        float(abs(peak - np.median(surround)).max())
        for peak, surround in zip(peaks, around, strict=True)
    )
    return min(contrasts, default=2.0)


def _patches(image: FloatArray, sample: Sample, radius_px: int) -> Iterator[FloatArray]:
    """The square around each target, cut at the frame's border."""
    for row, col in np.rint(sample.points).astype(int):
        top, left = max(0, row - radius_px), max(0, col - radius_px)
        yield image[top : row + radius_px + 1, left : col + radius_px + 1]
