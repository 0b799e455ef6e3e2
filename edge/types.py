"""The nouns that every part shares, and its errors (from `errors`).

Positions are (row, col) in pixels of the frame as read, counted from the centre of the top-left
pixel. Ratios are fractions in 0..1. Everything is frozen: a stage makes new values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from irstd_edge.edge.errors import IrstdError as IrstdError
from irstd_edge.edge.errors import MachineError as MachineError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
CountArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

Progress = Callable[[str, float, float], None]
"""Called with what is done, how much of it, and of how much."""

BIT_DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Frame:
    """One thermal frame in the counts of its sensor."""

    name: str
    """Identity within its data set: the file's stem."""
    counts: CountArray
    """(H, W) uint8 or uint16, one channel."""
    bit_depth: int
    """Bits that carry signal: 8 for uint8, 16 for uint16 unless the user says 10, 12 or 14."""

    def __post_init__(self) -> None:
        if self.counts.ndim != 2:
            raise IrstdError(f"{self.name}: a frame has one channel, got {self.counts.shape}")
        if self.bit_depth not in BIT_DEPTHS:
            raise IrstdError(f"{self.name}: bit depth {self.bit_depth} is not in {BIT_DEPTHS}")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.counts.shape[0]), int(self.counts.shape[1])


@dataclass(frozen=True)
class Sample:
    """A frame with its labels."""

    frame: Frame
    mask: BoolArray | None
    """(H, W), or None where only points are known."""
    points: FloatArray
    """(M, 2) row, col: centroids of the mask's 8-connected components, or the labelled points."""


@dataclass(frozen=True)
class Skip:
    """A frame that could not be used."""

    name: str
    reason: str


@dataclass(frozen=True)
class Detection:
    """One detected target."""

    row: float
    col: float
    score: float
    """Probability 0..1: the highest of the blob (mask) or the value of the peak (heatmap)."""
    area_px: float
    """Pixels of the blob (mask), or the disc whose radius is the predicted sigma (heatmap)."""


@dataclass(frozen=True)
class Prediction:
    """What a network says of one frame, after decoding."""

    detections: tuple[Detection, ...]
    """Above the threshold, best first."""
    probability: FloatArray
    """(H / stride, W / stride) cropped to the frame: what the decision was made on."""
    stride: int
    """Pixels of the frame per cell of `probability`; 1 for masks, 2 for heatmaps."""
    mask: BoolArray | None
    """(H, W) for a segmentation net, else None."""


@dataclass(frozen=True)
class InputSpec:
    """What a network takes: (N, 1, H, W) float32 in 0..1."""

    stride: int
    """H and W are padded to a multiple of it."""
    bit_depth: int = 8
    """Of the frames it was made for; a frame's own bit depth wins when frames are normalised."""
    normalisation: str = "full-scale"
    """How counts become 0..1, one of `normalisation.NORMALISATIONS`; full-scale: counts / (2 **
    bit_depth - 1)."""


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold gave on held-out frames."""

    threshold: float
    pd: float
    """Share of the targets that were found."""
    fa_per_mpx: float
    """False-alarm pixels (masks) or points (heatmaps) per 10^6 pixels."""


@dataclass(frozen=True)
class DecodeSpec:
    """How its output becomes detections."""

    kind: str
    """mask: logits (1, H, W). heatmap: logits (1, H/2, W/2); dx, dy, log sigma (3, H/2, W/2)."""
    threshold: float = 0.5
    """Lowest probability of a detection."""
    operating_points: tuple[OperatingPoint, ...] = ()
    """What other thresholds cost and bring, lowest first; empty where it was not measured."""

    def point_at(self, max_fa: float) -> OperatingPoint:
        """Of those at which false alarms were at most `max_fa` per Mpx on held-out frames.

        heatmap: the lowest threshold, which finds most. mask: the one that finds most and, of
        equals, is nearest to `threshold`; its false pixels hardly follow the threshold, and a
        higher one may have more, where a mask breaks into pieces. Raises IrstdError where none is
        low enough, or none was measured.
        """
        if not self.operating_points:
            raise IrstdError(
                "--max-fa: these weights do not say what a threshold costs: give --threshold, or "
                "weights of irstd-edge train"
            )
        allowed = [p for p in self.operating_points if p.fa_per_mpx <= max_fa]
        if not allowed:
            best = min(self.operating_points, key=lambda point: point.fa_per_mpx)
            raise IrstdError(
                f"--max-fa: {max_fa:g} per Mpx is out of reach: held-out frames gave "
                f"{best.fa_per_mpx:.2f} at threshold {best.threshold:g}; give more, or --threshold"
            )
        if self.kind == "heatmap":
            return min(allowed, key=lambda point: point.threshold)
        return max(allowed, key=lambda p: (p.pd, -abs(p.threshold - self.threshold)))

    def __post_init__(self) -> None:
        if self.kind not in ("mask", "heatmap"):
            raise IrstdError(f"decode: kind {self.kind!r} is not one of mask, heatmap")
        if not 0.0 < self.threshold < 1.0:
            raise IrstdError(f"threshold: {self.threshold} is not between 0 and 1")


@dataclass(frozen=True)
class ModelSpec:
    """What every part needs to know of a network without importing it."""

    name: str
    input: InputSpec
    decode: DecodeSpec


@dataclass(frozen=True)
class Quantization:
    """How the integer graphs came to be."""

    method: str
    """ptq or qat."""
    recipe: dict[str, Any]
    """Every choice that shaped it: seed, epochs, learning rate, presets."""
    calibration: tuple[tuple[str, str], ...]
    """(frame name, sha256 of its counts) of each calibration frame."""
    float_layers: tuple[tuple[str, str], ...]
    """(layer, reason) of each layer kept out of INT8."""


@dataclass(frozen=True)
class Manifest:
    """The contents of a bundle's manifest.json."""

    model: ModelSpec
    parent_sha256: str
    """Of the weights file that the bundle was made from."""
    files: dict[str, str]
    """File name inside the bundle -> sha256."""
    quantization: Quantization
    versions: dict[str, str]
    """Package -> version that took part."""
    accuracy: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Variant -> its accuracy on the held-out part, as in bench.json."""
    schema: str = "irstd-edge/bundle/1"
