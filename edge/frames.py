"""Files to frames, and the only preprocessing there is.

A frame is read as the counts of one channel and stays so until `normalise`. Files that are
truncated, hold other number types or declare sizes that would fill memory are refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.arrays import ARRAYS, arrays_of, count_arrays
from irstd_edge.edge.counts import frame_of_pixels, frames_of_pages, one_channel
from irstd_edge.edge.errors import UnusableError
from irstd_edge.edge.files import read_bytes
from irstd_edge.edge.headers import refuse_broken
from irstd_edge.edge.normalisation import stretch_of
from irstd_edge.edge.policy import MAX_PACK_PX, MAX_PICTURE_BYTES
from irstd_edge.edge.types import BoolArray, CountArray, FloatArray, Frame, InputSpec, IrstdError

EXTENSIONS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", *ARRAYS)
LOG_SILENT = 0  # cv::utils::logging::LOG_LEVEL_SILENT
WEIGHT_ONE = 1 << 22  # Pillow's fixed point for resampling weights


def read_frame(path: Path, bit_depth: int | None = None) -> Frame:
    """Read a PNG, TIFF, BMP, JPEG, NPY or NPZ of 8 or 16 bits as one channel (H, W) of counts.

    Colour becomes luminance (ITU-R 601), a palette is resolved, alpha is dropped. `bit_depth` is
    that of the sensor where the file holds fewer bits than its pixels have. Raises IrstdError
    naming the file, also where it holds several frames (see `read_pages`).
    """
    return frame_of_pixels(path, path.stem, _alone(path), bit_depth)


def read_pages(path: Path, bit_depth: int | None = None) -> Iterator[Frame]:
    """Read every page of a TIFF, every array of an NPY or NPZ, and any other file as one frame.

    Several are named `STEM#0`, `STEM#1`, ... Raises IrstdError naming the file.
    """
    if path.suffix.lower() in ARRAYS:
        return frames_of_pages(path, arrays_of(path), count_arrays(path) > 1, bit_depth)
    data, sizes_px = _decode(path)
    pages = _pages(path, data, sizes_px)
    return frames_of_pages(path, pages, len(sizes_px) > 1, bit_depth)


def read_mask(path: Path) -> BoolArray:
    """Read a mask (H, W): true above half of full scale (127 of 255). Raises IrstdError.

    One that holds something, and nothing above that half, would lose its targets without a word:
    it is unusable, and where it holds another range, as all of its set will, an error.
    """
    counts = one_channel(path, _alone(path))
    full, most = np.iinfo(counts.dtype).max, int(counts.max())
    if 0 < most <= full // 2:
        another_range = most == 1 or (full > 255 and most <= 255)
        raise (IrstdError if another_range else UnusableError)(
            f"{path}: holds 0 to {most} where a mask of {counts.dtype.itemsize * 8} bits holds 0 "
            f"and {full}: write {full} for every pixel of a target"
        )
    return np.asarray(counts > full // 2)


def png_of(counts: CountArray | BoolArray) -> bytes:
    """The PNG file of counts (H, W) as they are, or of a mask as 0 and 255."""
    import cv2

    pixels: Any = counts.astype(np.uint8) * 255 if counts.dtype == np.bool_ else counts
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"OpenCV cannot write {pixels.shape} {pixels.dtype} as PNG")
    return bytes(data.tobytes())


def normalise(frame: Frame, spec: InputSpec) -> FloatArray:
    """Counts to (H, W) float32 in 0..1, see `normalisation`. Raises IrstdError."""
    rows, cols = (slice(0, side) for side in frame.shape)
    return stretch_of(frame, spec)(rows, cols)


def batch_of(frame: Frame, spec: InputSpec) -> FloatArray:
    """(1, 1, H', W'): the frame in 0..1, padded to the network's stride. Raises IrstdError."""
    return batch_of_image(normalise(frame, spec), spec.stride)


def batch_of_image(image: FloatArray, stride: int) -> FloatArray:
    """(1, 1, H', W'): a frame (H, W) in 0..1, or a part of it, padded to the stride."""
    padded = pad_to_stride(image, stride)
    return np.ascontiguousarray(padded, dtype=np.float32)[None, None]


def padded_size(size: Iterable[int], stride: int) -> tuple[int, int]:
    """(height, width) up to the next multiples of the stride, as `pad_to_stride` makes them."""
    height, width = (-(-side // stride) * stride for side in size)
    return height, width


def pad_to_stride(image: FloatArray, stride: int) -> FloatArray:
    """Repeat the last row and column until (H, W) are multiples of the stride."""
    bottom, right = (-image.shape[0]) % stride, (-image.shape[1]) % stride
    if not bottom and not right:
        return image
    return np.pad(image, ((0, bottom), (0, right)), mode="edge")


def points_of_mask(mask: BoolArray) -> FloatArray:
    """Centroids (M, 2) row, col of the 8-connected components of a mask (H, W)."""
    import cv2

    *_, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(centroids[1:, ::-1], dtype=np.float32).reshape(-1, 2)


def resize_bilinear(image: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Resize (H, W) to (h, w) by the triangle filter, widened when it shrinks, as Pillow does.

    The type stays: counts are rounded after each of the two passes, columns first, so that 8-bit
    frames equal those of Pillow up to 12 (13 takes the rows first where that is faster, which
    moves some pixels by one count); float32 is not rounded.
    """
    rows, cols = (_triangle(old, new) for old, new in zip(image.shape, size, strict=True))
    return _settle(rows @ _settle(image @ cols.T, image.dtype), image.dtype)


def resize_nearest(image: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Resize (H, W) to (h, w) by the nearest pixel, by Pillow's choice of index; for masks."""
    rows, cols = (_nearest(old, new) for old, new in zip(image.shape, size, strict=True))
    return image[np.ix_(rows, cols)]


def _triangle(old: int, new: int) -> npt.NDArray[np.float64]:
    """(new, old) weights of Pillow's precompute_coeffs, in units of 1 / WEIGHT_ONE."""
    scale = old / new
    reach = max(scale, 1.0)
    centre = (np.arange(new)[:, None] + 0.5) * scale
    pixel = np.arange(old)[None, :]
    # Pillow counts the window's ends by truncation; the triangle is zero outside it but for this.
    first, last = (np.trunc(centre + sign * reach + 0.5) for sign in (-1, 1))
    weight = np.clip(1.0 - np.abs(pixel + 0.5 - centre) / reach, 0.0, None)
    weight[(pixel < first) | (pixel >= last)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(np.floor(weight * WEIGHT_ONE + 0.5), dtype=np.float64)


def _settle(sums: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if np.issubdtype(dtype, np.floating):
        return (sums / WEIGHT_ONE).astype(dtype)
    counts = np.floor((sums + WEIGHT_ONE // 2) / WEIGHT_ONE)
    return np.clip(counts, 0, np.iinfo(dtype).max).astype(dtype)


def _nearest(old: int, new: int) -> npt.NDArray[np.int64]:
    steps = np.full(new, old / new)
    steps[0] /= 2
    # Pillow adds the step up pixel by pixel: the same sums give the same index at exact halves.
    return np.minimum(np.cumsum(steps).astype(np.int64), old - 1)


def _alone(path: Path) -> npt.NDArray[Any]:
    """The pixels of a file that holds one frame."""
    if path.suffix.lower() in ARRAYS:
        _refuse_several(path, count_arrays(path))
        return next(arrays_of(path))
    data, sizes_px = _decode(path)
    _refuse_several(path, len(sizes_px))
    return next(_pages(path, data, sizes_px))


def _refuse_several(path: Path, count: int) -> None:
    if count > 1:
        raise IrstdError(f"{path}: holds {count} frames where one belongs: split it into files")


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV from printing what our errors say."""
    import cv2

    # OpenCV 4 has it at the top, 5 in utils.
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    level = set_level(LOG_SILENT)
    try:
        yield
    finally:
        set_level(level)


def _decode(path: Path) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """A file that may be decoded, and the pixels of each of its pages."""
    data = read_bytes(path, MAX_PICTURE_BYTES)
    return np.frombuffer(data, np.uint8), refuse_broken(path, data)


def _pages(
    path: Path, data: npt.NDArray[np.uint8], sizes_px: list[int]
) -> Iterator[npt.NDArray[Any]]:
    """The pages one by one, so that memory is that of a few."""
    import cv2

    for pack in _packs(sizes_px):
        with silent_opencv():
            try:
                pages = _decoded(data, pack, len(sizes_px))
            except cv2.error:
                pages = []
        if len(pages) < len(pack):
            raise IrstdError(f"{path}: cannot be decoded: is it a whole PNG, TIFF, BMP or JPEG?")
        yield from pages


def _packs(sizes_px: list[int]) -> Iterator[range]:
    """Pages that are decoded at once: to find one takes time that grows with its number."""
    first = filled = 0
    for page, size in enumerate(sizes_px):
        if filled and filled + size > MAX_PACK_PX:
            yield range(first, page)
            first, filled = page, 0
        filled += size
    yield range(first, len(sizes_px))


def _decoded(data: npt.NDArray[np.uint8], pack: range, count: int) -> list[npt.NDArray[Any]]:
    import cv2

    if count > 1:
        wanted = pack.start, pack.stop
        return list(cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=wanted)[1])
    page = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return [] if page is None else [page]
