import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd_edge.edge.frames import points_of_mask, resize_bilinear
from irstd_edge.edge.types import Frame, InputSpec, Sample
from irstd_edge.models import batches as batches_module
from irstd_edge.models.batches import (
    Augmentation,
    Labelled,
    PaperAugmentation,
    crop,
    epoch_crops,
    epoch_order,
    labelled,
    mask_batch,
    point_batch,
    steps_per_epoch,
)
from irstd_edge.models.point_targets import render_points

PLAIN = Augmentation(32, aim=1.0, gain=0.0, offset=0.0, noise=0.0)
ALL = Augmentation(32)
PAPER = PaperAugmentation(32, (16, 64), blur_px=0.0)


def spot(shape: tuple[int, int], row: float, col: float) -> Labelled:
    """A frame with one bright Gaussian spot on black, a mask of its 3x3 pixels, its point."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    image = np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * 1.2**2)).astype(np.float32)
    mask = ((abs(rows - round(row)) <= 1) & (abs(cols - round(col)) <= 1)).astype(np.float32)
    point = np.array([[row, col]], np.float32)
    return Labelled(image, mask, point, np.array([1.5], np.float32))


def frames(count: int = 5) -> list[Labelled]:
    """Frames that differ in size and content."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(count):
        at = rng.uniform(10, 30, 2)
        source = spot((40 + 2 * k, 48), *at)
        image = np.clip(source.image + 0.1 * rng.random(source.image.shape, np.float32), 0, 1)
        found.append(replace(source, image=image))
    return found


def centroid(image: np.ndarray) -> tuple[float, float]:
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
    return (rows * image).sum() / image.sum(), (cols * image).sum() / image.sum()


def same(one: Labelled, other: Labelled) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(parts(one), parts(other), strict=True))


def parts(cut: Labelled) -> tuple[np.ndarray, ...]:
    return cut.image, cut.mask, cut.points, cut.radii


def drawn(how=ALL, **options) -> list[list[Labelled]]:
    settled = {"batch_size": 4, "seed": 3, "epoch": 2} | options
    return list(epoch_crops(frames(10), how, **settled))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    row=st.floats(8, 51, width=32),
    col=st.floats(8, 39, width=32),
    zoom=st.tuples(st.floats(0.6, 1.0), st.floats(1.0, 1.8)),
)
def test_points_follow_their_pixels(seed: int, row: float, col: float, zoom) -> None:
    source = spot((60, 48), row, col)
    cut = crop(source, replace(PLAIN, zoom=zoom), np.random.default_rng(seed))
    assert cut.image.shape == cut.mask.shape == (32, 32)
    (point,), (radius,) = cut.points, cut.radii
    assert zoom[0] * 1.5 * 0.999 <= radius <= zoom[1] * 1.5 * 1.001
    if (np.abs(point - 15.5) < 15.5 - 8).all():  # the whole spot is inside
        assert centroid(cut.image) == pytest.approx(tuple(point), abs=0.1)
        assert centroid(cut.mask) == pytest.approx(tuple(point), abs=1.5)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(60, 48), (48, 60), (24, 20), (96, 96)]),
    where=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
)
def test_points_follow_their_pixels_in_the_papers_crops(seed: int, shape, where) -> None:
    row, col = where[0] * (shape[0] - 1), where[1] * (shape[1] - 1)
    cut = crop(spot(shape, row, col), PAPER, np.random.default_rng(seed))
    assert cut.image.shape == cut.mask.shape == (32, 32)
    if len(cut.points) and (np.abs(cut.points[0] - 15.5) < 15.5 - 9).all():
        assert centroid(cut.image) == pytest.approx(tuple(cut.points[0]), abs=0.15)
        if cut.radii[0] > 0.5:  # smaller than a third, and a 3x3 mask may fall between pixels
            assert centroid(cut.mask) == pytest.approx(tuple(cut.points[0]), abs=1.5)


def test_all_eight_symmetries_are_drawn() -> None:
    source = spot((32, 32), 6, 11)
    how = replace(PLAIN, zoom=(1.0, 1.0))
    found = {tuple(crop(source, how, np.random.default_rng(s)).points[0]) for s in range(80)}
    places = itertools.product((6, 25), (11, 20))
    assert found == {p for pair in places for p in (pair, pair[::-1])}


def test_without_turns_the_sky_stays_above() -> None:
    source = spot((32, 32), 6, 11)
    how = replace(PLAIN, zoom=(1.0, 1.0), turn=False)
    cuts = [crop(source, how, np.random.default_rng(s)) for s in range(20)]
    assert {tuple(cut.points[0]) for cut in cuts} == {(6, 11), (6, 20)}
    for cut in cuts:
        assert centroid(cut.image) == pytest.approx(tuple(cut.points[0]), abs=0.05)
        assert centroid(cut.mask) == pytest.approx(tuple(cut.points[0]), abs=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_without_zoom_no_pixel_is_made_up(seed: int) -> None:
    rng = np.random.default_rng(1)
    image = rng.permutation(70 * 50).reshape(70, 50).astype(np.float32) / 3500
    source = replace(spot((70, 50), 20.4, 30.7), image=image)
    cut = crop(source, replace(PLAIN, zoom=(1.0, 1.0)), np.random.default_rng(seed))
    counts = cut.image * 3500
    assert len(np.unique(counts.round())) == 32 * 32
    assert np.abs(counts - counts.round()).max() < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_of_a_frame_of_its_size_is_the_frame_turned(seed: int) -> None:
    image = np.random.default_rng(0).random((32, 32), np.float32)
    source = Labelled(image, image.round(), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    cut = crop(source, replace(PLAIN, zoom=(1.0, 1.0)), np.random.default_rng(seed))
    turned = [np.rot90(view, k) for view in (image, image[:, ::-1]) for k in range(4)]
    assert min(np.abs(cut.image - view).max() for view in turned) < 1e-6
    assert np.array_equal(cut.mask, cut.image.round())
    assert cut.points.shape == (0, 2)


@pytest.mark.parametrize("shape", [(20, 90), (16, 16), (31, 33)])
def test_a_frame_smaller_than_the_crop_is_centred_and_repeated(shape: tuple[int, int]) -> None:
    source = spot(shape, shape[0] / 2, shape[1] / 2)
    cut = crop(source, replace(PLAIN, zoom=(1.0, 1.0)), np.random.default_rng(4))
    assert cut.image.shape == (32, 32)
    assert centroid(cut.mask) == pytest.approx(tuple(cut.points[0]), abs=1.0)


def test_crops_are_aimed_at_targets() -> None:
    source = spot((256, 256), 40, 200)
    rngs = [np.random.default_rng(s) for s in range(60)]
    aimed = [len(crop(source, replace(PLAIN, aim=1.0), rng).points) for rng in rngs]
    free = [len(crop(source, replace(PLAIN, aim=0.0), rng).points) for rng in rngs]
    assert sum(aimed) == 60
    assert sum(free) < 10


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({}, False),
        ({"gain": 0.3}, True),
        ({"offset": 0.2}, True),
        ({"noise": 0.1}, True),
    ],
)
def test_each_change_of_light_can_be_turned_off(change: dict[str, float], moves: bool) -> None:
    source = frames(1)[0]
    plain = [crop(source, PLAIN, np.random.default_rng(s)) for s in range(8)]
    changed = [crop(source, replace(PLAIN, **change), np.random.default_rng(s)) for s in range(8)]
    # How often the generator is asked does not depend on the strength, so the windows are equal.
    differs = [not np.array_equal(a.image, b.image) for a, b in zip(plain, changed, strict=True)]
    assert any(differs) == moves
    for cut in changed:
        assert cut.image.dtype == cut.mask.dtype == np.float32
        assert cut.image.min() >= 0
        assert cut.image.max() <= 1
        assert set(np.unique(cut.mask)) <= {0.0, 1.0}


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 1), (2, 2)])
def test_the_smallest_targets_keep_a_mask(size: tuple[int, int]) -> None:
    """Resampled between pixels, one of a pixel is nowhere over a half."""
    height, width = size
    mask = np.zeros((64, 64), np.float32)
    mask[30 : 30 + height, 33 : 33 + width] = 1
    point = np.array([[30 + (height - 1) / 2, 33 + (width - 1) / 2]], np.float32)
    source = Labelled(mask * 0.5, mask, point, np.array([1.0], np.float32))
    cuts = [crop(source, Augmentation(32), np.random.default_rng(seed)) for seed in range(100)]
    shown = [cut for cut in cuts if len(cut.points)]
    assert len(shown) > 50
    for cut in shown:
        (at,) = cut.points
        rows, cols = np.nonzero(cut.mask)
        assert 1 <= len(rows) <= 3 * height * width
        assert np.hypot(rows - at[0], cols - at[1]).max() < 2


def test_a_hollow_target_stays_hollow() -> None:
    rows, cols = np.mgrid[:64, :64]
    distance = np.hypot(rows - 30, cols - 33)
    ring = ((distance > 5) & (distance < 8)).astype(np.float32)
    point = np.array([[30, 33]], np.float32)
    source = Labelled(ring, ring, point, np.array([7.0], np.float32))
    for seed in range(20):
        cut = crop(source, Augmentation(32), np.random.default_rng(seed))
        for row, col in np.rint(cut.points).astype(int):
            assert not cut.mask[row, col]


def test_labelled_measures_a_sample() -> None:
    counts = np.full((32, 32), 4000, np.uint16)
    mask = np.zeros((32, 32), np.bool_)
    mask[10:13, 20:23] = True
    counts[mask] = 16383
    sample = Sample(Frame("x", counts, 14), mask, points_of_mask(mask))
    found = labelled(sample, InputSpec(stride=8))
    assert found.image.max() == 1.0
    assert np.array_equal(found.mask, mask)
    assert found.points.tolist() == [[11, 21]]
    assert found.radii == pytest.approx([(9 / np.pi) ** 0.5])
    assert not labelled(replace(sample, mask=None), InputSpec(stride=8)).mask.any()


@pytest.mark.parametrize("how", [ALL, PAPER])
def test_crops_depend_on_seed_epoch_and_position_alone(how) -> None:
    first, again = (list(itertools.chain(*drawn(how))) for _ in range(2))
    assert len(first) == 8
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    for change in ({"seed": 4}, {"epoch": 3}):
        other = list(itertools.chain(*drawn(how, **change)))
        assert not any(same(a, b) for a, b in zip(first, other, strict=True))


def test_the_same_frame_at_two_positions_gives_two_crops() -> None:
    one, other = next(epoch_crops(frames(1), ALL, batch_size=2, seed=0, epoch=0))
    assert not same(one, other)


@pytest.mark.parametrize("first_step", [0, 1, 2])
def test_an_epoch_can_start_at_any_step(first_step: int) -> None:
    whole, rest = drawn(), drawn(first_step=first_step)
    assert len(rest) == len(whole) - first_step
    for a, b in zip(itertools.chain(*whole[first_step:]), itertools.chain(*rest), strict=True):
        assert same(a, b)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_crops_of_one(world_size: int) -> None:
    whole = drawn()
    by_rank = [drawn(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        shared: list[Labelled] = [None] * len(batch)  # type: ignore[list-item]
        for rank, batches in enumerate(by_rank):
            assert len(batches[step]) == len(batch) // world_size
            shared[rank::world_size] = batches[step]
        assert all(same(a, b) for a, b in zip(batch, shared, strict=True))


def test_every_frame_is_visited_once_an_epoch() -> None:
    order = epoch_order(10, seed=3, epoch=2)
    assert sorted(order) == list(range(10))
    assert not np.array_equal(order, epoch_order(10, seed=3, epoch=3))


@pytest.mark.parametrize(
    ("count", "batch_size", "steps"), [(10, 4, 2), (8, 4, 2), (3, 4, 1), (1, 16, 1)]
)
def test_an_epoch_is_its_full_batches_and_at_least_one(count, batch_size, steps) -> None:
    assert steps_per_epoch(count, batch_size) == steps
    batches = list(epoch_crops(frames(count), ALL, batch_size=batch_size, seed=0, epoch=0))
    assert [len(batch) for batch in batches] == [batch_size] * steps


def test_batches_hold_their_crops() -> None:
    crops = drawn()[0]
    images, masks = mask_batch(crops)
    assert images.shape == masks.shape == (4, 1, 32, 32)
    again, points = point_batch(crops)
    assert points.shape == (4, 5, 16, 16)
    assert again.equal(images)
    for k, cut in enumerate(crops):
        assert np.array_equal(images[k, 0], cut.image)
        assert np.array_equal(masks[k, 0], cut.mask)
        assert np.array_equal(points[k], render_points(cut.points, cut.radii, (32, 32)))


class Scripted:
    """A generator that gives what it is told, and notes the ranges that it is asked for."""

    def __init__(self, randoms: list[float], integers: list[int]) -> None:
        self.randoms, self.given, self.asked = randoms, integers, []

    def random(self) -> float:
        return self.randoms.pop(0)

    def integers(self, *bounds: int, endpoint: bool) -> int:
        self.asked.append((bounds, endpoint))
        return self.given.pop(0)

    def uniform(self, low: float, high: float) -> float:
        self.asked.append(((low, high), None))
        return high


def test_the_papers_crop_enlarges_and_cuts() -> None:
    """60x100 with the long side at 400 is 240x400: 16 rows of zeros below, 144 columns to spare."""
    source = spot((60, 100), 20, 50)
    rng = Scripted(randoms=[0.9, 0.9], integers=[400, 0, 100])
    cut = crop(source, PaperAugmentation(), rng)  # type: ignore[arg-type]
    assert rng.asked == [((128, 512), True), ((0,), True), ((144,), True)]
    whole = resize_bilinear(source.image, (240, 400))
    assert np.array_equal(cut.image[:240], whole[:, 100:356])
    assert not cut.image[240:].any()
    assert not cut.mask[240:].any()
    # 1 px is 4 px: (20 + 0.5) * 4 - 0.5, less the 100 columns that are cut off
    assert cut.points == pytest.approx(np.array([[81.5, 101.5]]))
    assert cut.radii == pytest.approx([6.0])
    assert cut.mask.sum() == 9 * 16
    assert set(np.unique(cut.mask)) == {0.0, 1.0}


def test_the_papers_crop_shrinks_mirrors_and_blurs() -> None:
    """512x384 with the long side at 128 is 128x96, mirrored before zeros are put to the right."""
    source = spot((512, 384), 200, 40)
    rng = Scripted(randoms=[0.4, 0.4], integers=[128, 0, 0])
    cut = crop(source, PaperAugmentation(), rng)  # type: ignore[arg-type]
    assert rng.asked == [((128, 512), True), ((0,), True), ((0,), True), ((0, 1.0), None)]
    row, col = (200 + 0.5) / 4 - 0.5, (383 - 40 + 0.5) / 4 - 0.5
    assert cut.points == pytest.approx(np.array([[row, col]]))
    assert centroid(cut.image) == pytest.approx((row, col), abs=0.05)
    assert not cut.image[:, 110:].any()
    assert not cut.image[140:].any()


@pytest.mark.parametrize("radius_px", [0.0, 0.05, 0.3, 0.58, 0.75, 1.0])
def test_the_papers_blur_is_pillows(radius_px: float) -> None:
    """Which its authors use, on frames of 8 bits."""
    image = pytest.importorskip("PIL.Image")
    blur = pytest.importorskip("PIL.ImageFilter").GaussianBlur
    counts = np.random.default_rng(0).integers(0, 256, (40, 56)).astype(np.uint8)
    theirs = np.asarray(image.fromarray(counts).filter(blur(radius_px)), np.float32)

    class Always:
        random = staticmethod(lambda: 0.0)
        uniform = staticmethod(lambda low, high: radius_px)

    ours = batches_module._blurred(counts.astype(np.float32), 1.0, Always())  # type: ignore[arg-type]
    assert np.abs(ours - theirs).max() < 4  # counts: it rounds after each of its six passes
    assert np.abs(ours - theirs).mean() < 0.8


def test_the_papers_crop_of_a_sliver() -> None:
    source = spot((1, 600), 0, 300)
    cut = crop(source, PaperAugmentation(), np.random.default_rng(0))
    assert cut.image.shape == (256, 256)


def test_targets_of_other_frames_are_pasted() -> None:
    given = frames(5)
    how = replace(PLAIN, paste=3)
    plain = [crop(given[0], PLAIN, np.random.default_rng(s), given) for s in range(40)]
    more = [crop(given[0], how, np.random.default_rng(s), given) for s in range(40)]
    counts = {len(cut.points) for cut in more}
    assert {len(cut.points) for cut in plain} == {1}
    assert min(counts) == 1 and max(counts) >= 2
    for one, other in zip(plain, more, strict=True):
        if len(other.points) == 1:
            assert len(one.points) == 1
        else:
            assert len(other.radii) == len(other.points)
            assert other.mask.sum() > one.mask.sum() and not np.array_equal(one.image, other.image)


def test_a_mosaic_is_four_crops_of_four_frames() -> None:
    given = [
        replace(source, image=source.image * 0 + 0.2 * k) for k, source in enumerate(frames(5))
    ]
    how = replace(PLAIN, mosaic=1.0)
    seen = set()
    for seed in range(20):
        cut = crop(given[0], how, np.random.default_rng(seed), given)
        quarters = [cut.image[i : i + 16, j : j + 16] for i in (0, 16) for j in (0, 16)]
        assert cut.image.shape == cut.mask.shape == (32, 32)
        assert all(np.ptp(quarter) < 1e-6 for quarter in quarters)
        assert quarters[0][0, 0] == 0, "the first is of the frame itself"
        seen |= {round(float(quarter[0, 0] / 0.2)) for quarter in quarters}
    assert seen == set(range(5))


def test_points_of_a_mosaic_are_where_its_targets_are() -> None:
    given = frames(5)
    for seed in range(20):
        cut = crop(given[0], replace(PLAIN, mosaic=1.0), np.random.default_rng(seed), given)
        assert len(cut.points) == len(cut.radii) == 4  # PLAIN aims at each frame's one target
        for row, col in np.rint(cut.points).astype(int):
            assert cut.mask[row, col] == 1
            assert cut.image[row, col] > 0.6


def test_a_share_of_the_crops_are_mosaics() -> None:
    given, how = frames(5), replace(PLAIN, mosaic=0.3)
    cuts = [crop(given[0], how, np.random.default_rng(s), given) for s in range(200)]
    assert 0.2 < np.mean([len(cut.points) == 4 for cut in cuts]) < 0.4


def test_pasting_and_mosaics_go_by_the_place_in_the_epoch_alone() -> None:
    how = replace(ALL, paste=2, mosaic=0.5)
    whole = drawn(how)
    parts_of = [drawn(how, rank=rank, world_size=2) for rank in range(2)]
    for step, crops in enumerate(whole):
        for at, cut in enumerate(crops):
            assert same(cut, parts_of[at % 2][step][at // 2])


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (8, (2, 4))])
def test_a_joined_batch_is_its_crops_side_by_side(count: int, grid: tuple[int, int]) -> None:
    how = replace(PLAIN, joined=1.0)
    (alone,) = itertools.islice(drawn(PLAIN, batch_size=count), 1)
    ((one,),) = itertools.islice(drawn(how, batch_size=count), 1)
    assert one.image.shape == one.mask.shape == (32 * grid[0], 32 * grid[1])
    for at, cut in enumerate(alone):
        top, left = 32 * (at // grid[1]), 32 * (at % grid[1])
        part = slice(top, top + 32), slice(left, left + 32)
        assert np.array_equal(one.image[part], cut.image)
        assert np.array_equal(one.mask[part], cut.mask)
    assert len(one.points) == len(one.radii) == sum(len(cut.points) for cut in alone) > 0
    for row, col in np.rint(one.points).astype(int):
        assert one.mask[row, col] == 1


def test_a_share_of_the_batches_is_joined_alike_in_every_process() -> None:
    how = replace(PLAIN, joined=0.4)
    sizes = [
        [len(b) for epoch in range(60) for b in drawn(how, epoch=epoch, rank=r, world_size=2)]
        for r in range(2)
    ]
    assert sizes[0] == sizes[1]
    assert 0.3 < np.mean(np.array(sizes[0]) == 1) < 0.5
