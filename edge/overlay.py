"""Frames as pictures to look at, alone or as a video, with what was found in them."""

from __future__ import annotations

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

    Without a picture no file is made. Raises IrstdError for
    an ending that is no video's, pictures of several sizes, and a video that cannot be written.
    """
    if path.suffix.lower() not in CODECS:
        raise IrstdError(f"--video: {path}: is no {' or '.join(CODECS)}: choose one of them")
    sizes: list[tuple[int, int]] = []
    with path_to_write(path) as partial:
        writer = cv2.VideoWriter()

        def add(name: str, picture: Picture) -> None:
            size = (picture.shape[1], picture.shape[0])
            if sizes and size != sizes[0]:
                raise IrstdError(
                    f"--video: {name}: has another size than the frames before it: a video has "
                    "one; use --overlay"
                )
            if not sizes:
                code = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
                with silent_opencv():
                    writer.open(str(partial), cv2.CAP_FFMPEG, code, fps, size)
            sizes.append(size)
            writer.write(picture)

        yield add
        writer.release()
        if sizes:
            _refuse_short(path, partial, len(sizes))


def _refuse_short(path: Path, written: Path, frames: int) -> None:
    """Raise IrstdError for a video of other than `frames`: OpenCV says nothing of a full disk."""
    with silent_opencv():
        video = cv2.VideoCapture(str(written), cv2.CAP_FFMPEG)
        found = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
    if found < frames:
        raise IrstdError(
            f"{path}: holds {found} of {frames} frames: check path, rights and space, or use .avi"
        )
