"""How hard a target is to see: its signal-to-clutter ratio (SCR)."""

from __future__ import annotations

import numpy as np

from irstd_edge.edge.types import BoolArray, CountArray

RING_PX = 20
"""Width of the local background around the target's bounding box, as in Gao et al., "Infrared
patch-image model for small target detection in a single image", IEEE TIP 2013."""


def signal_to_clutter(counts: CountArray, target: BoolArray, occupied: BoolArray) -> float | None:
    """|mean of the target - mean of its background| / standard deviation of the background.

    All three are (H, W). The background is the target's bounding box grown by `RING_PX`, less
    every pixel of `occupied` (all targets). None where it is empty or has no variation.
    """
    rows, cols = np.nonzero(target)
    if not rows.size:
        return None
    window = np.s_[
        max(rows.min() - RING_PX, 0) : rows.max() + RING_PX + 1,
        max(cols.min() - RING_PX, 0) : cols.max() + RING_PX + 1,
    ]
    ring = counts[window][~(occupied | target)[window]].astype(np.float64)
    if not ring.size or ring.min() == ring.max():
        return None
    return float(abs(counts[rows, cols].mean(dtype=np.float64) - ring.mean()) / ring.std())
