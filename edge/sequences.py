"""Files and folders that `predict` reads, one frame at a time: pictures, stacks, video, raw counts.

Frames are named `STEM#0`, `STEM#1`, ...; the only frame of a file that says it has one, `STEM`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.counts import counts_of_bytes, frames_of_pages, refuse_size
from irstd_edge.edge.files import open_to_read
from irstd_edge.edge.frames import EXTENSIONS, read_pages, silent_opencv
from irstd_edge.edge.policy import refuse_name
from irstd_edge.edge.types import CountArray, Frame, IrstdError

VIDEOS = (".avi", ".mp4", ".mkv")
FFMPEG_LIMITS = "protocol_whitelist;file|format_whitelist;avi,mov,matroska"
"""FFmpeg goes by what is in a file, not by its ending, and follows what some formats refer to."""
FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
COUNTED_VIDEOS = (".avi", ".mp4")
"""Their headers say how many frames follow; of others FFmpeg guesses it from their length."""
GUESSED_SHARE = 0.9
"""Of such a guess: with fewer frames a video counts as cut off."""
PAGE = re.compile(r"(.+)#\d+")
"""What a frame of a file of several is called: STEM#INDEX."""
PAGELESS = (".png", ".jpg", ".jpeg", ".bmp")
"""Files of one frame."""
RAW_FILES = (".raw", ".bin")
"""Of a folder; a file that is named may end as it likes."""
RAW_TYPES: dict[str, np.dtype[Any]] = {
    "u8": np.dtype("u1"),
    "u16le": np.dtype("<u2"),
    "u16be": np.dtype(">u2"),
}


@dataclass(frozen=True)
class RawFormat:
    """How the counts of a file without a header lie: row by row, frame after frame."""

    width: int
    height: int
    kind: str
    """One of `RAW_TYPES`."""

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.kind}"

    @property
    def frame_bytes(self) -> int:
        """Of one frame."""
        return self.width * self.height * RAW_TYPES[self.kind].itemsize


def raw_format(text: str) -> RawFormat:
    """Read WIDTHxHEIGHT:TYPE as in 640x512:u16le. Raises IrstdError naming --raw."""
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9}):(\w+)", text, re.ASCII)
    if found is None or found[3] not in RAW_TYPES:
        raise IrstdError(
            f"--raw: {text!r} is not WIDTHxHEIGHT:TYPE; write it like 640x512:u16le (types: "
            f"{', '.join(RAW_TYPES)})"
        )
    raw = RawFormat(int(found[1]), int(found[2]), found[3])
    refuse_size(Path("--raw"), raw.height, raw.width)
    return raw


def extensions(raw: RawFormat | None) -> tuple[str, ...]:
    """Endings of the files that `frames_of` takes out of a folder."""
    return (*EXTENSIONS, *VIDEOS) if raw is None else RAW_FILES


def frames_in(paths: Sequence[Path], extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """The frames among files and folders, those of a folder by name.

    A frame is called by its file's stem. Raises IrstdError for no frame, and for two of one name.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in extensions and not p.name.startswith(".")
            )
            if not inside:
                raise IrstdError(f"{path}: no frames ({', '.join(extensions)}): give another")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise IrstdError(f"{path}: no such file or folder: check the path")
    known: dict[str, Path] = {}
    for path in found:
        refuse_name(path)
        twin = known.setdefault(path.stem, path)
        if twin is not path:
            raise IrstdError(
                f"{path}: its frame would be called {path.stem}, as that of {twin}: give them in "
                "calls of their own"
            )
    for stem, path in known.items():
        page = PAGE.fullmatch(stem)
        stack = known.get(page[1]) if page else None
        if stack is not None and stack.suffix.lower() not in PAGELESS:
            raise IrstdError(
                f"{path}: its frame would be called as a page of {stack}: give them in calls of "
                "their own"
            )
    return found


def frames_of(
    path: Path, bit_depth: int | None = None, raw: RawFormat | None = None
) -> Iterator[Frame]:
    """Every frame of a file as it is read: raw counts if `raw` is given, else by its ending.

    Raises IrstdError naming the file, at the frame that cannot be read.
    """
    if raw is not None:
        count = _count_raw(path, raw)
        return frames_of_pages(path, _raw_frames(path, raw, count), count > 1, bit_depth)
    if path.suffix.lower() in RAW_FILES:
        raise IrstdError(f"{path}: has no header: say what it holds, like --raw 640x512:u16le")
    if path.suffix.lower() in VIDEOS:
        return frames_of_pages(path, _video_frames(path), True, bit_depth)
    return read_pages(path, bit_depth)


def _count_raw(path: Path, raw: RawFormat) -> int:
    with open_to_read(path) as file:
        size = file.seek(0, os.SEEK_END)
    count, rest = divmod(size, raw.frame_bytes)
    if rest or not count:
        raise IrstdError(
            f"{path}: {size} bytes are not whole frames of {raw} ({raw.frame_bytes} bytes each): "
            "check --raw, or copy the file again"
        )
    return count


def _raw_frames(path: Path, raw: RawFormat, count: int) -> Iterator[CountArray]:
    dtype = RAW_TYPES[raw.kind]
    with open_to_read(path) as file:
        for _ in range(count):
            data = file.read(raw.frame_bytes)
            if len(data) < raw.frame_bytes:
                raise IrstdError(f"{path}: became shorter while it was read: copy it again")
            yield counts_of_bytes(data, dtype, raw.height, raw.width)


def _video_frames(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Frames (H, W, 3) of 8 bits; one that was cut off gives what it has and then an IrstdError."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its complaints are in our error
    with open_to_read(path):
        pass  # a pipe would wait for ever
    with silent_opencv(), _ffmpeg_limits():
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        declared = _declared_frames(path, video)
        read = 0
        while (found := video.read())[0]:
            yield found[1]
            read += 1
    finally:
        video.release()
    counted = path.suffix.lower() in COUNTED_VIDEOS
    if read < (declared if counted else max(1, int(GUESSED_SHARE * declared))):
        about = "" if counted else "about "
        raise IrstdError(f"{path}: ends after {read} of {about}{declared} frames: copy it again")


@contextmanager
def _ffmpeg_limits() -> Iterator[None]:
    """Set `FFMPEG_LIMITS` in place of options that the user has for other programs."""
    own = os.environ.get(FFMPEG_OPTIONS)
    os.environ[FFMPEG_OPTIONS] = FFMPEG_LIMITS
    try:
        yield
    finally:
        del os.environ[FFMPEG_OPTIONS]
        if own is not None:
            os.environ[FFMPEG_OPTIONS] = own


def _declared_frames(path: Path, video: Any) -> int:
    """How many frames it says it has. Raises IrstdError for no video, or too large a one."""
    import cv2

    if not video.isOpened():
        raise IrstdError(f"{path}: cannot be opened as a video: is it whole, and one of FFmpeg's?")
    sides = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
    refuse_size(path, *(int(video.get(side)) for side in sides))
    return max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
