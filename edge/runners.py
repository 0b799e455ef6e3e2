"""A graph and a runtime -> detections. One preprocessing and one decode for every runtime.

with open_runner(bundle, "int8", "openvino") as run:
    detections = run.detect(frame)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from irstd_edge.edge.bundle import Bundle, open_bundle
from irstd_edge.edge.detect import OUTPUTS, detections_from_strips, predict_from_outputs
from irstd_edge.edge.devices import usable_threads
from irstd_edge.edge.frames import batch_of, batch_of_image, padded_size
from irstd_edge.edge.golden import self_test
from irstd_edge.edge.graph_file import refuse_graph
from irstd_edge.edge.quiet import silence_telemetry
from irstd_edge.edge.runtimes import PACKAGES, Infer
from irstd_edge.edge.runtimes import RUNTIMES as RUNTIMES
from irstd_edge.edge.tensorrt_runtime import TENSORRT_RUNTIMES, TensorrtInfer
from irstd_edge.edge.types import (
    DecodeSpec,
    Detection,
    FloatArray,
    Frame,
    IrstdError,
    MachineError,
    ModelSpec,
    Prediction,
)

if TYPE_CHECKING:
    import torch

OUT_OF_MEMORY = "allocate memory"
"""In what torch says on a CPU; its class is that of many other faults."""


class Runner:
    """A network ready to run. Close it, or use it as a `with` block, to free what it holds."""

    def __init__(self, spec: ModelSpec, runtime: str, variant: str, infer: Infer) -> None:
        """`infer` runs the network; see `open_runner`, `open_graph` and `torch_runner`."""
        self.name = f"{spec.name} {variant} on {runtime}"
        self.runtime = runtime
        self.variant = variant
        self.spec = spec
        self.stages_ms: dict[str, float] = {}
        """pre, infer, post of the last call, of all its frames together."""
        self._infer: Infer | None = infer

    def infer(self, batch: FloatArray) -> list[FloatArray]:
        """(N, 1, H, W) float32 in 0..1 -> [logits (N, 1, H, W)] or [heatmap, geometry].

        Raises IrstdError when the shape does not fit, and says which one would.
        """
        if self._infer is None:
            raise ValueError(f"{self.name}: closed")
        _check_shape(batch.shape, self.spec.input.stride)
        return self._infer(batch)

    def batch_of(self, frame: Frame) -> FloatArray:
        """(1, 1, H', W'): the frame in 0..1, padded to the network's stride."""
        return batch_of(frame, self.spec.input)

    def batch_of_image(self, image: FloatArray) -> FloatArray:
        """(1, 1, H', W'): a frame (H, W) in 0..1, or a part of it, padded to the stride."""
        return batch_of_image(image, self.spec.input.stride)

    def predict(self, frame: Frame, threshold: float | None = None) -> Prediction:
        """Everything the network says of a frame, at the manifest's threshold or another."""
        return self.predict_all([frame], threshold)[0]

    def predict_all(
        self, frames: Sequence[Frame], threshold: float | None = None
    ) -> list[Prediction]:
        """The same of several frames of one size, in one call of the network."""
        start = time.perf_counter()
        inputs = [self.batch_of(frame) for frame in frames]
        if len({each.shape for each in inputs}) != 1:
            raise IrstdError(f"{self.name}: a call takes frames of one size: give those together")
        batch = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        ready = time.perf_counter()
        outputs = self.infer(batch)
        done = time.perf_counter()
        predictions = [
            self.decode([output[index] for output in outputs], frame, threshold)
            for index, frame in enumerate(frames)
        ]
        end = time.perf_counter()
        self.stages_ms = {
            "pre": 1e3 * (ready - start),
            "infer": 1e3 * (done - ready),
            "post": 1e3 * (end - done),
        }
        return predictions

    def decode(
        self, outputs: Sequence[FloatArray], frame: Frame, threshold: float | None = None
    ) -> Prediction:
        """What outputs (C, H', W') for a whole frame mean; raises IrstdError for NaN in them."""
        with self._named(frame):
            return predict_from_outputs(outputs, frame.shape, self._decode_at(threshold))

    def decode_strips(
        self,
        strips: Iterable[Sequence[FloatArray]],
        frame: Frame,
        threshold: float | None = None,
    ) -> tuple[Detection, ...]:
        """The detections of outputs that come by strips of rows, see `detections_from_strips`."""
        with self._named(frame):
            return detections_from_strips(strips, frame.shape, self._decode_at(threshold))

    def detect(self, frame: Frame) -> tuple[Detection, ...]:
        """The detections of a frame, best first."""
        return self.predict(frame).detections

    def _decode_at(self, threshold: float | None) -> DecodeSpec:
        """The manifest's decode, at its threshold or another."""
        decode = self.spec.decode
        return decode if threshold is None else replace(decode, threshold=threshold)

    @contextmanager
    def _named(self, frame: Frame) -> Iterator[None]:
        """Say of which frame and network an error is."""
        try:
            yield
        except IrstdError as error:
            raise IrstdError(f"{frame.name}: {self.name}: {error}") from error

    def engine(self, shape: tuple[int, ...]) -> dict[str, Any] | None:
        """Version, flags and CUDA graph of the engine for a batch; None where none runs."""
        tell = getattr(self._infer, "record", None)
        told: dict[str, Any] | None = None if tell is None else tell(shape)
        return told

    def layer_times(self, batch: FloatArray, runs: int) -> list[tuple[str, float]] | None:
        """(name, ms) of every layer of an engine in every run; None where none runs."""
        tell = getattr(self._infer, "layer_times", None)
        told: list[tuple[str, float]] | None = None if tell is None else tell(batch, runs)
        return told

    def close(self) -> None:
        """Free the network; may be called twice."""
        infer, self._infer = self._infer, None
        free = getattr(infer, "close", None)  # of runtimes that hold more than memory
        if free is not None:
            free()

    def __enter__(self) -> Runner:
        """The runner itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def open_runner(
    bundle: str | Path | Bundle,
    variant: str = "int8",
    runtime: str = "onnxruntime",
    threads: int | None = None,
) -> Runner:
    """Open a variant of a bundle on a runtime, and have it prove itself on the golden frames.

    bundle: a path is verified first, file by file. threads: of the CPU; None for all that this
    process may use. Raises IrstdError for a wrong name, a damaged bundle, and a runtime that does
    not see what it should; MachineError for one that is not installed.
    """
    check_runtime(runtime)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    graph = opened.graph(variant, runtime)
    runner = open_graph(graph, opened.manifest.model, variant, runtime, threads)
    try:
        self_test(runner, opened)
    except BaseException:
        runner.close()
        raise
    return runner


def open_graph(
    graph: Path,
    spec: ModelSpec,
    variant: str,
    runtime: str = "onnxruntime",
    threads: int | None = None,
) -> Runner:
    """Open one ONNX file that is not in a bundle (yet). Otherwise as `open_runner`.

    tensorrt and torch-tensorrt run an engine that was built of this very file on this machine.
    """
    check_runtime(runtime)
    if threads is not None and threads < 1:
        raise IrstdError(f"--threads: {threads} is not a number of threads: use 1 or more")
    outputs = OUTPUTS[spec.decode.kind]
    if runtime in TENSORRT_RUNTIMES:
        return Runner(spec, runtime, variant, TensorrtInfer(graph, outputs, backend=runtime))
    if find_spec(runtime) is None:
        raise MachineError(f"{runtime}: not installed: pip install '{PACKAGES[runtime]}'")
    refuse_graph(graph)
    silence_telemetry()
    infer = RUNTIMES[runtime](graph, outputs, threads or usable_threads())
    return Runner(spec, runtime, variant, infer)


def torch_runner(module: torch.nn.Module, spec: ModelSpec, variant: str = "fp32") -> Runner:
    """Run a deployed torch module on the device where its weights are.

    module: takes (N, 1, H, W) in 0..1, as `deploy()` returns it, in eval mode. Raises IrstdError
    for a module in training mode: its normalisation would change with every frame.
    """
    import torch

    if module.training:
        raise IrstdError(f"{spec.name}: the module is in training mode: call module.eval() first")
    weight = next(module.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device

    def infer(batch: FloatArray) -> list[FloatArray]:
        try:
            with torch.inference_mode():
                outputs = module(torch.from_numpy(batch).to(device))
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and OUT_OF_MEMORY not in str(error):
                raise
            raise MemoryError(
                f"{spec.name} on frames of {'x'.join(map(str, batch.shape[2:]))}"
            ) from error
        parts = outputs if isinstance(outputs, tuple | list) else (outputs,)
        return [part.float().cpu().numpy() for part in parts]

    return Runner(spec, "torch", variant, infer)


def installed_runtimes() -> tuple[str, ...]:
    """Those of `RUNTIMES` that can be imported here: they run on the CPU and read ONNX."""
    return tuple(name for name in RUNTIMES if find_spec(name) is not None)


def runtime_version(runtime: str) -> str | None:
    """Of a runtime's package; None where it does not say."""
    package = "tensorrt" if runtime in TENSORRT_RUNTIMES else runtime
    version = getattr(import_module(package), "__version__", None)
    return None if version is None else str(version)


def check_runtime(runtime: str) -> None:
    """Raise IrstdError unless bundles may be run on it, here or elsewhere."""
    names = ", ".join((*RUNTIMES, *TENSORRT_RUNTIMES))
    if runtime == "torch":
        raise IrstdError(f"torch: runs weights, not bundles: use --runtime {names}")
    if runtime not in (*RUNTIMES, *TENSORRT_RUNTIMES):
        raise IrstdError(f"--runtime: {runtime!r} is not one of {names}")


def _check_shape(shape: tuple[int, ...], stride: int) -> None:
    fits = len(shape) == 4 and shape[1] == 1 and all(n > 0 for n in shape)
    if not fits:
        raise IrstdError(f"batch: its shape is {shape}: give (N, 1, H, W)")
    height, width = padded_size(shape[2:], stride)
    if (height, width) != shape[2:]:
        raise IrstdError(
            f"batch: {shape[2]}x{shape[3]} is not a multiple of {stride}: pad to {height}x{width}"
        )
