"""Frames as pictures to look at, alone or as a video, with what was found in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from irstd_edge.edge.files import path_to_write
from irstd_edge.edge.frames import silent_opencv
from irstd_edge.edge.types import Detection, Frame, IrstdError

FOUND, TRUE = (60, 220, 60), (40, 160, 255)
"""Blue, green, red of a detection and of a labelled target."""

CODECS = {".avi": "MJPG", ".mp4": "mp4v"}
"""Four letters that name what a video of this ending is coded with."""

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) in blue, green, red."""


def overlay(
    frame: Frame, detections: Sequence[Detection], points: Sequence[tuple[float, float]] = ()
) -> Picture:
    """Return the frame stretched to 8 bits in blue, green, red, enlarged to at least 512 px.

    A detection is a green circle with its score, a labelled point (row, col) an orange square.
    """
    low, high = np.percentile(frame.counts, (0.5, 99.8))
    stretched = (frame.counts.astype(np.float32) - low) * (255 / max(1.0, high - low))
    grey = stretched.clip(0, 255).astype(np.uint8)
    zoom = -(-512 // max(frame.shape))
    picture = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    for row, col in points:
        x, y = _pixel(col, zoom), _pixel(row, zoom)
        half = 7 * zoom
        cv2.rectangle(picture, (x - half, y - half), (x + half, y + half), TRUE, 1, cv2.LINE_AA)
    for found in detections:
        x, y = _pixel(found.col, zoom), _pixel(found.row, zoom)
        radius = round(zoom * (4 + (found.area_px / np.pi) ** 0.5))
        cv2.circle(picture, (x, y), radius, FOUND, 1, cv2.LINE_AA)
        label, font = f"{found.score:.2f}", cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, label, (x + radius + 2, y), font, 0.4, FOUND, 1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def _pixel(position: float, zoom: int) -> int:
    """Place of a pixel's centre in the enlarged picture."""
    return round((position + 0.5) * zoom - 0.5)


@contextmanager
def open_video(path: Path, fps: float) -> Iterator[Callable[[str, Picture], None]]:
    """Yield what adds a picture, named by its frame, to a video; it is at `path` in the end.

    Without a picture no file is made. Raises IrstdError for an ending that is no video's, pictures
    of several sizes, a rate or size that the format lacks, and a video that cannot be written.
    """
    if path.suffix.lower() not in CODECS:
        raise IrstdError(f"--video: {path}: is no {' or '.join(CODECS)}: choose one of them")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our error says it
    with path_to_write(path) as partial:
        writer = _VideoWriter(path, partial, fps)
        yield writer.add
        writer.close()


LEAST_VIDEO_PX = 16
"""To a side: OpenCV's encoder of AVI writes past the end of narrower pictures."""


class _VideoWriter:
    def __init__(self, path: Path, partial: Path, fps: float) -> None:
        self.path, self.partial, self.fps = path, partial, fps
        self.writer = cv2.VideoWriter()
        self.size: tuple[int, int] | None = None
        self.frames = 0

    def add(self, name: str, picture: Picture) -> None:
        size = (picture.shape[1], picture.shape[0])
        if self.size is None:
            self.size = size
            self._open()
        if size != self.size:
            raise IrstdError(
                f"--video: {name}: has another size than the frames before it: a video has one; "
                "use --overlay"
            )
        with silent_opencv():
            self.writer.write(picture)
        self.frames += 1

    def _open(self) -> None:
        assert self.size is not None
        width, height = self.size
        if min(self.size) < LEAST_VIDEO_PX:
            raise IrstdError(
                f"--video: {self.path}: {width}x{height} pixels are too few for a video, which has "
                f"{LEAST_VIDEO_PX} a side: use --overlay"
            )
        code = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        with silent_opencv():
            opened = self.writer.open(str(self.partial), cv2.CAP_FFMPEG, code, self.fps, self.size)
        if not opened:
            raise IrstdError(
                f"--video: {self.path}: cannot hold {width}x{height} pixels at {self.fps:g} "
                "frames/s: use .avi, a plain rate like 25, or --overlay"
            )

    def close(self) -> None:
        self.writer.release()
        if self.frames:
            _refuse_short(self.path, self.partial, self.frames)


def _refuse_short(path: Path, written: Path, frames: int) -> None:
    """Raise IrstdError for a video of fewer than `frames`: OpenCV goes on when the disk is full."""
    with silent_opencv():
        video = cv2.VideoCapture(str(written), cv2.CAP_FFMPEG)
        found = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
    if found < frames:
        raise IrstdError(
            f"{path}: holds {found} of {frames} frames: check path, rights and space, or use .avi"
        )
