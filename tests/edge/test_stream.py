import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from irstd_edge.edge.ahead import read_ahead
from irstd_edge.edge.sequences import RawFormat
from irstd_edge.edge.stream import RawStream
from irstd_edge.edge.types import IrstdError

COUNTS = (np.arange(3 * 6 * 8).reshape(3, 6, 8) * 100).astype(np.uint16)
RAW = RawFormat(8, 6, "u16le")


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Its two ends; what is sent through it here fits into the system's buffer."""
    out, into = os.pipe()
    try:
        yield out, into
    finally:
        os.close(out)


@pytest.mark.parametrize(("kind", "dtype"), [("u8", "u1"), ("u16le", "<u2"), ("u16be", ">u2")])
def test_frames_come_as_they_were_sent(kind: str, dtype: str) -> None:
    counts = COUNTS // 100
    with pipe() as (out, into):
        os.write(into, counts.astype(dtype).tobytes())
        os.close(into)
        found = list(RawStream(out, RawFormat(8, 6, kind)))
    assert [frame.name for frame in found] == ["stdin#0", "stdin#1", "stdin#2"]
    np.testing.assert_array_equal(np.stack([frame.counts for frame in found]), counts)
    assert {frame.bit_depth for frame in found} == {8 if kind == "u8" else 16}
    assert all(frame.counts.dtype.isnative for frame in found)


def test_a_frame_comes_when_it_is_whole_and_not_later() -> None:
    data = COUNTS.tobytes()
    with pipe() as (out, into):
        frames = iter(RawStream(out, RAW))
        for index in range(3):  # nothing of the next frame is needed
            sent = data[96 * index : 96 * index + 96]
            os.write(into, sent[:10])
            later = threading.Timer(0.02, os.write, (into, sent[10:]))
            later.start()
            np.testing.assert_array_equal(next(frames).counts, COUNTS[index])
            later.join()
        os.close(into)
        assert list(frames) == []


@pytest.mark.parametrize("size", [0, 1, 95, 97, 191])
def test_an_end_amid_a_frame_says_how_many_there_were(size: int) -> None:
    with pipe() as (out, into):
        os.write(into, bytes(size))
        os.close(into)
        with pytest.raises(IrstdError, match=rf"^stdin: ends after {size // 96} frames of 8x6:u16"):
            list(RawStream(out, RAW))


def test_more_bits_than_the_sensor_has_are_refused() -> None:
    with pipe() as (out, into):
        os.write(into, COUNTS.tobytes())
        os.close(into)
        with pytest.raises(IrstdError, match="^stdin: a pixel of .* does not fit 8 bits"):
            list(RawStream(out, RAW, 8))


def test_leaving_ends_the_wait_for_a_silent_sensor() -> None:
    with pipe() as (out, into):
        os.write(into, COUNTS[:1].tobytes())
        stream = RawStream(out, RAW)
        frames = read_ahead(stream, leave=stream.leave)
        assert next(frames).name == "stdin#0"
        start = time.monotonic()
        frames.close()
        assert time.monotonic() - start < 5
        os.close(into)
