"""Which numbers are a frame: counts of 8 or 16 bits, one channel or colour, of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.policy import MAX_SIDE_PX
from irstd_edge.edge.types import BIT_DEPTHS, CountArray, Frame, IrstdError

BAND_PX = 256
CLIPPED_SHARE = 0.001
"""Of the pixels at full scale, from which on a frame counts as clipped."""


def frames_of_pages(
    path: Path, pages: Iterable[npt.NDArray[Any]], numbered: bool, bit_depth: int | None
) -> Iterator[Frame]:
    """The pages of a file as frames, as they come: `STEM#0`, `STEM#1`, ... or `STEM`, the one."""
    for index, pixels in enumerate(pages):
        name = f"{path.stem}#{index}" if numbered else path.stem
        yield frame_of_pixels(path, name, pixels, bit_depth)


def frame_of_pixels(
    path: Path, name: str, pixels: npt.NDArray[Any], bit_depth: int | None
) -> Frame:
    """Pixels (H, W) or (H, W, 3 or 4) as a frame; its bits are those of its type if not given.

    Raises IrstdError by file for more bits than its type has, and for counts beyond them.
    """
    counts = one_channel(path, pixels)
    most = counts.dtype.itemsize * 8
    depth = most if bit_depth is None else bit_depth
    if depth > most:
        raise IrstdError(
            f"{path}: holds counts of {most} bits, not of {depth}: correct --bits, or bit_depth in "
            "dataset.json"
        )
    if int(counts.max()) >= 2**depth:
        raise IrstdError(
            f"{path}: a pixel of {counts.max()} counts does not fit {depth} bits: correct --bits, "
            "or bit_depth in dataset.json"
        )
    return Frame(name, counts, depth)


def checked_bit_depth(name: str, depth: Any) -> int:
    """The depth, if a sensor has it. Raises IrstdError by the name of what says it."""
    if depth not in BIT_DEPTHS:
        raise IrstdError(f"{name} {depth!r} is not one of {BIT_DEPTHS}: set it")
    return int(depth)


def counts_of_bytes(data: bytes, dtype: np.dtype[Any], height: int, width: int) -> CountArray:
    """The bytes of one frame, row by row, as counts (H, W) in this machine's byte order."""
    counts = np.frombuffer(data, dtype).reshape(height, width)
    return counts.astype(dtype.newbyteorder("="), copy=False)


def one_channel(path: Path, pixels: npt.NDArray[Any]) -> CountArray:
    """Pixels as counts (H, W); blue, green, red become luminance. Raises IrstdError by file."""
    refuse_numbers(path, pixels.dtype)
    refuse_size(path, *pixels.shape[:2])
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise IrstdError(f"{path}: has the shape {pixels.shape}: save one channel or three")
    counts = np.empty(pixels.shape[:2], pixels.dtype)
    for top in range(0, len(pixels), BAND_PX):  # the sums take the memory of a band
        band = slice(top, top + BAND_PX)
        parts = [pixels[band, :, i] for i in range(3)]
        if np.array_equal(parts[0], parts[1]) and np.array_equal(parts[0], parts[2]):
            counts[band] = parts[0]  # grey, as most files of three channels are
            continue
        blue, green, red = (part.astype(np.uint32) for part in parts)
        # ITU-R 601 in 1/65536; the weights add up to one, so that grey stays exactly as it was.
        counts[band] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return counts


def clipped_share(frame: Frame) -> float:
    """Share 0..1 of the pixels at full scale: what is brighter than that cannot be told apart."""
    full = 2**frame.bit_depth - 1
    return float(np.count_nonzero(frame.counts >= full) / frame.counts.size)


def refuse_numbers(path: Path, dtype: np.dtype[Any]) -> None:
    """Raise IrstdError for numbers that are no counts of a sensor: signed, float, wider."""
    if dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise IrstdError(f"{path}: holds {dtype} numbers: save the sensor's counts as 8 or 16 bit")


def refuse_size(path: Path, height: int, width: int) -> None:
    """Raise IrstdError for a size that no frame has; ask before memory is given to it."""
    if height < 1 or width < 1:
        raise IrstdError(
            f"{path}: declares {height}x{width} pixels, so it holds no frame: save it again"
        )
    if max(height, width) > MAX_SIDE_PX:
        raise IrstdError(
            f"{path}: {height}x{width} pixels, and {MAX_SIDE_PX} is the longest side: cut it into "
            "tiles"
        )
