"""Where the time of an inference goes, layer by layer, as the runtime's own profiler tells it.

Profiling slows a network down, so these times say which layers weigh, and never how fast a variant
is. Runtimes fuse: an entry bears the name that the runtime gave to what it ran as one.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irstd_edge.edge.devices import usable_threads
from irstd_edge.edge.openvino_graph import model_for
from irstd_edge.edge.quiet import silence_telemetry
from irstd_edge.edge.runners import Runner
from irstd_edge.edge.runtimes import INPUT, openvino_config, ort_session
from irstd_edge.edge.types import FloatArray, Frame, MachineError

WARM_UP, RUNS = 3, 10
_KERNEL = "_kernel_time"
ENGINE = "engine"
"""In place of the operator, which TensorRT does not tell."""

Times = Iterator[tuple[str, str, float]]
"""Name, operator and milliseconds of every layer of every run."""


@dataclass(frozen=True)
class LayerTime:
    """One kernel of a runtime."""

    layer: str
    op: str
    ms: float
    """Mean of `RUNS` inferences."""

    def to_json(self) -> dict[str, Any]:
        """An entry of a variant's `layers_ms`."""
        return {**asdict(self), "ms": round(self.ms, 5)}


def layer_times_of(
    runner: Runner, graph: Path, frame: Frame, threads: int | None = None
) -> tuple[LayerTime, ...] | None:
    """The layers of what a runner runs of a graph on one frame, the longest first.

    None for a runtime without a profiler, or where it fails. threads: of the CPU; None for all.
    """
    batch = runner.batch_of(frame)
    try:
        times = runner.layer_times(batch, WARM_UP + RUNS)
    except MachineError:  # as of memory; what was measured before is worth more
        return None
    if times is None:
        return layer_times(graph, runner.runtime, batch, threads)
    warm = len(times) * WARM_UP // (WARM_UP + RUNS)
    return _means((name, ENGINE, ms) for name, ms in times[warm:])


def layer_times(
    graph: Path, runtime: str, batch: FloatArray, threads: int | None = None
) -> tuple[LayerTime, ...] | None:
    """The same of an ONNX graph on a (N, 1, H, W) batch, by a runtime of the CPU."""
    profile = _PROFILERS.get(runtime)
    if profile is None:
        return None
    silence_telemetry()
    return _means(profile(graph, batch, threads or usable_threads()))


def _means(times: Iterable[tuple[str, str, float]]) -> tuple[LayerTime, ...]:
    total: dict[tuple[str, str], float] = defaultdict(float)
    for layer, op, ms in times:
        total[layer, op] += ms
    means = (LayerTime(layer, op, ms / RUNS) for (layer, op), ms in total.items() if ms > 0)
    return tuple(sorted(means, key=lambda each: -each.ms))


def _onnxruntime(graph: Path, batch: FloatArray, threads: int) -> Times:
    with tempfile.TemporaryDirectory() as folder:
        session = ort_session(graph, threads, profile=Path(folder) / "profile")
        for _ in range(WARM_UP + RUNS):
            session.run(None, {INPUT: batch})
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_KERNEL)]
    warm = len(kernels) * WARM_UP // (WARM_UP + RUNS)  # every run runs the same kernels
    for event in kernels[warm:]:
        name = event["name"].removesuffix(_KERNEL)
        yield name, event["args"]["op_name"], event["dur"] / 1000


def _openvino(graph: Path, batch: FloatArray, threads: int) -> Times:
    import openvino

    core = openvino.Core()
    config = {**openvino_config(threads), "PERF_COUNT": True}
    model = model_for(core.read_model(str(graph)), INPUT, batch.shape)
    request = core.compile_model(model, "CPU", config).create_infer_request()
    for run in range(WARM_UP + RUNS):
        request.infer({INPUT: batch})
        for each in request.profiling_info if run >= WARM_UP else ():
            yield each.node_name, each.node_type, 1000 * each.real_time.total_seconds()


_PROFILERS: dict[str, Callable[[Path, FloatArray, int], Times]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
