import math
from itertools import pairwise

import pytest

from irstd_edge.benchmarks.accuracy import Evaluation, ImageResult
from irstd_edge.benchmarks.buckets import (
    AREA_EDGES_PX,
    SCR_EDGES,
    buckets,
    flips_by_range,
    range_names,
)
from irstd_edge.benchmarks.counts import PointCounts
from irstd_edge.benchmarks.targets import Target


def evaluation(*targets: tuple[int | None, float | None, bool]) -> Evaluation:
    """(area, SCR, found) of each target, each in a frame of its own."""
    nothing = PointCounts()
    return Evaluation(
        "native",
        tuple(
            ImageResult(
                f"f{k}", (8, 8), None, nothing, nothing, (Target(1, 1, *target, score=0.5),), ()
            )
            for k, target in enumerate(targets)
        ),
    )


def counts(ranges: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(each["targets"], each["found"]) for each in ranges]


def test_a_target_on_an_edge_is_in_the_lower_range() -> None:
    found = buckets(evaluation((9, 1.5, True), (10, 1.6, False), (25, 6.0, True), (51, 6.1, True)))
    assert counts(found["by_area"]) == [(1, 1), (2, 1), (0, 0), (1, 1)]
    assert counts(found["by_scr"]) == [(1, 1), (1, 0), (1, 1), (1, 1)]
    assert [each["pd"] for each in found["by_area"]] == [1.0, 0.5, None, 1.0]


def test_no_contrast_at_all_is_in_the_lowest_range() -> None:
    assert counts(buckets(evaluation((4, 0.0, False)))["by_scr"])[0] == (1, 0)


def test_flips_are_counted_in_the_same_ranges() -> None:
    rows = [
        {"area_px": 9, "scr": 1.5, "flip": "lost"},
        {"area_px": 10, "scr": 1.4, "flip": "lost"},
        {"area_px": None, "scr": 0.0, "flip": "gained"},
        {"area_px": 60, "scr": None, "flip": None},
    ]
    found = flips_by_range(rows)
    flips = {
        name: [(each["targets"], each["lost"], each["gained"]) for each in ranges]
        for name, ranges in found.items()
    }
    assert flips == {
        "by_area": [(1, 1, 0), (1, 1, 0), (0, 0, 0), (1, 0, 0)],
        "by_scr": [(3, 2, 1), (0, 0, 0), (0, 0, 0), (0, 0, 0)],
    }
    assert found["by_scr"][-1]["up_to"] is None


def test_ranges_have_names() -> None:
    assert range_names(SCR_EDGES) == ("0 to 1.5", "1.5 to 3", "3 to 6", "over 6")
    assert range_names(AREA_EDGES_PX) == ("0 to 9", "9 to 25", "25 to 50", "over 50")


def test_what_is_unknown_is_in_no_range() -> None:
    found = buckets(evaluation((None, 2.0, True), (4, None, False)))
    assert counts(found["by_area"]) == [(1, 0), (0, 0), (0, 0), (0, 0)]
    assert counts(found["by_scr"]) == [(0, 0), (1, 1), (0, 0), (0, 0)]


@pytest.mark.parametrize("edges", [AREA_EDGES_PX, SCR_EDGES])
def test_ranges_follow_each_other_without_an_end(edges: tuple[float, ...]) -> None:
    assert edges[0] == 0 and edges[-1] == math.inf
    assert all(lower < higher for lower, higher in pairwise(edges))
