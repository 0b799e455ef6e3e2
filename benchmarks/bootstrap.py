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

FEWEST_FRAMES = 20
"""Of fewer frames no interval is told: their draws are too much alike to say what chance does."""

UNDEFINED = 0.05
"""Share of the draws that may be without a figure; the others alone would be the lucky ones."""

Floats = npt.NDArray[np.float64]
Terms = Floats
"""(frames, 2): numerator and denominator of a ratio, by frame."""


def resamples(frames: int) -> Floats:
    """(RESAMPLES, frames): how often each frame was drawn, each time the same."""
    random = np.random.default_rng(0)
    drawn = random.multinomial(frames, np.full(frames, 1 / frames), size=RESAMPLES)
    return drawn.astype(np.float64)  # whole numbers; float64 multiplies matrices far faster


def intervals_of(
    reference: Evaluation, candidate: Evaluation, weights: Floats
) -> dict[str, list[float] | None]:
    """95 % intervals of candidate - reference, by metric; None where `interval` gives none."""
    sides = (_terms(reference), _terms(candidate))
    return {
        name: interval_of_ratios(before, after, weights)
        for (name, before), after in zip(sides[0].items(), sides[1].values(), strict=True)
    }


def interval_of_ratios(
    before: Terms | None, after: Terms | None, weights: Floats
) -> list[float] | None:
    """Of the difference of two ratios; None without terms."""
    if before is None or after is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        old, new = ((drawn[:, 0] / drawn[:, 1]) for drawn in (weights @ before, weights @ after))
        return interval(new - old, weights.shape[1])


def interval(differences: Floats, frames: int) -> list[float] | None:
    """[2.5 %, 97.5 %] of the (N,) differences, NaN where a draw has none.

    None where over `UNDEFINED` of them have none, of nothing, and of under `FEWEST_FRAMES`.
    """
    known = differences[np.isfinite(differences)]
    if frames < FEWEST_FRAMES or not known.size or known.size < (1 - UNDEFINED) * differences.size:
        return None
    return [float(end) for end in np.percentile(known, [2.5, 97.5])]


def _terms(evaluation: Evaluation) -> dict[str, Terms | None]:
    images, mask = evaluation.images, evaluation.mask
    near, wide = ([getattr(i, name) for i in images] for name in ("points_3px", "points_5px"))
    terms: dict[str, list[tuple[float, float]] | None] = {
        "iou": None,
        "niou": None,
        "pd": [(c.matched, c.truth) for c in near],
        "fa_per_mpx": [
            (1e6 * (c.predicted - c.matched), i.shape[0] * i.shape[1])
            for i, c in zip(images, near, strict=True)
        ],
        "f1_3px": [(2 * c.matched, c.predicted + c.truth) for c in near],
        "f1_5px": [(2 * c.matched, c.predicted + c.truth) for c in wide],
    }
    if mask is not None:
        masks = [image.mask for image in images if image.mask is not None]
        terms |= {
            "iou": [(c.intersection_px, c.union_px) for c in masks],
            "niou": [(c.iou_sum, c.iou_frames) for c in masks],
            "pd": [(c.matched, c.targets) for c in masks],
            "fa_per_mpx": [(1e6 * c.false_px, c.pixels) for c in masks],
        }
    return {
        name: None if pairs is None else np.array(pairs, np.float64)
        for name, pairs in terms.items()
    }
