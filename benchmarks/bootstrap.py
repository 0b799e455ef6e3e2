"""How far a difference could be chance: percentile bootstrap over frames, seeded.

Targets of one frame share its clutter, so frames are drawn, not targets; both variants are
counted on the same draw.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from irstd_edge.benchmarks.accuracy import Evaluation

RESAMPLES = 2000
"""Draws of as many frames as there are: the ends of a 95 % interval rest on 50 each."""

Floats = npt.NDArray[np.float64]
Terms = Floats
"""(frames, 2): numerator and denominator of a ratio, by frame."""


def resamples(frames: int, seed: int) -> Floats:
    """(RESAMPLES, frames): how often each frame was drawn."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(frames, np.full(frames, 1 / frames), size=RESAMPLES)
    return drawn.astype(np.float64)  # whole numbers; float64 multiplies matrices far faster


def intervals_of(
    reference: Evaluation, candidate: Evaluation, weights: Floats
) -> dict[str, list[float] | None]:
    """95 % intervals of candidate - reference: iou, f1_3px, pd; None where undefined."""
    sides = (_terms(reference), _terms(candidate))
    return {
        name: interval_of_ratios(before, after, weights)
        for (name, before), after in zip(sides[0].items(), sides[1].values(), strict=True)
    }


def interval_of_ratios(
    before: Terms | None, after: Terms | None, weights: Floats
) -> list[float] | None:
    """Of the difference of two ratios; None without terms, or where no draw has both."""
    if before is None or after is None:
        return None
    old, new = weights @ before, weights @ after
    defined = (old[:, 1] > 0) & (new[:, 1] > 0)
    old, new = old[defined], new[defined]
    return interval(new[:, 0] / new[:, 1] - old[:, 0] / old[:, 1])


def interval(differences: Floats) -> list[float] | None:
    """[2.5 %, 97.5 %] of the (N,) differences; None of nothing."""
    if not differences.size:
        return None
    return [float(end) for end in np.percentile(differences, [2.5, 97.5])]


def _terms(evaluation: Evaluation) -> dict[str, Terms | None]:
    points = [image.points_3px for image in evaluation.images]
    masks = [image.mask for image in evaluation.images if image.mask is not None]
    iou: Terms | None = None
    pd = [(c.matched, c.truth) for c in points]
    if evaluation.mask is not None:
        iou = np.array([(c.intersection_px, c.union_px) for c in masks], np.float64)
        pd = [(c.matched, c.targets) for c in masks]
    f1 = [(2 * c.matched, c.predicted + c.truth) for c in points]
    return {"iou": iou, "f1_3px": np.array(f1, np.float64), "pd": np.array(pd, np.float64)}
