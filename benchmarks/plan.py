"""What a bench is asked to measure, and the frames that it times on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from irstd_edge.edge.counts import CLIPPED_SHARE, clipped_share
from irstd_edge.edge.dataset import DataSet
from irstd_edge.edge.tiles import LARGE_PX
from irstd_edge.edge.types import Frame, IrstdError, Sample

Size = tuple[int, int]
"""(height, width) in pixels."""

REFERENCE = "fp32"
DEFAULT_VARIANTS = (REFERENCE, "int8")
DEFAULT_SIZE = (256, 256)
TIMED_FRAMES = 16
"""Different frames to time on: enough that none stays in a cache by itself."""


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    runtimes: tuple[str, ...] = ("onnxruntime",)
    variants: tuple[str, ...] | None = None
    """Those that a bundle lacks for a runtime are left out. None: FP32 and INT8, and on TensorRT
    those that an engine was built of."""
    built_only: bool = False
    """Of TensorRT, which nobody asked for: what has no engine is left out, and else refused."""
    data: DataSet | None = None
    """Without it there is no accuracy and no drift, and noise is timed."""
    protocol: str = "native"
    strict: bool = False
    """A frame that cannot be used is an error, not a Skip."""
    threads: int | None = None
    """Of each runner; None for all."""
    size: Size | None = None
    """Of the timed frames; None for the most common one of the data, else 256x256."""
    warm_up_s: float = 3.0
    """Longest warm-up of each variant."""
    samples: int = 100
    """Timed calls of each variant."""
    batch: int = 1
    """Frames of a timed call; accuracy is that of frames one by one."""
    rate_hz: float | None = None
    """Of the sensor: frames are also let come at it, to each variant by itself. None: not so."""
    noise_counts: float | None = None
    """Standard deviation of noise: FP32 is also given the frames with it. None: not so."""


@dataclass(frozen=True)
class TimedOn:
    """The frames that are timed, all of one size."""

    frames: tuple[Frame, ...]
    read: Callable[[Frame], object] | None
    """Reads a frame's file again; None for frames that have none."""
    words: str
    sizes: tuple[Size, ...] = ()
    """Of the frames of the whole data, each once."""
    clipped: int = 0
    """Frames of the whole data with more than `CLIPPED_SHARE` of their pixels at full scale."""
    large: int = 0
    """Frames of the whole data with more than `LARGE_PX` pixels."""


def frame_size(plan: Plan) -> Size:
    """(height, width) of the frames that the plan would time."""
    if plan.data is None:
        return plan.size or DEFAULT_SIZE
    return timed_on_of(plan).frames[0].shape


def timed_on_of(plan: Plan) -> TimedOn:
    """The frames to time: of the data where there is some. Raises IrstdError for unusable data."""
    if plan.data is None:
        height, width = frame_size(plan)
        noise = tuple(_noise((height, width), index) for index in range(TIMED_FRAMES))
        return TimedOn(noise, None, f"synthetic noise of {height}x{width} (no data was given)")
    data, shapes = plan.data, Counter[Size]()
    kept: list[Frame] = []
    clipped = large = 0
    for sample in data.samples(plan.strict, plan.protocol):
        if isinstance(sample, Sample):
            shapes[sample.frame.shape] += 1
            clipped += clipped_share(sample.frame) > CLIPPED_SHARE
            large += sample.frame.counts.size > LARGE_PX
            kept += [sample.frame] if len(kept) < TIMED_FRAMES else []
    if not kept:
        raise IrstdError(f"{data.root}: none of its frames can be used, see `irstd-edge eval`")
    height, width = plan.size or shapes.most_common(1)[0][0]
    words = f"{len(kept)} frames of the data, cut or mirrored to {height}x{width}"
    frames = tuple(_fitted(frame, (height, width)) for frame in kept)

    def read(frame: Frame) -> Frame:
        return data.frame(frame.name, plan.protocol)

    return TimedOn(frames, read, words, tuple(shapes), clipped, large)


def _fitted(frame: Frame, size: Size) -> Frame:
    """The middle of a larger frame; a smaller one goes on as its mirror image, without seams."""
    gaps = [max(want - have, 0) for want, have in zip(size, frame.shape, strict=True)]
    counts = np.pad(frame.counts, [(0, gap) for gap in gaps], mode="symmetric")
    top, left = ((have - want) // 2 for want, have in zip(size, counts.shape, strict=True))
    cut = counts[top : top + size[0], left : left + size[1]]
    return Frame(frame.name, np.ascontiguousarray(cut), frame.bit_depth)


def _noise(size: Size, seed: int) -> Frame:
    """A dim sky with noise and three bright points, so that the decoding has something to do."""
    random = np.random.default_rng(seed)
    counts = random.normal(60.0, 8.0, size)
    counts[random.integers(0, size[0], 3), random.integers(0, size[1], 3)] = 250.0
    return Frame(f"noise{seed}", counts.clip(0, 255).astype(np.uint8), 8)
