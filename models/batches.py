"""Augmented training batches from frames in memory.

Every random choice comes from a generator seeded by (seed, epoch, position in the epoch): a run
that is resumed, or split over processes, draws what an undisturbed one draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from irstd_edge.edge.frames import normalise, resize_bilinear, resize_nearest
from irstd_edge.edge.types import FloatArray, InputSpec, Sample
from irstd_edge.models.copy_paste import cut_target, paste
from irstd_edge.models.point_targets import radii_px, render_points


@dataclass(frozen=True)
class Augmentation:
    """How a training crop departs from its frame."""

    size_px: int
    """Height and width of the crop."""
    aim: float = 0.8
    """Share of crops that are placed around a target."""
    zoom: tuple[float, float] = (0.8, 1.25)
    """Range of magnification, log-uniform."""
    gain: float = 0.2
    """Contrast changes by up to this share, about the crop's mean."""
    offset: float = 0.1
    """Brightness changes by up to this, of full scale."""
    noise: float = 0.02
    """Highest standard deviation of added noise, of full scale."""
    paste: int = 0
    """A crop gets up to this many targets of any frames; each quarter of a mosaic a quarter."""
    mosaic: float = 0.0
    """Share of crops that are four of half the size, of as many frames, side by side."""
    turn: bool = True
    """Whether crops are turned by quarters and mirrored; otherwise they are mirrored alone, left to
    right, as in a world where the sky is above."""
    joined: float = 0.0
    """Share of batches whose crops are laid side by side, as one frame."""


@dataclass(frozen=True)
class PaperAugmentation:
    """The training crops of MSHNet's authors: Liu et al., CVPR 2024, as their code cuts them."""

    size_px: int = 256
    """Height and width of the crop; smaller frames are filled up with 0, right and bottom."""
    longest_px: tuple[int, int] = (128, 512)
    """Range of the longer side that a frame is resized to, uniform, both ends included."""
    blur_px: float = 1.0
    """Highest standard deviation of a blur that half of the crops get."""


@dataclass(frozen=True)
class Labelled:
    """A frame, or a crop of one, with its labels."""

    image: FloatArray
    """(H, W) in 0..1."""
    mask: FloatArray
    """(H, W) 0 or 1; all 0 where only points are known."""
    points: FloatArray
    """(M, 2) row, col."""
    radii: FloatArray
    """(M,) of the targets, in pixels, as measured in the frame."""


def labelled(sample: Sample, spec: InputSpec) -> Labelled:
    """Return a sample as the arrays that crops are cut from."""
    image = normalise(sample.frame, spec)
    mask = np.zeros_like(image) if sample.mask is None else sample.mask.astype(np.float32)
    return Labelled(image, mask, sample.points, radii_px(image, sample.points))


def crop(
    source: Labelled,
    how: Augmentation | PaperAugmentation,
    rng: np.random.Generator,
    donors: Sequence[Labelled] = (),
) -> Labelled:
    """Cut one crop and change it as `how` says; targets to paste come from `donors`."""
    if isinstance(how, PaperAugmentation):
        return _paper_crop(source, how, rng)
    if how.mosaic and donors and rng.random() < how.mosaic:
        return _mosaic(source, how, rng, donors)
    return _free_crop(source, how, rng, donors)


def _mosaic(
    source: Labelled, how: Augmentation, rng: np.random.Generator, donors: Sequence[Labelled]
) -> Labelled:
    """Put crops of four frames side by side: more kinds of scene in one than any frame shows.

    After the mosaic of YOLOv4 (Bochkovskiy et al., 2020, section 3.3). A network that pools over
    the whole frame learns to bear frames larger and more varied than those it was trained on.
    """
    half = replace(how, size_px=how.size_px // 2, paste=how.paste // 4)
    others = (donors[int(k)] for k in rng.integers(len(donors), size=3))
    cuts = [_free_crop(one, half, rng, donors) for one in (source, *others)]
    return joined(cuts)


def _free_crop(
    source: Labelled, how: Augmentation, rng: np.random.Generator, donors: Sequence[Labelled]
) -> Labelled:
    """Zoom, cut, paste, relight, mirror and turn."""
    zoom = float(np.exp(rng.uniform(*np.log(how.zoom))))
    centre = _centre(source, how, how.size_px / zoom, rng)
    shift = how.size_px / 2 - 0.5 - zoom * centre
    if zoom == 1:
        shift = np.round(shift)  # whole pixels, so that nothing is resampled
    matrix = np.array([[zoom, 0, shift[1]], [0, zoom, shift[0]]])
    size = (how.size_px, how.size_px)
    view = cv2.warpAffine(source.image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    image = np.asarray(view, np.float32)
    mask = np.asarray(cv2.warpAffine(source.mask, matrix, size) > 0.5, np.float32)
    points = source.points * zoom + shift
    _keep_smallest(mask, points, source)
    cut = _kept(image, mask, points, source.radii * zoom)
    if how.paste and donors:
        for _ in range(int(rng.integers(how.paste, endpoint=True))):
            cut = _pasted(cut, donors[int(rng.integers(len(donors)))], rng)
    cut = replace(cut, image=_relit(cut.image, how, rng))
    return _turned(cut, rng) if how.turn else _mirrored(cut, rng)


def _keep_smallest(mask: FloatArray, points: FloatArray, source: Labelled) -> None:
    """Give a target of a pixel or two the nearest one where resampling has left it none, in place.

    The picture still shows it: it would be taught as background.
    """
    for point, there in zip(points, source.points, strict=True):
        if not _around(mask, point).any() and _around(source.mask, there).any():
            _around(mask, point, reach=0)[...] = 1


def _around(mask: FloatArray, point: FloatArray, reach: int = 1) -> FloatArray:
    """Return the part of a mask so near to a point, which is empty where that lies outside."""
    row, col = np.rint(point).astype(int)
    return mask[
        max(0, row - reach) : max(0, row + reach + 1), max(0, col - reach) : max(0, col + reach + 1)
    ]


def _pasted(cut: Labelled, donor: Labelled, rng: np.random.Generator) -> Labelled:
    """Add a target of `donor`, if it has one that comes out clean."""
    if not len(donor.points):
        return cut
    at = rng.integers(len(donor.points))
    patch = cut_target(donor.image, donor.mask, donor.points, donor.radii, int(at))
    if patch is None:
        return cut
    return Labelled(*paste(cut.image, cut.mask, cut.points, cut.radii, patch, rng))


def _kept(image: FloatArray, mask: FloatArray, points: FloatArray, radii: FloatArray) -> Labelled:
    """Return a crop with those of the points that lie inside of it."""
    inside = ((points > -0.5) & (points < np.array(image.shape) - 0.5)).all(1)
    return Labelled(
        image, mask, points[inside].astype(np.float32), radii[inside].astype(np.float32)
    )


def _centre(
    source: Labelled, how: Augmentation, window: float, rng: np.random.Generator
) -> FloatArray:
    """Return (row, col) of the crop's centre, in the frame."""
    shape = np.array(source.image.shape, np.float32)
    if len(source.points) and rng.random() < how.aim:
        target = source.points[rng.integers(len(source.points))]
        centre = target + rng.uniform(-0.5, 0.5, 2) * 0.9 * window
    else:
        centre = rng.random(2) * shape
    # Keep the window inside the frame where it fits.
    low, high = window / 2 - 0.5, shape - window / 2 - 0.5
    return np.where(low > high, (shape - 1) / 2, np.clip(centre, low, np.maximum(low, high)))


def _relit(image: FloatArray, how: Augmentation, rng: np.random.Generator) -> FloatArray:
    gain = 1 + rng.uniform(-how.gain, how.gain)
    offset = rng.uniform(-how.offset, how.offset)
    mean = image.mean()
    relit = (image - mean) * np.float32(gain) + np.float32(mean + offset)
    if how.noise:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        relit += noise * np.float32(rng.uniform(0, how.noise))
    return np.asarray(np.clip(relit, 0, 1), np.float32)


def _blurred(image: FloatArray, most_px: float, rng: np.random.Generator) -> FloatArray:
    """Blur half of the images, by a random standard deviation of at most `most_px`, as Pillow does.

    Its "Gaussian" is three extended boxes: Gwosdek et al., "Theoretical foundations of Gaussian
    convolution by extended box filtering", 2011. Under 0.4 px a sampled Gaussian hardly blurs.
    """
    deviation_px = rng.uniform(0, most_px) if rng.random() < 0.5 else 0.0
    box = _box(deviation_px / math.sqrt(3))
    for _ in range(3):
        blurred = cv2.sepFilter2D(image, -1, box, box, borderType=cv2.BORDER_REPLICATE)
        image = np.asarray(blurred, np.float32)
    return image


def _box(deviation_px: float) -> FloatArray:
    """Return a kernel of ones, of which the outermost count in part, and its sum is 1."""
    variance = deviation_px**2
    whole = int((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    box = np.ones(2 * whole + 3)
    box[[0, -1]] = part / (6 * (variance - (whole + 1) ** 2))
    return np.asarray(box / box.sum(), np.float32)


def _turned(cut: Labelled, rng: np.random.Generator) -> Labelled:
    """Mirror and turn by quarters: the eight symmetries of the square."""
    last = cut.image.shape[0] - 1
    cut = _mirrored(cut, rng)
    image, mask, points = cut.image, cut.mask, cut.points
    for _ in range(int(rng.integers(4))):  # (row, col) -> (last - col, row), as np.rot90
        image, mask = np.rot90(image), np.rot90(mask)
        points = np.stack((last - points[:, 1], points[:, 0]), 1)
    return Labelled(image, mask, points, cut.radii)


def _mirrored(cut: Labelled, rng: np.random.Generator) -> Labelled:
    """Mirror one of two, left to right."""
    if rng.random() >= 0.5:
        return cut
    last = cut.image.shape[1] - 1
    points = np.stack((cut.points[:, 0], last - cut.points[:, 1]), 1)
    return Labelled(cut.image[:, ::-1], cut.mask[:, ::-1], points, cut.radii)


def _paper_crop(source: Labelled, how: PaperAugmentation, rng: np.random.Generator) -> Labelled:
    """Mirror, resize, fill up, cut and blur, in this order."""
    image, mask, points = source.image, source.mask, source.points
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
        points = points * (1, -1) + (0, image.shape[1] - 1)
    old = np.array(image.shape)
    longest = int(rng.integers(*how.longest_px, endpoint=True))
    new = np.maximum(1, (old * longest / old.max() + 0.5).astype(int))
    top, left = (
        int(rng.integers(room, endpoint=True)) for room in np.maximum(0, new - how.size_px)
    )
    size = (int(new[0]), int(new[1]))
    image = _filled_cut(resize_bilinear(image, size), top, left, how.size_px)
    mask = _filled_cut(resize_nearest(mask, size), top, left, how.size_px)
    points = (points + 0.5) * (new / old) - 0.5 - (top, left)
    image = _blurred(image, how.blur_px, rng)
    return _kept(image, mask, points, source.radii * (longest / old.max()))


def _filled_cut(image: FloatArray, top: int, left: int, size_px: int) -> FloatArray:
    """Return the square at (top, left), with 0 to the right and below where the image ends."""
    part = image[top : top + size_px, left : left + size_px]
    return np.pad(part, [(0, size_px - side) for side in part.shape])


def mask_batch(crops: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
    """Return frames (N, 1, H, W) and masks (N, 1, H, W)."""
    return _stack([c.image for c in crops]), _stack([c.mask for c in crops])


def point_batch(crops: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
    """Return frames (N, 1, H, W) and point targets (N, 5, H/2, W/2)."""
    targets = [render_points(c.points, c.radii, c.image.shape) for c in crops]
    return _stack([c.image for c in crops]), torch.from_numpy(np.stack(targets))


def _stack(images: Sequence[FloatArray]) -> Tensor:
    return torch.from_numpy(np.stack(images)[:, None])


def joined(crops: Sequence[Labelled]) -> Labelled:
    """Lay the crops of a batch, of one size, side by side: as near to a square as they fill.

    A network that pools over the whole frame meets more of a world than one crop shows, of as many
    pixels, and no crop gets smaller, as in a mosaic.
    """
    count = len(crops)
    rows = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
    cols = count // rows
    height, width = crops[0].image.shape
    corners = [(height * (at // cols), width * (at % cols)) for at in range(count)]
    points = [cut.points + np.array(at, np.float32) for cut, at in zip(crops, corners, strict=True)]
    image, mask = (
        np.block([parts[at : at + cols] for at in range(0, count, cols)])
        for parts in ([cut.image for cut in crops], [cut.mask for cut in crops])
    )
    return Labelled(
        image, mask, np.concatenate(points), np.concatenate([cut.radii for cut in crops])
    )


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the order in which an epoch visits `count` frames."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def epoch_crops(
    frames: Sequence[Labelled],
    how: Augmentation | PaperAugmentation,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[list[Labelled]]:
    """Yield this process's part of every full batch of an epoch, from `first_step` on."""
    order = epoch_order(len(frames), seed, epoch)
    for step in range(first_step, steps_per_epoch(len(frames), batch_size)):
        positions = range(step * batch_size + rank, (step + 1) * batch_size, world_size)
        crops = [
            # A set smaller than a batch is gone round more than once.
            crop(
                frames[order[at % len(order)]],
                how,
                np.random.default_rng((seed, epoch, at)),
                frames,
            )
            for at in positions
        ]
        yield [joined(crops)] if _joins(how, seed, epoch, step) else crops


def _joins(how: Augmentation | PaperAugmentation, seed: int, epoch: int, step: int) -> bool:
    """Say whether a batch is one frame; no crop draws from this generator."""
    if isinstance(how, PaperAugmentation) or not how.joined:
        return False
    return bool(np.random.default_rng((seed, epoch, step, 1)).random() < how.joined)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of full batches in an epoch, at least one."""
    return max(1, count // batch_size)
