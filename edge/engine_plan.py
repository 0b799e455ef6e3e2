"""What engine to build: by which backend, for which GPU, for which frames."""

from __future__ import annotations

import re
from dataclasses import dataclass

from irstd_edge.edge.frames import padded_size
from irstd_edge.edge.types import IrstdError

BACKENDS = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "torch-tensorrt": "torch_tensorrt",
}
"""Name -> the Python module."""
ELSEWHERE = "tensorrt-rtx"
"""The only one that builds for a GPU that is not here."""
THIS = "this"


@dataclass(frozen=True)
class EnginePlan:
    """What to build."""

    backend: str = "tensorrt"
    target: str = THIS
    """`this` for the GPU here, or a compute capability as in sm_86 (TensorRT-RTX alone)."""
    sizes: tuple[tuple[int, int], ...] = ((256, 256),)
    """(height, width) of frames: the first is tuned for, all between the extremes are taken."""
    batch: int = 1
    """Frames a call: tuned for this many, fewer are taken."""
    dla: bool = False
    """On the Jetson's DLA what runs there, the rest on its GPU."""
    tf32: bool = False
    """Whether convolutions of float32 may round what they multiply to 11 significant bits."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise IrstdError(f"--backend: {self.backend!r} is not one of {', '.join(BACKENDS)}")
        if self.target != THIS and not re.fullmatch(r"sm_\d{2,3}", self.target):
            raise IrstdError(f"--target: {self.target!r} is neither {THIS} nor like sm_86")
        if self.target != THIS and self.backend != ELSEWHERE:
            raise IrstdError(
                f"--target: {self.backend} builds for the GPU it runs on: run it there, or use "
                "--backend tensorrt-rtx"
            )
        if self.batch < 1 or not self.sizes:
            raise IrstdError("--batch, --size: give at least one frame and one size")
        if self.dla and self.backend != "tensorrt":
            raise IrstdError(f"--dla: {self.backend} knows no DLA: use --backend tensorrt")
        if self.dla and len(self.sizes) > 1:
            raise IrstdError("--dla: takes no dynamic shapes: give one --size")
        if self.dla and self.batch > 1:
            raise IrstdError(
                "--dla: takes one shape, and a bundle is tried frame by frame: no --batch"
            )

    def takes(self, size: tuple[int, int], stride: int) -> bool:
        """Whether an engine of this plan takes frames of (height, width)."""
        low, _, high = self.shapes(stride)
        padded = padded_size(size, stride)
        return all(a <= n <= b for a, n, b in zip(low[2:], padded, high[2:], strict=True))

    def shapes(self, stride: int) -> tuple[tuple[int, ...], ...]:
        """Smallest, tuned-for and largest (N, 1, H, W), padded to the stride as runners pad."""
        padded = [padded_size(size, stride) for size in self.sizes]
        low = (min(extents) for extents in zip(*padded, strict=True))
        high = (max(extents) for extents in zip(*padded, strict=True))
        if self.dla:
            return ((1, 1, *padded[0]),) * 3
        return (1, 1, *low), (self.batch, 1, *padded[0]), (self.batch, 1, *high)
