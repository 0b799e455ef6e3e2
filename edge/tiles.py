"""Large frames by tiles with a halo, so that memory is the tile's and not the frame's.

Every tile answers for its core alone. The halo around the core is context: what a convolution
makes up at a tile's border stays in it. The cores cover the frame without gap or overlap, their
outputs are decoded as one, row of tiles by row, so a target on a seam is found once, whole.

    |  halo  |   core   |  halo  |
                    |  halo  |   core   |  halo  |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

from irstd_edge.edge.frames import padded_size
from irstd_edge.edge.normalisation import Stretch, stretch_of
from irstd_edge.edge.runners import Runner
from irstd_edge.edge.types import Detection, FloatArray, Frame, IrstdError, Prediction

HALO_PX = 32
TILE_PX = 320
"""Side of a tile whose core has the size of the frames that the networks were trained on."""
LARGE_PX = 4 * 256**2
"""Pixels of a frame from which on it is found better by such tiles: four of those frames."""


@dataclass(frozen=True)
class Tiling:
    """How a frame is cut. Frames that fit into one tile run whole."""

    tile: tuple[int, int]
    """(height, width) in pixels, halo included; multiples of the stride."""
    stride: int
    """Of the network's input, see `InputSpec`."""
    halo_px: int = HALO_PX
    """Context on every side that is inside the frame; rounded up to the stride."""
    batch: int = 1
    """Tiles per run of the network."""

    def __post_init__(self) -> None:
        height, width = self.tile
        up = [max(1, -(-side // self.stride)) * self.stride for side in self.tile]
        if (height, width) != tuple(up):
            raise IrstdError(
                f"--tile: {height}x{width} is not a multiple of {self.stride}, the network's "
                f"stride: use {up[0]}x{up[1]}"
            )
        if self.halo_px < 0:
            raise IrstdError(f"--halo: {self.halo_px} px is below 0: use {HALO_PX}")
        if self.batch < 1:
            raise IrstdError(f"batch: {self.batch} tiles a run: use 1 or more")
        least = 2 * self.halo + self.stride
        if min(self.tile) < least:
            raise IrstdError(
                f"--tile: {height}x{width} leaves no core inside a halo of {self.halo} px: use "
                f"{least}x{least} or more, or a smaller --halo"
            )

    @property
    def halo(self) -> int:
        """Pixels of the halo, a multiple of the stride, so that tiles share the output's grid."""
        return -(-self.halo_px // self.stride) * self.stride


@dataclass(frozen=True)
class Span:
    """One side of a tile: it reads from `start` on, and answers for `first` to `last`, in px."""

    start: int
    first: int
    last: int
    """Exclusive."""


def spans(size: int, tile: int, halo: int) -> list[Span]:
    """Cut a side of `size` px into tiles of min(tile, size); the last is shifted inwards.

    Every core is at least `halo` away from the borders of its tile that are not the frame's.
    """
    furthest = max(0, size - tile)
    starts = [*range(0, furthest, tile - 2 * halo), furthest]
    cuts = [0, *(start + halo for start in starts[1:]), size]
    return [Span(*span) for span in zip(starts, cuts[:-1], cuts[1:], strict=True)]


def predict_tiled(
    run: Runner, frame: Frame, tiling: Tiling, threshold: float | None = None
) -> Prediction:
    """`Runner.predict` by tiles: the same result where the network looks no further than the halo.

    A frame no larger than the tile runs whole. Raises IrstdError as `Runner.predict` does.
    """
    height, width = padded_size(frame.shape, tiling.stride)
    maps: list[FloatArray] = []
    row = 0
    for strip in _strips(run, frame, tiling):
        if not maps:
            maps = [
                np.empty((len(part), height * part.shape[2] // width, part.shape[2]), np.float32)
                for part in strip
            ]
        for whole, part in zip(maps, strip, strict=True):
            whole[:, row : row + part.shape[1]] = part
        row += strip[0].shape[1]
    return run.decode(maps, frame, threshold)


def detect_tiled(
    run: Runner, frame: Frame, tiling: Tiling, threshold: float | None = None
) -> tuple[Detection, ...]:
    """The detections of `predict_tiled`, without the maps of the whole frame in memory."""
    return run.decode_strips(_strips(run, frame, tiling), frame, threshold)


def _strips(run: Runner, frame: Frame, tiling: Tiling) -> Iterator[list[FloatArray]]:
    """The outputs (C, h', W') of each row of tiles, put together of their cores, top to bottom."""
    padded = padded_size(frame.shape, tiling.stride)
    tile = tuple(map(min, padded, tiling.tile))
    rows, cols = (spans(*side, tiling.halo) for side in zip(padded, tiling.tile, strict=True))
    cuts = product(rows, cols)
    stretch = stretch_of(frame, run.spec.input)  # of the frame: its tiles share one
    strip: list[FloatArray] = []
    while group := list(islice(cuts, tiling.batch)):
        outputs = run.infer(np.concatenate(list(_batches(run, stretch, group, tile))))
        for index, (high, wide) in enumerate(group):
            if wide is cols[0]:
                strip = [_empty_strip(output, high, padded[1], tile[1]) for output in outputs]
            for whole, output in zip(strip, outputs, strict=True):
                _paste_core(whole, output[index], high, wide, tile[0] // output.shape[2])
            if wide is cols[-1]:
                yield strip


def _batches(
    run: Runner, stretch: Stretch, group: list[tuple[Span, Span]], tile: tuple[int, ...]
) -> Iterator[FloatArray]:
    """(1, 1, h, w) of each tile; what pads the frame to the stride pads the last tiles too."""
    for rows, cols in group:
        bottom, right = rows.start + tile[0], cols.start + tile[1]
        yield run.batch_of_image(stretch(slice(rows.start, bottom), slice(cols.start, right)))


def _empty_strip(output: FloatArray, high: Span, width: int, tile_width: int) -> FloatArray:
    """(C, h', W') for a row of tiles, `width` px wide, whose outputs are (N, C, _, w')."""
    _, channels, _, cells = output.shape
    px = tile_width // cells
    return np.empty((channels, (high.last - high.first) // px, width // px), np.float32)


def _paste_core(whole: FloatArray, output: FloatArray, high: Span, wide: Span, cell: int) -> None:
    """Copy a tile's core (px) of its output (C, h', w') to its columns; `cell` px a cell."""
    top, left = (high.first - high.start) // cell, (wide.first - wide.start) // cell
    to = whole[:, :, wide.first // cell : wide.last // cell]
    to[...] = output[:, top : top + to.shape[1], left : left + to.shape[2]]
