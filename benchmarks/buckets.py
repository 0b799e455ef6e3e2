"""Which targets are found: by their size and by how far they stand out. A mean hides the faint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from irstd_edge.benchmarks.accuracy import Evaluation
from irstd_edge.benchmarks.targets import Target

AREA_EDGES_PX = (0, 9, 25, 50, math.inf)
"""Of targets: up to 3x3 pixels, up to 5x5, up to about 7x7, and larger."""
SCR_EDGES = (0, 1.5, 3, 6, math.inf)
"""Signal-to-clutter ratios: under 1.5 a target drowns in its background."""


def buckets(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """`by_area` and `by_scr`: targets and those found, of each range of area and of SCR.

    {"above", "up_to", "targets", "found", "pd"}; `up_to` null is no limit, `pd` null where a range
    holds no target. Targets whose area or SCR is unknown are in no range.
    """
    targets = [target for image in evaluation.images for target in image.targets]
    return {
        "by_area": _by(targets, lambda target: target.area_px, AREA_EDGES_PX),
        "by_scr": _by(targets, lambda target: target.scr, SCR_EDGES),
    }


def _by(
    targets: Sequence[Target],
    value_of: Callable[[Target], float | None],
    edges: Sequence[float],
) -> list[dict[str, Any]]:
    ranges = []
    for above, up_to in pairwise(edges):
        inside = [
            target
            for target in targets
            if (value := value_of(target)) is not None and above < value <= up_to
        ]
        found = sum(target.matched for target in inside)
        ranges.append(
            {
                "above": above,
                "up_to": None if up_to == math.inf else up_to,
                "targets": len(inside),
                "found": found,
                "pd": found / len(inside) if inside else None,
            }
        )
    return ranges
