"""How fast a graph should run on a Jetson that is not here: a projection, never a measurement.

Each kernel takes the longer of its arithmetic and its traffic, at the efficiency that real engines
reach, plus its launch; each call adds what the host does:

    t = call + sum over kernels of max(operations / (e peak), bytes / (b bandwidth)) + launch

The constants were fitted (least squares of log t) to what Ultralytics published for YOLO11 n, s, m,
l, x at 640x640 with TensorRT on Orin NX 16 GB and Orin Nano Super (guide "NVIDIA Jetson", version
8.3.51), FP16 and INT8: twenty figures of 3.9 to 36 ms, on kernels counted by `kernels_of_graph`.
They cannot tell what a call costs from what its launches cost, which decides for small networks:
both extremes fit within 14 %, so both are kept, and what lies between them is the range.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irstd_edge.benchmarks.bench_file import told_apart
from irstd_edge.benchmarks.cost import cost_of_graph
from irstd_edge.benchmarks.kernels import Kernel, kernels_of_graph
from irstd_edge.benchmarks.schema import SCHEMA
from irstd_edge.benchmarks.speed import SAME_SPEED
from irstd_edge.edge.bundle import Bundle
from irstd_edge.edge.devices import Machine, this_machine
from irstd_edge.edge.frames import padded_size
from irstd_edge.edge.profiles import PROFILES, Profile, profile_of
from irstd_edge.edge.tensorrt_runtime import TENSORRT
from irstd_edge.edge.types import IrstdError, MachineError

BYTES = {"fp16": 2, "tf32": 4, "fp32": 4}
"""What computes float values -> bytes of one."""
ERROR = 1.2
"""Factor by which a network left out of the fit was missed at most (1.18), rounded up."""
ERROR_ELSEWHERE = 1.5
"""The same for other generations than Orin: an assumption, nothing was published to fit it to."""
FITTED_SM = 87
METHOD = (
    "range: a roofline over the graph's kernels, fitted in two ways to 20 published YOLO11 figures "
    f"on Orin and widened by {ERROR}; by {ERROR_ELSEWHERE} on Xavier and Thor, where none was found"
)


@dataclass(frozen=True)
class Roofline:
    """Constants of one explanation of the published figures."""

    float_efficiency: float
    """Share of the tensor cores' peak in FP16."""
    int8_efficiency: float
    bandwidth_efficiency: float
    launch_us: float
    """Of each kernel."""
    call_ms: float
    """Of each call: copies, synchronisation, the host's part."""

    def time_ms(self, kernels: Sequence[Kernel], device: Profile, floats: str) -> float:
        """Of one call; floats: of `BYTES`, what computes that is not INT8."""
        peak = getattr(device, f"{floats}_tflops")
        seconds = 0.0
        for kernel in kernels:
            arithmetic = 2 * kernel.macs / (self.float_efficiency * peak * 1e12)
            arithmetic += 2 * kernel.macs_int8 / (self.int8_efficiency * device.int8_tops * 1e12)
            moved = kernel.values * BYTES[floats] + kernel.bytes_int8
            traffic = moved / (self.bandwidth_efficiency * device.bandwidth_gb_s * 1e9)
            seconds += max(arithmetic, traffic)
        return 1e3 * seconds + 1e-3 * self.launch_us * len(kernels) + self.call_ms


CALLS_COST = Roofline(0.444, 0.404, 0.442, launch_us=2.8, call_ms=1.4)
LAUNCHES_COST = Roofline(0.451, 0.457, 0.8, launch_us=27.2, call_ms=0.0)
"""The bandwidth's share was set, not fitted: at no cost per call it is no longer determined."""


@dataclass(frozen=True)
class Range:
    """Where the median latency of the inference alone should lie."""

    low_ms: float
    high_ms: float

    @property
    def middle_ms(self) -> float:
        """The geometric mean: as far from either end by factor."""
        return math.sqrt(self.low_ms * self.high_ms)


def project_latency(kernels: Sequence[Kernel], device: Profile, floats: str) -> Range:
    """Project one call, with the error that the model has shown on published figures."""
    both = [each.time_ms(kernels, device, floats) for each in (CALLS_COST, LAUNCHES_COST)]
    error = ERROR if device.sm == FITTED_SM else ERROR_ELSEWHERE
    return Range(min(both) / error, max(both) * error)


def devices_to_project(
    device: str, machine: Machine, require_measured: bool = False
) -> tuple[Profile, ...]:
    """The profiles that `bench --device` asks for; empty where this machine is to be measured.

    Raises MachineError where a projection is not allowed, IrstdError on an unknown name.
    """
    here = ("cpu", "cuda", machine.module, *(["jetson"] if machine.is_jetson else ()))
    if device in here:
        return ()
    profiles = tuple(PROFILES.values()) if device == "jetson" else (profile_of(device),)
    if require_measured:
        raise MachineError(
            f"--device {device}: this machine is none, and a measurement is wanted (--host, "
            "--require-measured): run --device jetson on the board, or here with --host USER@HOST"
        )
    return profiles


def project(
    bundles: Sequence[Bundle],
    devices: Sequence[Profile],
    size: tuple[int, int],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """A bench.json in which nothing is measured: each bundle in FP16 and INT8 on each device.

    size: (height, width) of the frames. Raises MachineError without onnx, IrstdError where a
    bundle has no graph to project from.
    """
    results = []
    for done, bundle in enumerate(bundles, start=1):
        results.append(_result(bundle, devices, size))
        progress("projection", done, len(bundles))
    return {"schema": SCHEMA, "machine": this_machine().record(), "results": results}


def conclusions(bench: Mapping[str, Any]) -> list[str]:
    """A sentence a model of `project`'s value: whether its INT8 should gain anything over FP16."""
    sentences = []
    for result in told_apart(bench["results"]):
        fps: dict[str, dict[bool, float]] = defaultdict(dict)
        for variant in result["variants"]:
            rounds, device = variant["name"].startswith("int8"), variant["device"]
            fps[device][rounds] = max(variant["fps"], fps[device].get(rounds, 0.0))
        gains = [each[True] / each[False] for each in fps.values() if len(each) == 2]
        if gains:
            sentences.append(f"{result['model']}: {_gain_words(min(gains), max(gains))}")
    return sentences


def _gain_words(low: float, high: float) -> str:
    times = f"{low:.2f}x" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}x to {high:.2f}x"
    if low > 1 + SAME_SPEED:
        return f"INT8 is projected {times} as fast as FP16"
    gain = "no gain" if high <= 1 + SAME_SPEED else "not a gain on every board"
    return (
        f"INT8 is projected {times} as fast as FP16, {gain}: compile both, by --variant, and "
        "measure before you ship INT8"
    )


def _result(bundle: Bundle, devices: Sequence[Profile], size: tuple[int, int]) -> dict[str, Any]:
    stride = bundle.manifest.model.input.stride
    shape = (1, 1, *padded_size(size, stride))
    graphs = _graphs(bundle)
    variants = []
    for name, (path, floats) in graphs.items():
        kernels = kernels_of_graph(path, shape)
        variants += [
            _variant(name, path, device, project_latency(kernels, device, floats))
            for device in devices
        ]
    variants.sort(key=lambda variant: [device.name for device in devices].index(variant["device"]))
    return {
        "model": bundle.manifest.model.name,
        "bundle": bundle.sha256,
        "timed_on": None,
        "cost": cost_of_graph(next(iter(graphs.values()))[0], shape).to_json(),
        "variants": variants,
        "drift": [],
    }


def _graphs(bundle: Bundle) -> dict[str, tuple[Path, str]]:
    """Variant -> the graph that stands for it, and what computes its floats on the device.

    FP16 moves and computes what the float graph does, at two bytes a value; `int8` is built with
    TF32 off.
    """
    there = bundle.variants(TENSORRT)
    sources = (
        ("fp16", "fp32" if "fp32" in there else "fp16", "fp16"),
        ("int8", "int8", "fp32"),
        ("int8-fp16", "int8-fp16", "fp16"),
    )
    found = {
        variant: (bundle.graph(source, TENSORRT), floats)
        for variant, source, floats in sources
        if source in there
    }
    if not found:
        raise IrstdError(f"{bundle.path}: has no graph to project from: quantize again")
    return found


def _variant(name: str, path: Path, device: Profile, latency: Range) -> dict[str, Any]:
    p50 = latency.middle_ms
    nothing = ("bytes", "memory_mb", "fps_end_to_end", "power_w", "joule_per_frame", "accuracy")
    return {
        "name": name,
        "runtime": TENSORRT,
        "precision": name,
        "device": device.name,
        "measured": False,
        "not_measured": f"projected from {path.name} and the figures of NVIDIA's data sheet"
        + (", float32 where it is not INT8" if name == "int8" else ""),
        "source": device.source,
        **dict.fromkeys(nothing),
        "latency_ms": {"p50": p50, "p90": None, "p99": None, "mean": None, "samples": None},
        "range_ms": [latency.low_ms, latency.high_ms],
        "method": METHOD,
        "stages_ms": None,
        "fps": 1000 / p50,
    }
