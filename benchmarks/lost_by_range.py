"""How many targets of each range of area and of SCR were lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irstd_edge.benchmarks.buckets import flips_by_range, range_name

KEYS = {"lost_by_area": "area_px", "lost_by_scr": "scr"}
"""What each section of gate.toml counts by."""


@dataclass(frozen=True)
class LostByRange:
    """The targets of two sides, and those that the second one lost."""

    ranges: Mapping[tuple[str, str], tuple[int, int]]
    """(lost_by_area or lost_by_scr, range) -> targets in it, and those that were lost."""
    unknown: Mapping[str, tuple[int, int]]
    """lost_by_area or lost_by_scr -> the same of targets whose area or SCR is not known."""


def lost_by_range(targets: Sequence[Mapping[str, Any]]) -> LostByRange:
    """Counted from the targets themselves: `area_px`, `scr` and `flip` of each."""
    ranges = {
        (f"lost_{by}", range_name(each["above"], each["up_to"])): (each["targets"], each["lost"])
        for by, ranges in flips_by_range(targets).items()
        for each in ranges
    }
    return LostByRange(ranges, {name: _unknown(targets, key) for name, key in KEYS.items()})


def _unknown(targets: Sequence[Mapping[str, Any]], key: str) -> tuple[int, int]:
    flips = [target["flip"] for target in targets if target[key] is None]
    return len(flips), flips.count("lost")
