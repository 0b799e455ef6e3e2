import pytest

from irstd_edge.edge.types import DecodeSpec, IrstdError, OperatingPoint

POINTS = tuple(
    OperatingPoint(*row)
    for row in [(0.1, 1.0, 9.0), (0.3, 0.9, 4.0), (0.5, 0.8, 5.0), (0.7, 0.7, 1.0), (0.9, 0.5, 0.5)]
)


@pytest.mark.parametrize(
    ("max_fa", "threshold"),
    [(9.0, 0.1), (8.9, 0.3), (4.5, 0.3), (3.9, 0.7), (0.5, 0.9)],
)
def test_the_lowest_threshold_that_keeps_false_alarms_down(max_fa, threshold) -> None:
    """At 4.5 too it is 0.3, though a little above it there were more."""
    for kind in ("heatmap", "mask"):
        assert DecodeSpec(kind, 0.5, POINTS).point_at(max_fa).threshold == threshold


def test_of_thresholds_at_which_masks_find_as_many_the_nearest_to_their_own_is_taken() -> None:
    rows = [(0.1, 0.99, 29.2), (0.2, 0.99, 28.6), (0.5, 0.99, 31.1), (0.9, 0.97, 30.0)]
    points = tuple(OperatingPoint(*row) for row in rows)
    asked = {30.0: 0.2, 29.0: 0.2, 32.0: 0.5, 1000.0: 0.5}
    assert {fa: DecodeSpec("mask", 0.5, points).point_at(fa).threshold for fa in asked} == asked
    assert DecodeSpec("heatmap", 0.5, points).point_at(1000.0).threshold == 0.1


def test_too_few_false_alarms_are_out_of_reach() -> None:
    with pytest.raises(IrstdError, match=r"--max-fa: 0.4 per Mpx is out of reach.*0.50 at.* 0.9;"):
        DecodeSpec("mask", 0.5, POINTS).point_at(0.4)


def test_weights_may_not_know_their_operating_points() -> None:
    with pytest.raises(IrstdError, match="--max-fa: these weights do not say"):
        DecodeSpec("mask").point_at(1.0)
