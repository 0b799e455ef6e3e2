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
    assert DecodeSpec("mask", 0.5, POINTS).point_at(max_fa).threshold == threshold


def test_too_few_false_alarms_are_out_of_reach() -> None:
    with pytest.raises(IrstdError, match=r"--max-fa: 0.4 per Mpx is out of reach.*0.50 at.* 0.9;"):
        DecodeSpec("mask", 0.5, POINTS).point_at(0.4)


def test_weights_may_not_know_their_operating_points() -> None:
    with pytest.raises(IrstdError, match="--max-fa: these weights do not say"):
        DecodeSpec("mask").point_at(1.0)
