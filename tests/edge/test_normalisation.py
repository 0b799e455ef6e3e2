import numpy as np
import pytest

from irstd_edge.edge.frames import normalise
from irstd_edge.edge.normalisation import (
    BY_DEPTH,
    FULL_SCALE,
    LOCAL_CONTRAST,
    NORMALISATIONS,
    PERCENTILE,
    ROUNDING,
    counts_per_unit,
    noise_counts,
    policy_of,
    range_of,
    stretch_of,
    with_normalisation,
)
from irstd_edge.edge.types import DecodeSpec, Frame, InputSpec, IrstdError, ModelSpec

SLOPE = np.arange(10_000, dtype=np.uint16).reshape(100, 100)


def spec(name: str) -> InputSpec:
    return InputSpec(stride=8, normalisation=name)


def noisy(sigma: float, shape: tuple[int, int] = (300, 200), level: float = 8000) -> np.ndarray:
    random = np.random.default_rng(5)
    return np.rint(level + random.normal(0, sigma, shape)).astype(np.uint16)


def test_by_depth_leaves_8_bits_as_they_were_and_stretches_deeper_frames() -> None:
    counts = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    image = normalise(Frame("x", counts, 8), spec(BY_DEPTH))
    np.testing.assert_array_equal(image, counts.astype(np.float32) / np.float32(255))
    for depth in (10, 12, 14, 16):
        frame = Frame("x", counts.astype(np.uint16), depth)
        assert policy_of(frame, spec(BY_DEPTH)) == PERCENTILE
        deep, own = (normalise(frame, spec(name)) for name in (BY_DEPTH, PERCENTILE))
        np.testing.assert_array_equal(deep, own)


def test_percentiles_of_a_slope_by_hand() -> None:
    """A slope has no noise but rounding: 1 % of 10 000 levels are at or below 99, 99 % at 9899."""
    found = range_of(SLOPE)
    assert (found.middle, found.width) == (4999.0, 9800.0)
    image = normalise(Frame("slope", SLOPE, 14), spec(PERCENTILE))
    picked = image.ravel()[[99, 4999, 9899]]
    np.testing.assert_allclose(picked, [0.2, 0.45, 0.7], rtol=1e-6)
    assert counts_per_unit(Frame("slope", SLOPE, 14), spec(PERCENTILE)) == pytest.approx(19600)
    assert counts_per_unit(Frame("slope", SLOPE, 14), spec(FULL_SCALE)) == 16383


@pytest.mark.parametrize("sigma", [1.5, 12.0, 400.0])
def test_noise_is_told_from_slopes_steps_and_targets(sigma: float) -> None:
    counts = noisy(sigma)
    counts += (np.arange(200, dtype=np.uint16) * 30)[None]
    counts[100:, :] += 5000
    counts[40:43, 50:53] += 300
    assert noise_counts(counts) == pytest.approx(sigma, rel=0.1)


def test_noise_of_a_constant_frame_and_of_a_single_row_is_that_of_rounding() -> None:
    for shape in ((20, 20), (1, 20), (20, 1)):
        assert noise_counts(np.full(shape, 7, np.uint8)) == ROUNDING == pytest.approx(0.2887, 1e-3)


@pytest.mark.parametrize("name", [PERCENTILE, LOCAL_CONTRAST])
def test_a_uniform_frame_stays_flat(name: str) -> None:
    """The noise of a shutter frame is not stretched into structure."""
    for counts in (noisy(10), np.full((40, 40), 8000, np.uint16)):
        assert normalise(Frame("flag", counts, 16), spec(name)).std() < 0.017


@pytest.mark.parametrize("name", [PERCENTILE, LOCAL_CONTRAST])
def test_a_faint_target_of_16_bits_stands_out(name: str) -> None:
    counts = noisy(9)
    counts[100:103, 60:63] += 300
    frame = Frame("faint", counts, 16)
    image = normalise(frame, spec(name))
    rise = image[100:103, 60:63].mean() - np.median(image)
    assert rise > 0.25
    assert rise == pytest.approx(300 / counts_per_unit(frame, spec(name)), rel=0.25)
    assert normalise(frame, spec(FULL_SCALE))[101, 61] - np.median(counts) / 65535 < 0.006


def test_a_few_hot_and_dead_pixels_do_not_move_the_range() -> None:
    counts = noisy(300)
    before = range_of(counts)
    counts.ravel()[::400], counts.ravel()[1::400] = 65535, 0  # a quarter of a percent each
    after = range_of(counts)
    assert after.middle == pytest.approx(before.middle, abs=30)
    assert after.width == pytest.approx(before.width, rel=0.02)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_a_part_of_a_frame_equals_that_part_of_the_whole(name: str) -> None:
    counts = noisy(40, (300, 90)) + SLOPE[0, :90] * 9
    frame = Frame("x", counts, 14)
    whole = normalise(frame, spec(name))
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 1
    stretch = stretch_of(frame, spec(name))
    for rows, cols in (((0, 64), (0, 64)), ((120, 200), (30, 80)), ((250, 320), (40, 120))):
        part = stretch(slice(*rows), slice(*cols))
        np.testing.assert_array_equal(part, whole[slice(*rows), slice(*cols)])


def test_local_contrast_by_hand() -> None:
    """At the middle of 65x65: the mean and the deviation of all of them."""
    counts = noisy(100, (65, 65))
    counts[32, 32] = 8400
    expected = (8400 - counts.mean()) / (16 * 4 * noise_counts(counts)) + 0.45
    image = normalise(Frame("x", counts, 16), spec(LOCAL_CONTRAST))
    assert image[32, 32] == pytest.approx(expected, rel=1e-5)
    counts[::2] += 2000  # now the local deviation is more than 4 noises of 100
    assert counts.std() > 1000 > 4 * noise_counts(counts)
    expected = (counts[32, 32] - counts.mean()) / (16 * counts.std()) + 0.45
    image = normalise(Frame("x", counts, 16), spec(LOCAL_CONTRAST))
    assert image[32, 32] == pytest.approx(expected, rel=1e-5)


def test_another_policy_is_chosen_by_name() -> None:
    model = ModelSpec("p2p", spec(BY_DEPTH), DecodeSpec("heatmap"))
    assert with_normalisation(model, None) is model
    for name in NORMALISATIONS:
        assert with_normalisation(model, name).input == spec(name)
    words = "--normalise: 'z-score' is not known, use one of full-scale, percentile, local-contrast"
    with pytest.raises(IrstdError, match=words):
        with_normalisation(model, "z-score")
