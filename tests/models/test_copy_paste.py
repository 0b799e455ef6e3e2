import numpy as np
import pytest

from irstd_edge.models.copy_paste import (
    FAINTEST,
    FAINTEST_OF_SCALE,
    GAIN,
    GAP_PX,
    Patch,
    cut_target,
    paste,
)

SIZE = 64
NONE = np.zeros((SIZE, SIZE), np.float32)
NO_POINTS, NO_RADII = np.zeros((0, 2), np.float32), np.zeros(0, np.float32)


def spot(row: float, col: float, height: float) -> np.ndarray:
    rows, cols = np.mgrid[:SIZE, :SIZE]
    return (height * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * 1.2**2))).astype("f4")


def noise(deviation: float, level: float = 0.4) -> np.ndarray:
    return np.random.default_rng(1).normal(level, deviation, (SIZE, SIZE)).astype("f4")


def donor(row: float = 30.3, col: float = 25.8, height: float = 0.3) -> Patch:
    image = noise(0.01) + spot(row, col, height)
    mask = (spot(row, col, 1.0) > 0.5).astype("f4")
    patch = cut_target(image, mask, np.float32([[row, col]]), np.float32([1.5]), 0)
    assert patch is not None
    return patch


def pasted(image: np.ndarray, seed: int, patch: Patch | None = None):
    rng = np.random.default_rng(seed)
    return paste(image, NONE, NO_POINTS, NO_RADII, patch or donor(), rng)


@pytest.mark.parametrize("height", [0.3, -0.3])
def test_a_target_is_cut_out_without_its_background(height: float) -> None:
    patch = donor(height=height)
    half = len(patch.contrast) // 2
    assert patch.contrast[half, half] == pytest.approx(height, abs=0.04)
    border = np.r_[patch.contrast[[0, -1]].ravel(), patch.contrast[:, [0, -1]].ravel()]
    assert abs(border).max() < 0.01  # so that no edge shows
    assert patch.offset == pytest.approx([0.3, -0.2], abs=1e-5)
    assert patch.mask.sum() == (spot(30.3, 25.8, 1.0) > 0.5).sum()


@pytest.mark.parametrize(
    ("row", "col", "height"), [(30, 26, 0.015), (3, 26, 0.3), (30, 61, 0.3), (60.4, 2, 0.3)]
)
def test_what_does_not_come_out_clean_is_left(row: float, col: float, height: float) -> None:
    image = noise(0.02) + spot(row, col, height)  # too faint, or too near to the border
    assert cut_target(image, NONE, np.float32([[row, col]]), np.float32([1.5]), 0) is None


@pytest.mark.parametrize("apart", [4.0, 6.0, 8.0, 20.0])
def test_a_target_near_another_is_left(apart: float) -> None:
    """Or the other's light would come with it, without its point."""
    image = noise(0.01) + spot(30, 20, 0.3) + spot(30, 20 + apart, 0.3)
    points, radii = np.float32([[30, 20], [30, 20 + apart]]), np.float32([1.5, 1.5])
    found = [cut_target(image, NONE, points, radii, at) is not None for at in (0, 1)]
    assert found == [apart > 10] * 2


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_where_there_is_nothing_nothing_is_cut(level: float) -> None:
    image = np.full((SIZE, SIZE), level, np.float32)
    assert cut_target(image, NONE, np.float32([[30, 26]]), np.float32([1.5]), 0) is None


def test_what_is_pasted_is_where_its_point_says() -> None:
    for seed in range(20):
        image, mask, points, radii = pasted(noise(0.0), seed)
        ((row, col),) = points
        added = abs(image - noise(0.0)) * (abs(image - noise(0.0)) > 0.05)
        if not (10 < row < SIZE - 10 and 10 < col < SIZE - 10):
            continue
        rows, cols = np.mgrid[:SIZE, :SIZE]
        found = (rows * added).sum() / added.sum(), (cols * added).sum() / added.sum()
        assert found == pytest.approx((row, col), abs=0.3)
        held = np.argwhere(mask).mean(axis=0)
        assert held == pytest.approx((row, col), abs=0.5)
        assert radii.tolist() == [1.5]


def test_contrast_varies_within_its_range_and_the_input_is_left_alone() -> None:
    image = noise(0.0)
    before, highest = image.copy(), []
    for seed in range(60):
        found, _, points, _ = pasted(image, seed)
        assert len(points) == 1
        highest.append(float((found - image).max()))
    assert np.array_equal(image, before)
    low, high = (gain * donor().contrast.max() for gain in GAIN)
    assert low * 0.9 < min(highest) < 1.3 * low  # at a border the peak may be cut off
    assert 0.8 * high < max(highest) <= high * 1.001


def test_a_pasted_target_can_be_seen() -> None:
    faint = donor(height=0.05)
    for deviation in (0.0, 0.05):
        for seed in range(30):
            image = noise(deviation)
            found, _, points, _ = pasted(image, seed, faint)
            added = abs(found - image).max()
            assert len(points) == 0 or added >= 0.9 * max(
                FAINTEST * deviation * 0.7, FAINTEST_OF_SCALE
            )
            assert len(points) == (added > 0)


def test_nothing_is_pasted_where_it_would_be_cut_off_by_full_scale() -> None:
    for seed in range(10):
        image, mask, points, _ = pasted(np.ones((SIZE, SIZE), np.float32), seed)
        assert len(points) == 0 and not mask.any() and (image == 1).all()


def test_targets_keep_apart() -> None:
    patch, rng = donor(), np.random.default_rng(2)
    state = noise(0.0), NONE, NO_POINTS, NO_RADII
    for _ in range(300):
        state = paste(*state, patch, rng)
    points, radii = state[2:]
    assert len(points) == len(radii) > 10
    apart = np.hypot(*(points[:, None] - points).transpose(2, 0, 1))
    apart[np.diag_indices(len(points))] = np.inf
    assert apart.min() >= 2 * (1.5 + 1.5) + GAP_PX
    assert (points > -0.5).all() and (points < SIZE - 0.5).all()
