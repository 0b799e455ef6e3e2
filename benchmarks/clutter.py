"""How hard a target is to see: its signal-to-clutter ratio (SCR)."""

from __future__ import annotations

import numpy as np

from irstd_edge.benchmarks.matching import foreground_box
from irstd_edge.edge.types import BoolArray, CountArray

RING_PX = 20
"""Width of the local background around the target's bounding box, as in Gao et al., "Infrared
patch-image model for small target detection in a single image", IEEE TIP 2013."""


def signal_to_clutter(counts: CountArray, target: BoolArray, occupied: BoolArray) -> float | None:
    """|mean of the target - mean of its background| / standard deviation of the background.

    All three are (H, W). The background is the target's bounding box grown by `RING_PX`, less
    every pixel of `occupied` (all targets). None where it is empty or has no variation.
    """
    rows, cols = foreground_box(target)
    own = counts[rows, cols][target[rows, cols]]
    if not own.size:
        return None
    window = np.s_[
        max(rows.start - RING_PX, 0) : rows.stop + RING_PX,
        max(cols.start - RING_PX, 0) : cols.stop + RING_PX,
    ]
    ring = counts[window][~(occupied[window] | target[window])].astype(np.float64)
    if not ring.size or ring.min() == ring.max():
        return None
    return float(abs(own.mean(dtype=np.float64) - ring.mean()) / ring.std())
