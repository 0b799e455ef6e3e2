"""Training steps as CUDA graphs: a step launches thousands of kernels, a graph is one launch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from irstd_edge.models.loader import Batch

WARM_UP = 3
"""Steps of each shape that are taken one kernel at a time: they choose algorithms, and make what
lasts from step to step, which a graph must find in place."""

Results = tuple[Tensor, Tensor]
"""The loss of a step and the norm of its gradient."""

Step = Callable[[Batch, bool], Results]
"""Takes a step; the second argument says that it is one of the warm-up of a recipe."""


class _Recorded:
    """A step for batches of one shape."""

    def __init__(self, batch: Batch, step: Step, pool: Any) -> None:
        frames, targets = (part.clone() for part in batch)
        self.given = (frames, targets)
        self.graph = torch.cuda.CUDAGraph()
        # Another thread locks the memory of the next batches meanwhile: its calls do not matter.
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"), _chosen():
            self.results = step(self.given, False)

    def replay(self, batch: Batch) -> Results:
        """Take the step."""
        for mine, new in zip(self.given, batch, strict=True):
            mine.copy_(new, non_blocking=True)
        self.graph.replay()
        loss, norm = self.results
        return loss.clone(), norm.clone()


def _chosen() -> AbstractContextManager[None]:
    """Have cuDNN time its algorithms once for each shape; frames to validate on have too many."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True)


class GraphedSteps:
    """`step`, recorded once for each shape of batch, but for those of a recipe's warm-up.

    What changes from step to step must be a tensor on the GPU that is changed in place.
    """

    def __init__(self, step: Step, optimizer: Any) -> None:
        self._step, self._optimizer = step, optimizer
        self._taken: dict[tuple[torch.Size, ...], int] = {}
        self.recorded: dict[tuple[torch.Size, ...], _Recorded] = {}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, batch: Batch, warm: bool) -> Results:
        """Take a step with a batch that is on the GPU or in page-locked memory."""
        if warm:
            return self._unrecorded(batch, warm)
        shape = tuple(part.shape for part in batch)
        taken = self._taken.get(shape, 0)
        self._taken[shape] = taken + 1
        if taken < WARM_UP:
            return self._unrecorded(batch, warm)
        if shape not in self.recorded:
            self._optimizer.zero_grad()  # the graph makes its gradients itself, in its own memory
            on_gpu = (batch[0].cuda(), batch[1].cuda())
            self.recorded[shape] = _Recorded(on_gpu, self._step, self._pool)
        return self.recorded[shape].replay(batch)

    def _unrecorded(self, batch: Batch, warm: bool) -> Results:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), _chosen(), warnings.catch_warnings():
            # AdamW advises against what a graph needs of it.
            warnings.filterwarnings("ignore", message=".*capturable=True")
            results = self._step(batch, warm)
        current.wait_stream(self._stream)
        return results
