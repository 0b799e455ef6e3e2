"""Which targets are found: by their size and by how far they stand out. A mean hides the faint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from irstd_edge.benchmarks.accuracy import Evaluation
from irstd_edge.benchmarks.targets import Target

Item = TypeVar("Item")

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


def flips_by_range(targets: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """`by_area` and `by_scr` of a drift entry's `targets`.

    {"above", "up_to", "targets", "lost", "gained"}, for the same ranges as `buckets`.
    """
    return {
        "by_area": _flips(targets, "area_px", AREA_EDGES_PX),
        "by_scr": _flips(targets, "scr", SCR_EDGES),
    }


def range_names(edges: Sequence[float]) -> tuple[str, ...]:
    """How each range is called on screen, on the page and in gate.toml: 0 to 9, ..., over 50."""
    return tuple(range_name(above, up_to) for above, up_to in pairwise(edges))


def range_name(above: float, up_to: float | None) -> str:
    """The name of one range; `up_to` None or infinite is no limit."""
    is_open = up_to is None or up_to == math.inf
    return f"over {above:g}" if is_open else f"{above:g} to {up_to:g}"


def _flips(
    targets: Sequence[Mapping[str, Any]], key: str, edges: Sequence[float]
) -> list[dict[str, Any]]:
    return [
        {
            **ends,
            "targets": len(inside),
            "lost": sum(target["flip"] == "lost" for target in inside),
            "gained": sum(target["flip"] == "gained" for target in inside),
        }
        for ends, inside in ranges_of(targets, lambda target: target[key], edges)
    ]


def _by(
    targets: Sequence[Target],
    value_of: Callable[[Target], float | None],
    edges: Sequence[float],
) -> list[dict[str, Any]]:
    ranges = []
    for ends, inside in ranges_of(targets, value_of, edges):
        found = sum(target.matched for target in inside)
        pd = found / len(inside) if inside else None
        ranges.append({**ends, "targets": len(inside), "found": found, "pd": pd})
    return ranges


def ranges_of(
    items: Sequence[Item], value_of: Callable[[Item], float | None], edges: Sequence[float]
) -> Iterator[tuple[dict[str, float | None], list[Item]]]:
    """The ends of each range and what lies in it; the lowest edge belongs to the first."""
    known = [(value, item) for item in items if (value := value_of(item)) is not None]
    for above, up_to in pairwise(edges):
        ends = {"above": above, "up_to": None if up_to == math.inf else up_to}
        lowest = above == edges[0]
        inside = [
            item for value, item in known if above < value <= up_to or (lowest and value == above)
        ]
        yield ends, inside
