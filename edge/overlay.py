"""Frames as pictures to look at, with what was found in them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from irstd_edge.edge.types import Detection, Frame

FOUND, TRUE = (60, 220, 60), (40, 160, 255)
"""Blue, green, red of a detection and of a labelled target."""


def overlay(
    frame: Frame, detections: Sequence[Detection], points: Sequence[tuple[float, float]] = ()
) -> npt.NDArray[np.uint8]:
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
