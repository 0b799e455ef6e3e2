"""NPY and NPZ files: frames (H, W) or stacks of them (N, H, W), read one frame at a time.

The bytes are taken for counts and nothing else: no pickle is ever opened, and what a header
declares is checked before memory is given to it.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from irstd_edge.edge.counts import counts_of_bytes, refuse_numbers, refuse_size
from irstd_edge.edge.files import open_to_read
from irstd_edge.edge.policy import MAX_ARRAY_HEADER_BYTES
from irstd_edge.edge.types import CountArray, IrstdError

ARRAYS = (".npy", ".npz")
MOST_CHANNELS = 4


@dataclass(frozen=True)
class _Stack:
    count: int
    height: int
    width: int
    dtype: np.dtype[Any]


def count_arrays(path: Path) -> int:
    """How many frames the file declares. Raises IrstdError naming it."""
    count = 0
    with _explained(path):
        for stream in _streams(path):  # a sum over them would keep one open with its error
            count += _stack(path, stream).count
    return count


def arrays_of(path: Path) -> Iterator[CountArray]:
    """The frames (H, W) of the file, in order: one at least. Raises IrstdError naming it."""
    read = 0
    with _explained(path):
        for stream in _streams(path):
            stack = _stack(path, stream)
            for _ in range(stack.count):
                yield _next_frame(path, stream, stack)
                read += 1
    if not read:
        raise IrstdError(f"{path}: holds no frame: save it again")


def _streams(path: Path) -> Iterator[IO[bytes]]:
    """An open file for each array; the arrays of an NPZ in the order they were saved."""
    if path.suffix.lower() == ".npy":
        with open_to_read(path) as stream:
            yield stream
        return
    with open_to_read(path) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise IrstdError(f"{path}: is not packed as numpy does: save it by numpy.savez")
            with archive.open(member) as stream:
                yield stream


def _stack(path: Path, stream: IO[bytes]) -> _Stack:
    shape, fortran, dtype = _header(stream)
    refuse_numbers(path, dtype)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] <= MOST_CHANNELS):
        raise IrstdError(
            f"{path}: has the shape {shape}: save one channel (H, W), or several frames (N, H, W)"
        )
    if fortran:
        raise IrstdError(f"{path}: is in Fortran order: save numpy.ascontiguousarray of it")
    count = shape[0] if len(shape) == 3 else 1
    height, width = shape[-2:]
    refuse_size(path, height, width)
    if count < 1:
        raise IrstdError(f"{path}: has the shape {shape}, which holds no frame: save it again")
    return _Stack(count, height, width, dtype)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type; numpy reads no more than what is given here."""
    version = np.lib.format.read_magic(stream)
    length = stream.read(2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    if size > MAX_ARRAY_HEADER_BYTES:
        raise ValueError(f"its header has {size} bytes")
    header = io.BytesIO(length + stream.read(size))
    form = np.lib.format
    read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numpy, about what Python 2 wrote
        shape, fortran, dtype = read(header)
    if not all(type(side) is int for side in shape):
        raise ValueError(f"its shape is {shape!r:.60}")
    return shape, fortran, dtype


def _next_frame(path: Path, stream: IO[bytes], stack: _Stack) -> CountArray:
    size = stack.height * stack.width * stack.dtype.itemsize
    raw = stream.read(size)
    if len(raw) < size:
        raise IrstdError(f"{path}: the file is truncated: copy it again")
    return counts_of_bytes(raw, stack.dtype, stack.height, stack.width)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except IrstdError:
        raise
    except Exception as error:  # a damaged header or archive fails in a dozen ways
        raise IrstdError(
            f"{path}: cannot be read as {path.suffix[1:].upper()} ({error}): save it again with "
            "numpy.save"
        ) from error
