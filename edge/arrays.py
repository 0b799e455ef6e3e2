"""NPY and NPZ files: frames (H, W) or stacks of them (N, H, W), read one frame at a time.

The bytes are taken for counts and nothing else: no pickle is ever opened, and what a header
declares is checked before memory is given to it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from irstd_edge.edge.counts import refuse_numbers, refuse_size
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
    with _explained(path):
        return sum(_stack(path, stream).count for stream in _streams(path))


def arrays_of(path: Path) -> Iterator[CountArray]:
    """The frames (H, W) of the file, in order. Raises IrstdError naming it."""
    with _explained(path):
        for stream in _streams(path):
            stack = _stack(path, stream)
            for _ in range(stack.count):
                yield _next_frame(path, stream, stack)


def _streams(path: Path) -> Iterator[IO[bytes]]:
    """An open file for each array; the arrays of an NPZ in the order they were saved."""
    if path.suffix.lower() == ".npy":
        with open(path, "rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                yield stream


def _stack(path: Path, stream: IO[bytes]) -> _Stack:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    refuse_numbers(path, dtype)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] <= MOST_CHANNELS):
        raise IrstdError(
            f"{path}: has the shape {shape}: save one channel (H, W), or several frames (N, H, W)"
        )
    if fortran:
        raise IrstdError(f"{path}: is in Fortran order: save numpy.ascontiguousarray of it")
    height, width = shape[-2:]
    refuse_size(path, height, width)
    return _Stack(shape[0] if len(shape) == 3 else 1, height, width, dtype)


def _next_frame(path: Path, stream: IO[bytes], stack: _Stack) -> CountArray:
    size = stack.height * stack.width * stack.dtype.itemsize
    raw = stream.read(size)
    if len(raw) < size:
        raise IrstdError(f"{path}: the file is truncated: copy it again")
    counts = np.frombuffer(raw, stack.dtype).reshape(stack.height, stack.width)
    return counts.astype(stack.dtype.newbyteorder("="), copy=False)


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
