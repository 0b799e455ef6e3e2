"""One INT8 network, three ways to run it: do torch, ONNX Runtime and OpenVINO see the same?

Every way is held against int8.onnx computed node by node as it is written. What torch gives
beside it is the export's doing, what a runtime gives is that runtime's: its own form of the graph,
its order of sums, and values that fall on the middle between two steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from irstd_edge.benchmarks.accuracy import Evaluation
from irstd_edge.benchmarks.drift import difference, score_error
from irstd_edge.calibration.export import INT8, INT8_CPU
from irstd_edge.calibration.judge import Runners, judge
from irstd_edge.edge.runners import Runner, installed_runtimes, open_graph, torch_runner
from irstd_edge.edge.types import ModelSpec, Progress, Sample, Skip

TORCH = "torch"


@dataclass(frozen=True)
class Gap:
    """How far one way to run the network is from int8.onnx as it is written."""

    way: str
    """torch, onnxruntime or openvino."""
    targets: int
    flips: int
    """Targets that one of both finds, and not the other."""
    score_error: float
    """Root of the mean squared difference of a target's score."""
    f1_3px: float | None
    """What F1 changes by; None where a side has no points."""
    iou: float | None
    """What IoU changes by; None without masks."""

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def parity(
    judged: Mapping[str, Evaluation],
    module: nn.Module | None,
    graphs: Mapping[str, bytes],
    spec: ModelSpec,
    samples: Sequence[Sample | Skip],
    progress: Progress = lambda *_: None,
) -> tuple[Gap, ...]:
    """The gap of every way to run it that is available here.

    judged: results of the graphs on the samples, as `judge` gives them. module: what the graphs
    were exported from; None where layers were released after it.
    """
    with ExitStack() as stack:
        ways: Runners = {}
        if module is not None:
            ways[TORCH] = stack.enter_context(torch_runner(module, spec, f"int8 in {TORCH}"))
        runner = stack.enter_context(openvino_runner(graphs[INT8], spec))
        if runner is not None:
            ways["openvino"] = runner
        found = judge(ways, samples, progress)
    found["onnxruntime"] = judged[INT8_CPU]
    return tuple(gap(way, judged[INT8], result) for way, result in found.items())


@contextmanager
def openvino_runner(graph: bytes, spec: ModelSpec) -> Iterator[Runner | None]:
    """Yield a runner of an INT8 graph on OpenVINO, None where that is not installed."""
    if "openvino" not in installed_runtimes():
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, INT8)
        path.write_bytes(graph)
        with open_graph(path, spec, "int8", "openvino") as runner:
            yield runner


def gap(way: str, written: Evaluation, other: Evaluation) -> Gap:
    """Compare two results on the same frames, target by target."""
    one, two = (
        [target for image in result.images for target in image.targets]
        for result in (written, other)
    )
    flips = sum(a.matched != b.matched for a, b in zip(one, two, strict=True))
    error = score_error([a.score for a in one], [b.score for b in two])
    before, after = written.metrics(), other.metrics()
    changes = (difference(before[name], after[name]) for name in ("f1_3px", "iou"))
    return Gap(way, len(one), flips, error, *changes)
