"""Frames that a sensor sends through a pipe: raw counts, one frame as soon as it is whole."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

from irstd_edge.edge.counts import counts_of_bytes, frames_of_pages
from irstd_edge.edge.sequences import RAW_TYPES, RawFormat
from irstd_edge.edge.types import CountArray, Frame, IrstdError

NAME = "stdin"
LOOK_S = 0.1
"""A reader that waits for a silent sensor looks this often whether it is still wanted."""


class RawStream:
    """The frames of a file descriptor, named `stdin#0`, `stdin#1`, ...

    It reads no more than the frame it is at: a slow network slows the sender down, and no frame
    is lost.
    """

    def __init__(self, descriptor: int, raw: RawFormat, bit_depth: int | None = None) -> None:
        self.descriptor, self.raw, self.bit_depth = descriptor, raw, bit_depth
        self._wanted = True

    def __iter__(self) -> Iterator[Frame]:
        """Every frame as it comes. An end within a frame raises IrstdError, and so does none."""
        return frames_of_pages(Path(NAME), self._counts(), True, self.bit_depth)

    def leave(self) -> None:
        """End a reader that waits in another thread."""
        self._wanted = False

    def _counts(self) -> Iterator[CountArray]:
        dtype, read = RAW_TYPES[self.raw.kind], 0
        while data := self._frame_bytes(read):
            yield counts_of_bytes(data, dtype, self.raw.height, self.raw.width)
            read += 1

    def _frame_bytes(self, read: int) -> bytes:
        """Wait for a frame; nothing where the stream ends, or is left."""
        data = bytearray()
        while self._wanted and len(data) < self.raw.frame_bytes:
            try:
                if not select.select([self.descriptor], [], [], LOOK_S)[0]:
                    continue
                part = os.read(self.descriptor, self.raw.frame_bytes - len(data))
            except OSError as error:
                raise IrstdError(
                    f"{NAME}: ends after {read} frames ({error.strerror}): check the sender"
                ) from error
            if not part and (data or not read):
                raise IrstdError(
                    f"{NAME}: ends after {read} frames of {self.raw} and {len(data)} bytes: "
                    "check --raw, and that the sender sends whole frames"
                )
            if not part:
                break
            data += part
        return bytes(data) if self._wanted else b""
