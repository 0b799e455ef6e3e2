import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd_edge.edge.detect import HEATMAP_STRIDE as STRIDE
from irstd_edge.edge.detect import LOG_SIGMA_RANGE, predict_from_outputs
from irstd_edge.edge.types import DecodeSpec
from irstd_edge.models.point_targets import radii_px, render_points

SHAPE = (64, 80)


def targets(*rows: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(row, col, radius) of each -> points (M, 2) and radii (M,)."""
    table = np.array(rows, np.float32).reshape(-1, 3)
    return table[:, :2], table[:, 2]


def disc(shape: tuple[int, int], row: float, col: float, radius: float) -> np.ndarray:
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return (np.hypot(rows - row, cols - col) <= radius).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0, 3.5, 5.0])
def test_radius_is_that_of_a_disc(radius: float, sign: int) -> None:
    covered = disc((40, 40), 20, 17, radius)
    image = 0.4 + sign * 0.3 * covered
    expected = math.sqrt(covered.sum() / math.pi)
    assert radii_px(image, np.float32([[20, 17]])) == pytest.approx([expected])


def test_radius_leaves_out_what_is_not_connected() -> None:
    image = 0.2 + 0.5 * disc((40, 40), 20, 20, 2) + 0.5 * disc((40, 40), 14, 26, 2)
    alone = radii_px(0.2 + 0.5 * disc((40, 40), 20, 20, 2), np.float32([[20, 20]]))
    assert radii_px(image, np.float32([[20, 20]])) == pytest.approx(alone)


def test_radius_bears_a_point_that_is_a_pixel_off() -> None:
    image = 0.2 + 0.5 * disc((40, 40), 20, 20, 2)
    exact, off = radii_px(image, np.float32([[20, 20], [21.4, 19]]))
    assert off == pytest.approx(exact)


@pytest.mark.parametrize("point", [(0, 0), (-0.4, 39.4), (39.4, 39.4), (0, 20)])
def test_radius_at_the_border_and_on_a_flat_frame(point: tuple[float, float]) -> None:
    smallest = math.sqrt(1 / math.pi)
    assert radii_px(np.full((40, 40), 0.3, np.float32), np.float32([point])) >= smallest - 1e-6
    bright = disc((40, 40), *(min(max(x, 0), 39) for x in point), 1.5)
    assert 0.5 < radii_px(bright, np.float32([point]))[0] < 3


def test_radii_of_no_points() -> None:
    assert radii_px(np.zeros((8, 8), np.float32), np.zeros((0, 2), np.float32)).shape == (0,)


def test_no_points_render_to_nothing() -> None:
    target = render_points(*targets(), SHAPE)
    assert target.shape == (5, SHAPE[0] // STRIDE, SHAPE[1] // STRIDE)
    assert not target.any()


def test_one_point_by_hand() -> None:
    """(10, 21) lies in cells at (4.75, 10.25): 5 - 0.25 and 10 + 0.25."""
    target = render_points(*targets((10, 21, 2.0)), SHAPE)
    heat, dx, dy, log_sigma, where = target
    assert np.argwhere(heat == 1).tolist() == [[5, 10]]
    assert np.argwhere(where == 1).tolist() == [[i, j] for i in (4, 5, 6) for j in (9, 10, 11)]
    assert (dx[5, 10], dy[5, 10]) == (0.25, -0.25)
    assert (dx[4, 9], dy[4, 9]) == (1.25, 0.75)
    assert log_sigma[5, 10] == pytest.approx(math.log(2.0 / STRIDE))
    sigma = 0.75 + 0.4 * 2.0 / STRIDE
    expected = math.exp(-(1.25**2 + 0.25**2) / (2 * sigma**2))
    assert heat[6, 10] == pytest.approx(expected)
    assert not dx[where == 0].any()


@pytest.mark.parametrize(
    ("point", "cells"),
    [
        ((10.5, 20.5), [[5, 10]]),  # the centre of a cell
        ((10.5, 21.5), [[5, 10], [5, 11]]),  # on the edge of two
        ((11.5, 21.5), [[5, 10], [5, 11], [6, 10], [6, 11]]),  # where four meet
        ((10.6, 21.1), [[5, 10], [5, 11]]),  # 0.7 cells from the second
        ((10.6, 20.9), [[5, 10]]),
    ],
)
def test_a_point_between_cells_is_in_all_of_them(
    point: tuple[float, float], cells: list[list[int]]
) -> None:
    target = render_points(*targets((*point, 2.0)), SHAPE)
    assert np.argwhere(target[0] == 1).tolist() == cells
    for i, j in cells:
        assert STRIDE * (i + target[2, i, j]) + 0.5 == pytest.approx(point[0], abs=1e-5)
        assert STRIDE * (j + target[1, i, j]) + 0.5 == pytest.approx(point[1], abs=1e-5)


def test_cells_between_two_targets_learn_the_nearer() -> None:
    """Cells 5 and 7 hold a target each: the column between is nearer to the second."""
    target = render_points(*targets((10.5, 10.5, 1.0), (10.5, 14.1, 1.0)), SHAPE)
    assert target[1][5, 6] == pytest.approx(6.8 - 6)
    assert target[1][5, 4:9] == pytest.approx([1.0, 0.0, 0.8, -0.2, -1.2])


def test_heat_overlaps_by_the_maximum() -> None:
    one, other = (render_points(*targets(t), SHAPE)[0] for t in ((20, 20, 2), (24, 22, 3)))
    both = render_points(*targets((20, 20, 2), (24, 22, 3)), SHAPE)[0]
    assert np.array_equal(both, np.maximum(one, other))


@pytest.mark.parametrize(("radius", "limit"), [(0.01, 0), (500.0, 1)])
def test_log_sigma_keeps_within_the_heads_range(radius: float, limit: int) -> None:
    target = render_points(*targets((10, 10, radius)), SHAPE)
    assert target[3][target[4] == 1] == pytest.approx([LOG_SIGMA_RANGE[limit]] * 9)


@pytest.mark.parametrize("point", [(-0.5, -0.5), (63.5, 79.5), (-0.5, 79.5), (0, 40)])
def test_a_point_on_the_border_has_its_cell_inside(point: tuple[float, float]) -> None:
    target = render_points(*targets((*point, 1.0)), SHAPE)
    ((i, j),) = np.argwhere(target[0] == 1)
    assert STRIDE * (i + target[2, i, j]) + 0.5 == pytest.approx(point[0])
    assert STRIDE * (j + target[1, i, j]) + 0.5 == pytest.approx(point[1])


@st.composite
def apart(draw: st.DrawFn) -> list[tuple[float, float, float]]:
    """Up to four targets whose discs leave each other alone, anywhere in the frame."""
    found: list[tuple[float, float, float]] = []
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.floats(0, SHAPE[0] - 1, width=32))
        col = draw(st.floats(0, SHAPE[1] - 1, width=32))
        radius = draw(st.floats(0.5, 5.0, width=32))
        if all(math.hypot(row - r, col - c) > max(10, radius, s) for r, c, s in found):
            found.append((row, col, radius))
    return found


@settings(max_examples=150, deadline=None)
@given(apart())
def test_what_is_rendered_is_decoded_to_the_same_points(rows: list[tuple[float, ...]]) -> None:
    target = render_points(*targets(*rows), SHAPE)
    p = np.clip(target[:1], 1e-4, 1 - 1e-4)
    logits = np.log(p / (1 - p)).astype(np.float32)
    found = predict_from_outputs([logits, target[1:4]], SHAPE, DecodeSpec("heatmap", 0.5))
    assert len(found.detections) == len(rows)
    for row, col, radius in rows:
        near = min(found.detections, key=lambda d: math.hypot(d.row - row, d.col - col))
        assert math.hypot(near.row - row, near.col - col) < 0.1
        # The disc of the decoded sigma is the one that was measured, within the head's range.
        sigma_px = STRIDE * math.exp(max(math.log(radius / STRIDE), LOG_SIGMA_RANGE[0]))
        assert near.area_px == pytest.approx(math.pi * sigma_px**2, rel=1e-4)
