"""Which steps are recorded, with stand-ins for CUDA; test_graphed.py asks a GPU what they teach."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from irstd_edge.models.graphed import WARM_UP, GraphedSteps
from irstd_edge.models.loader import Batch


class Stream:
    def wait_stream(self, other: Any) -> None:
        pass


class Step:
    """Adds up a batch. What a graph replays it does again, in the same tensors."""

    def __init__(self) -> None:
        self.kernel_by_kernel: list[tuple[int, bool]] = []
        self.recording = False
        self.recorded: list[int] = []

    def __call__(self, batch: Batch, warm: bool) -> tuple[Tensor, Tensor]:
        seen = self.recorded if self.recording else self.kernel_by_kernel
        seen.append(len(batch[0]) if self.recording else (len(batch[0]), warm))  # type: ignore[arg-type]
        self.batch, self.results = batch, (batch[0].sum(), batch[1].sum())
        return self.results


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Step:
    step = Step()

    class Graph:
        def replay(self) -> None:
            for result, part in zip(self.results, self.batch, strict=True):
                result.copy_(part.sum())

    class recording:  # noqa: N801
        def __init__(self, graph: Graph, pool: Any, capture_error_mode: str) -> None:
            self.graph = graph

        def __enter__(self) -> None:
            step.recording = True

        def __exit__(self, *error: Any) -> None:
            step.recording = False
            self.graph.batch, self.graph.results = step.batch, step.results  # type: ignore[attr-defined]

    stand_ins = {"Stream": Stream, "current_stream": Stream, "graph_pool_handle": object}
    stand_ins |= {"stream": lambda stream: nullcontext(), "CUDAGraph": Graph, "graph": recording}
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(Tensor, "cuda", lambda self: self)
    return step


class Optimizer:
    cleared = 0

    def zero_grad(self) -> None:
        self.cleared += 1


def batch(count: int, value: float) -> Batch:
    return torch.full((count, 1), value), torch.full((count, 1), -value)


def test_a_shape_is_recorded_once_and_replayed_with_each_batch(step: Step) -> None:
    optimizer = Optimizer()
    steps = GraphedSteps(step, optimizer)
    told = [steps(batch(2, value), False) for value in range(6)]
    assert step.kernel_by_kernel == [(2, False)] * WARM_UP
    assert step.recorded == [2] and optimizer.cleared == 1
    assert [loss.item() for loss, _ in told] == [0, 2, 4, 6, 8, 10]
    assert [norm.item() for _, norm in told] == [0, -2, -4, -6, -8, -10]


def test_each_shape_has_a_graph_and_a_warm_up_has_none(step: Step) -> None:
    steps = GraphedSteps(step, Optimizer())
    for _ in range(WARM_UP + 2):
        steps(batch(2, 1.0), True)
    assert step.kernel_by_kernel == [(2, True)] * (WARM_UP + 2) and not step.recorded
    for _ in range(WARM_UP + 2):
        steps(batch(2, 1.0), False)
        steps(batch(3, 1.0), False)
    assert step.recorded == [2, 3]
    assert len(step.kernel_by_kernel) == WARM_UP + 2 + 2 * WARM_UP
