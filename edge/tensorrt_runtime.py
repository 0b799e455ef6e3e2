"""Engines of this machine's store, run by TensorRT: the same graph in, the same numbers out.

No torch and no Polygraphy: TensorRT's own runtime, pinned buffers, asynchronous copies, and for
each shape of batch one CUDA graph of copy, network and copy, recorded at its second use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irstd_edge.edge.cuda import Cuda
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.engine_from_onnx import INSTALLS, load_backend
from irstd_edge.edge.engine_place import engine_place
from irstd_edge.edge.engine_store import AGAIN, EngineKey, EngineStore, Shape, open_store
from irstd_edge.edge.files import sha256_of
from irstd_edge.edge.gpu import cuda_refusal, this_gpu
from irstd_edge.edge.runtimes import INPUT
from irstd_edge.edge.types import FloatArray, IrstdError, MachineError

TENSORRT = "tensorrt"
"""Of the graphs of the signed form, zero-point 0; TensorRT-RTX reads the same."""
TORCH_TENSORRT = "torch-tensorrt"
"""Engines of the same TensorRT, built from torch: they run without it, and name their outputs by
numbers."""
TENSORRT_RUNTIMES = (TENSORRT, TORCH_TENSORRT)
SHAPES = 8
"""Sessions kept: frames of many sizes must not fill the memory."""


def is_ready() -> bool:
    """Whether TensorRT and a GPU are here."""
    return why_not_ready() is None


def why_not_ready() -> str | None:
    """What is missing to run engines here, and the fix; None where TensorRT and a GPU are here."""
    if find_spec(TENSORRT) is None:
        return f"tensorrt: not installed: {INSTALLS[TENSORRT]}"
    if this_gpu() is None:
        none = "no usable NVIDIA GPU here: run it on the device, or use another --runtime"
        return f"tensorrt: {cuda_refusal() or none}"
    return None


def engines_of(
    graph: Path, store: EngineStore | None = None, backend: str = TENSORRT
) -> tuple[EngineKey, ...]:
    """Of an ONNX file, those in the store that this TensorRT can load on this GPU.

    Raises MachineError where TensorRT or the GPU is missing.
    """
    return tuple(key for key, changes in _kept(graph, store, backend) if not changes)


def why_no_engine(graph: Path, store: EngineStore | None = None, backend: str = TENSORRT) -> str:
    """Why `engines_of` gives none: nothing was built of the graph, or what has changed since."""
    again = f"irstd-edge compile BUNDLE --variant {graph.stem}"
    again += "" if backend == TENSORRT else f" --backend {backend}"
    kept = [changes for _, changes in _kept(graph, store, backend)]
    if not kept:
        return f"{graph}: no engine was built of it here: {again}"
    nearest = min(kept, key=len)
    return f"{graph}: its engine is stale ({'; '.join(nearest)}): {again}"


def _kept(
    graph: Path, store: EngineStore | None, backend: str
) -> list[tuple[EngineKey, tuple[str, ...]]]:
    """The engines of a graph in the store, each with what has changed since it was built."""
    version = _tensorrt().__version__
    place, digest = engine_place(this_gpu(), this_machine()), sha256_of(graph)
    return [
        (key, place.changes(key, version))
        for key in (store or open_store()).keys()
        if (key.graph_sha256, key.backend) == (digest, backend)
    ]


class TensorrtInfer:
    """(N, 1, H, W) in 0..1 -> outputs, by whichever engine takes that shape."""

    def __init__(
        self,
        graph: Path,
        outputs: tuple[str, ...],
        store: EngineStore | None = None,
        open_cuda: Callable[[], Cuda] = Cuda,
        backend: str = TENSORRT,
    ) -> None:
        """Raises IrstdError without an engine of the graph, MachineError without TensorRT."""
        self._trt = _tensorrt()
        self._graph, self._outputs = graph, outputs
        self._store = store or open_store()
        self._keys = engines_of(graph, self._store, backend)
        if not self._keys:
            raise IrstdError(why_no_engine(graph, self._store, backend))
        self._backend = backend
        if backend == TORCH_TENSORRT:
            self._outputs = tuple(f"output{index}" for index in range(len(outputs)))
        self._open_cuda, self._cuda = open_cuda, open_cuda()
        self._errors: list[str] = []
        self._runtime = self._trt.Runtime(_listener(self._trt, self._errors))
        self._engines: dict[EngineKey, Any] = {}
        self._sessions: OrderedDict[Shape, _Session] = OrderedDict()

    def __call__(self, batch: FloatArray) -> list[FloatArray]:
        """Run one batch. Raises IrstdError for a shape that no engine takes."""
        self._cuda.enter()
        if batch.shape not in self._sessions:
            self._sessions[batch.shape] = self._session(batch.shape)
            if len(self._sessions) > SHAPES:
                self._sessions.popitem(last=False)[1].close()
        self._sessions.move_to_end(batch.shape)
        return self._sessions[batch.shape].run(batch)

    def record(self, shape: Shape) -> dict[str, Any]:
        """What computes a batch of this shape, for bench.json."""
        key, session = self._key(shape), self._sessions.get(shape)
        return {
            "version": key.version,
            "flags": list(key.flags),
            "cuda_graph": session is not None and session.is_recorded,
        }

    def layer_times(self, batch: FloatArray, runs: int) -> list[tuple[str, float]]:
        """(name, ms) of every layer of every run, kernel by kernel and so without a CUDA graph."""
        self._cuda.enter()
        session = self._session(batch.shape)
        try:
            return session.layer_times(self._trt, batch, runs)
        finally:
            session.close()

    def close(self) -> None:
        """Free sessions before engines before the runtime, as TensorRT wants it."""
        self._close_sessions()
        self._engines.clear()
        self._runtime = None
        self._cuda.close()

    def _close_sessions(self) -> None:
        while self._sessions:
            self._sessions.popitem()[1].close()

    def _session(self, shape: Shape) -> _Session:
        try:
            return self._new_session(shape)
        except MachineError:
            if not self._sessions:
                raise
            self._close_sessions()  # each holds memory for the engine's largest shape
            return self._new_session(shape)

    def _new_session(self, shape: Shape) -> _Session:
        context = self._engine(self._key(shape)).create_execution_context()
        if context is None or not context.set_input_shape(INPUT, shape):
            raise MachineError(f"{self._graph}: {self._why('no context')}: look at free memory")
        cuda = self._open_cuda()
        try:
            return _Session(context, self._outputs, shape, cuda)
        except BaseException:
            cuda.close()
            raise

    def _key(self, shape: Shape) -> EngineKey:
        """The engine that was tuned for the shape, else one that takes it; of two the newer."""
        fits = [key for key in self._keys if key.takes(shape)]
        if not fits:
            size = f"{shape[2]}x{shape[3]}"
            options = f"--variant {self._graph.stem} --size {size}"
            options += f" --batch {shape[0]}" if shape[0] > 1 else ""
            options += "" if self._backend == TENSORRT else f" --backend {self._backend}"
            raise IrstdError(
                f"{self._graph}: no engine of it takes {shape[0]} frames of {size}: irstd-edge "
                f"compile BUNDLE {options} (more of --size, or --data DIR, cover many sizes)"
            )
        return max(fits, key=lambda key: (key.tuned_for == shape, self._store.built(key)))

    def _engine(self, key: EngineKey) -> Any:
        """The store vouches for the bytes, which are native code."""
        if key not in self._engines:
            engine = self._runtime.deserialize_cuda_engine(self._store.load(key))
            if engine is None:
                raise IrstdError(f"{self._graph}: {self._why('does not load')}: {AGAIN}")
            _check(self._trt, engine, self._graph, self._outputs)
            self._engines[key] = engine
        return self._engines[key]

    def _why(self, otherwise: str) -> str:
        said = " ".join(self._errors[-1].split()) if self._errors else otherwise
        return f"TensorRT: {said:.200}"


class _Session:
    """An execution context for one shape, with its buffers."""

    def __init__(self, context: Any, outputs: tuple[str, ...], shape: Shape, cuda: Cuda) -> None:
        self._context: Any = context
        self._cuda = cuda
        shapes = {INPUT: shape, **{n: tuple(context.get_tensor_shape(n)) for n in outputs}}
        self._host = {name: self._cuda.pinned(size) for name, size in shapes.items()}
        self._device = {n: self._cuda.device_memory(a.nbytes) for n, a in self._host.items()}
        for name, address in self._device.items():
            context.set_tensor_address(name, address)
        self._outputs, self._runs = outputs, 0
        self._queue = self._work
        self.is_recorded = False
        """Whether a CUDA graph runs, and not one kernel after the other."""

    def run(self, batch: FloatArray) -> list[FloatArray]:
        """Copies of the outputs: the buffers are written again by the next call."""
        self._host[INPUT][...] = batch
        if self._runs == 1:  # TensorRT must have run once at a shape before it can be recorded
            recorded = self._cuda.record(self._work)
            self._queue, self.is_recorded = recorded or self._work, recorded is not None
        self._queue()
        self._cuda.wait()
        self._runs += 1
        return [self._host[name].copy() for name in self._outputs]

    def layer_times(self, trt: Any, batch: FloatArray, runs: int) -> list[tuple[str, float]]:
        times: list[tuple[str, float]] = []

        class Profiler(trt.IProfiler):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times.append((layer_name, ms))

        self._context.profiler = profiler = Profiler()  # TensorRT holds no reference of its own
        self._host[INPUT][...] = batch
        for _ in range(runs):
            self._work()
            self._cuda.wait()
        self._context = None
        del profiler
        return times

    def close(self) -> None:
        self._context = None
        self._cuda.close()

    def _work(self) -> None:
        self._cuda.upload(self._host[INPUT], self._device[INPUT])
        if not self._context.execute_async_v3(self._cuda.stream.value):
            raise MachineError("tensorrt: the engine does not run: look at free memory and dmesg")
        for name in self._outputs:
            self._cuda.download(self._device[name], self._host[name])


def _tensorrt() -> Any:
    if (refusal := why_not_ready()) is not None:
        raise MachineError(refusal)
    return load_backend(TENSORRT)


def _listener(trt: Any, errors: list[str]) -> Any:
    """Keeps what TensorRT says of errors, which it would print."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                errors.append(message)

    return Listener()


def _check(trt: Any, engine: Any, graph: Path, outputs: tuple[str, ...]) -> None:
    """The contract of every graph: one input, these outputs, all of them float32."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    kinds = {name: engine.get_tensor_dtype(name) for name in names}
    if set(names) != {INPUT, *outputs} or set(kinds.values()) != {trt.float32}:
        raise IrstdError(
            f"{graph}: its engine has {kinds}, not float32 {INPUT}, {', '.join(outputs)}: {AGAIN}"
        )
