"""Several frames a call: what a batch gains in frames a second, it costs in waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irstd_edge.edge.runners import Runner
from irstd_edge.edge.types import Frame


class Batches:
    """Which frames go together: each with those that come after it, in a circle."""

    def __init__(self, frames: Sequence[Frame], size: int) -> None:
        """`frames`: of one size. `size`: of a batch; it may be more frames than there are."""
        self._by_first = {
            id(frame): [frames[(first + k) % len(frames)] for k in range(size)]
            for first, frame in enumerate(frames)
        }

    def of(self, first: Frame) -> list[Frame]:
        """The batch that begins with this one of the frames."""
        return self._by_first[id(first)]


class InBatches:
    """A runner that takes a whole batch where it is asked for its first frame."""

    def __init__(self, runner: Runner, batches: Batches) -> None:
        self._runner, self._batches = runner, batches

    @property
    def stages_ms(self) -> Mapping[str, float]:
        """Of the last call, all its frames together: pre, infer, post."""
        return self._runner.stages_ms

    def detect(self, first: Frame) -> None:
        """Preprocess, infer and decode the batch that begins with this frame."""
        self._runner.predict_all(self._batches.of(first))
