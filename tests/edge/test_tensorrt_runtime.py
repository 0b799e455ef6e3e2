"""The logic with a TensorRT that is not one, and where there is one, the real thing."""

import ctypes
import os
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd_edge.edge import compiler
from irstd_edge.edge import tensorrt_runtime as module
from irstd_edge.edge.bundle import Bundle, write_bundle
from irstd_edge.edge.compiler import compile_engine
from irstd_edge.edge.cuda import Cuda
from irstd_edge.edge.devices import Machine
from irstd_edge.edge.engine_from_onnx import Engine
from irstd_edge.edge.engine_plan import EnginePlan
from irstd_edge.edge.engine_store import EngineKey, EngineStore, open_store
from irstd_edge.edge.files import sha256_of
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.gpu import Gpu, this_gpu
from irstd_edge.edge.runners import open_graph, open_runner
from irstd_edge.edge.tensorrt_runtime import SHAPES, TensorrtInfer, engines_of, why_no_engine
from irstd_edge.edge.types import IrstdError, MachineError, Manifest, ModelSpec, Quantization

VERSION = "10.3.0"
ORIN = Gpu("Orin", 87, 8)
HERE = "Orin, 8 multiprocessors"
JETSON = Machine(
    *("Cortex", "aarch64", 6, "integrated, tegra234", None, "nvpmodel 1", 0.1),
    module="orin-nano-8gb",
)


class FakeContext:
    """Of an engine whose network is logits = 20 frame - 10."""

    outputs = ("logits",)

    def __init__(self, driver: Any, log: list[str]) -> None:
        self.driver, self.log = driver, log
        self.shape: tuple[int, ...] = ()
        self.at: dict[str, int] = {}
        self.profiler: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return name == "frame"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.at[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.log.append("execute")
        frame, logits = (self._array(name) for name in ("frame", *self.outputs))
        self.driver.queue(lambda: np.copyto(logits, 20 * frame - 10))
        if self.profiler is not None:
            self.profiler.report_layer_time("conv", 0.5)
            self.profiler.report_layer_time("sigmoid", 0.25)
        return True

    def _array(self, name: str) -> Any:
        count = int(np.prod(self.shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.at[name]))


class FakeEngine:
    num_io_tensors = 2

    def __init__(self, driver: Any, log: list[str], dtype: str) -> None:
        self.driver, self.log, self.dtype = driver, log, dtype

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self.driver, self.log)

    def get_tensor_name(self, index: int) -> str:
        return ("frame", "logits")[index]

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtype


class FakeTensorrt:
    """The module, as far as it is used."""

    __version__ = VERSION
    float32 = "float32"

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = 0, 1, 2, 3

    class IProfiler:
        pass

    def __init__(self, driver: Any) -> None:
        self.log: list[str] = []
        self.driver, self.loaded, self.dtype = driver, list[bytes](), "float32"

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        return self

    def deserialize_cuda_engine(self, data: bytes) -> FakeEngine | None:
        self.loaded.append(data)
        if data == b"broken":
            self.logger.log(3, "chatter")
            self.logger.log(1, "Serialization assertion\\n failed")
            return None
        return FakeEngine(self.driver, self.log, self.dtype)


@pytest.fixture
def trt(driver: Any, monkeypatch: pytest.MonkeyPatch) -> FakeTensorrt:
    fake = FakeTensorrt(driver)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "this_gpu", lambda: ORIN)
    monkeypatch.setattr(module, "load_backend", lambda name: fake)
    return fake


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return open_store(tmp_path / "engines")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "int8.onnx"
    path.write_bytes(b"a graph")
    return path


def key_of(graph: Path, *flags: str, **other: Any) -> EngineKey:
    ends = flags or ("min=1x1x32x32", "opt=1x1x32x48", "max=2x1x64x64")
    given = {"version": VERSION, "gpu": HERE, "target": "sm_87", "backend": "tensorrt"}
    return EngineKey(sha256_of(graph), flags=ends, **{**given, **other})


@pytest.fixture
def infer(
    trt: FakeTensorrt, driver: Any, store: EngineStore, graph: Path
) -> Iterator[TensorrtInfer]:
    store.save(key_of(graph), b"engine")
    opened = TensorrtInfer(graph, ("logits",), store, lambda: Cuda(lambda name: driver))
    yield opened
    opened.close()


def random(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape, np.float32)


def test_every_call_gives_the_networks_numbers(infer: TensorrtInfer) -> None:
    for batch in (random(1, 1, 32, 48), 1 - random(1, 1, 32, 48), random(2, 1, 64, 64)):
        for _ in range(3):
            (logits,) = infer(batch)
            np.testing.assert_array_equal(logits, 20 * batch - 10)


def test_a_shape_runs_once_is_recorded_and_then_replayed(
    infer: TensorrtInfer, trt: FakeTensorrt, driver: Any
) -> None:
    for _ in range(5):
        infer(random(1, 1, 32, 32))
    assert trt.log == ["execute", "execute"]  # the second was recorded
    assert driver.launches == 4


def test_where_it_cannot_be_recorded_it_runs_as_it_is(
    infer: TensorrtInfer, trt: FakeTensorrt, driver: Any
) -> None:
    driver.fails["cuGraphInstantiateWithFlags"] = 801
    batch = random(1, 1, 32, 32)
    for _ in range(4):
        np.testing.assert_array_equal(infer(batch)[0], 20 * batch - 10)
    assert driver.launches == 0


def test_what_computes_a_batch_is_told(infer: TensorrtInfer, driver: Any) -> None:
    batch = random(1, 1, 32, 48)
    flags = ["min=1x1x32x32", "opt=1x1x32x48", "max=2x1x64x64"]
    for calls, recorded in ((0, False), (1, False), (1, True)):
        for _ in range(calls):
            infer(batch)
        told = infer.record(batch.shape)
        assert told == {"version": VERSION, "flags": flags, "cuda_graph": recorded}
    driver.fails["cuGraphInstantiateWithFlags"] = 801
    for _ in range(3):
        infer(random(1, 1, 32, 32))
    assert not infer.record((1, 1, 32, 32))["cuda_graph"]


def test_layers_are_timed_kernel_by_kernel(
    infer: TensorrtInfer, trt: FakeTensorrt, driver: Any
) -> None:
    for _ in range(3):
        infer(random(1, 1, 32, 32))
    held, launches = len(driver.memory), driver.launches
    times = infer.layer_times(random(1, 1, 32, 32), 4)
    assert times == [("conv", 0.5), ("sigmoid", 0.25)] * 4
    assert (len(driver.memory), driver.launches) == (held, launches)


def test_outputs_of_one_call_survive_the_next(infer: TensorrtInfer) -> None:
    (dark,) = infer(np.zeros((1, 1, 32, 32), np.float32))
    infer(np.ones((1, 1, 32, 32), np.float32))
    assert (dark == -10).all()


def test_frames_of_many_sizes_do_not_fill_the_memory(infer: TensorrtInfer, driver: Any) -> None:
    most = 0
    for width in range(32, 33 + 2 * SHAPES):
        infer(np.zeros((1, 1, 32, width), np.float32))
        most = max(most, len(driver.memory))
    assert most == 4 * SHAPES  # two buffers here, two there
    infer.close()
    assert driver.memory == {}


@pytest.mark.parametrize("room", [2, 0])
def test_where_memory_is_short_the_other_sessions_make_room(
    room: int, infer: TensorrtInfer, trt: FakeTensorrt, driver: Any, monkeypatch: Any
) -> None:
    made: list[Any] = []

    def create(engine: FakeEngine) -> FakeContext | None:
        held = sum(reference() is not None for reference in made)
        if held >= room:
            return None
        context = FakeContext(engine.driver, engine.log)
        made.append(weakref.ref(context))
        return context

    monkeypatch.setattr(FakeEngine, "create_execution_context", create)
    if room == 0:
        with pytest.raises(MachineError, match="no context: look at free memory"):
            infer(random(1, 1, 32, 32))
        return
    for width in (32, 40, 48, 32):
        batch = random(1, 1, 32, width)
        np.testing.assert_array_equal(infer(batch)[0], 20 * batch - 10)
    assert len(made) == 4  # the third closed the two before it, and the fourth found room
    assert len(driver.memory) == 2 * 4


@pytest.mark.parametrize("others", [0, 2])
def test_buffers_that_find_no_room_are_freed_and_the_other_sessions_with_them(
    others: int, infer: TensorrtInfer, driver: Any, monkeypatch: Any
) -> None:
    for width in range(32, 32 + 8 * others, 8):
        infer(random(1, 1, 32, width))
    room = len(driver.memory) + 1  # for one buffer of the four
    pinned = Cuda.pinned

    def full(cuda: Cuda, shape: Any) -> Any:
        if len(driver.memory) >= room:
            raise MachineError("out of memory")
        return pinned(cuda, shape)

    monkeypatch.setattr(Cuda, "pinned", full)
    if others:
        batch = random(1, 1, 32, 64)
        np.testing.assert_array_equal(infer(batch)[0], 20 * batch - 10)
        assert len(driver.memory) == 4
        return
    with pytest.raises(MachineError, match="out of memory"):
        infer(random(1, 1, 32, 64))
    assert driver.memory == {}


def test_a_shape_that_no_engine_takes_names_the_command(infer: TensorrtInfer) -> None:
    words = "takes 1 frames of 512x640: .*compile BUNDLE --variant int8 --size 512x640 "
    with pytest.raises(IrstdError, match=words):
        infer(np.zeros((1, 1, 512, 640), np.float32))
    with pytest.raises(IrstdError, match="--size 32x32 --batch 3"):
        infer(np.zeros((3, 1, 32, 32), np.float32))


def test_the_engine_that_was_tuned_for_the_shape_is_taken(
    infer: TensorrtInfer, trt: FakeTensorrt, driver: Any, store: EngineStore, graph: Path
) -> None:
    ends = ("min=1x1x32x32", "opt=1x1x64x64", "max=1x1x64x64")
    store.save(key_of(graph, *ends), b"tuned")
    both = TensorrtInfer(graph, ("logits",), store, lambda: Cuda(lambda name: driver))
    both(random(1, 1, 64, 64))
    both(random(1, 1, 32, 48))
    assert trt.loaded == [b"tuned", b"engine"]
    both.close()


def test_of_two_engines_for_a_shape_the_one_that_was_built_last_is_taken(
    infer: TensorrtInfer, trt: FakeTensorrt, driver: Any, store: EngineStore, graph: Path
) -> None:
    ends = ("min=1x1x64x64", "opt=1x1x64x64", "max=1x1x64x64")
    for age_s, flags in ((10, (*ends, "dla")), (20, ends)):
        built = store.save(key_of(graph, *flags), flags[-1].encode())
        os.utime(built, (time.time() - age_s,) * 2)
    one = TensorrtInfer(graph, ("logits",), store, lambda: Cuda(lambda name: driver))
    one(random(1, 1, 64, 64))
    assert trt.loaded == [b"dla"]
    one.close()


def test_an_engine_that_torch_built_names_its_outputs_by_numbers(
    trt: FakeTensorrt, driver: Any, store: EngineStore, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(engine: Any, index: int) -> str:
        return ("frame", "output0")[index]

    monkeypatch.setattr(FakeEngine, "get_tensor_name", name)
    monkeypatch.setattr(FakeContext, "outputs", ("output0",))
    with pytest.raises(IrstdError, match="BUNDLE --variant int8 --backend torch-tensorrt"):
        TensorrtInfer(graph, ("logits",), store, backend="torch-tensorrt")
    store.save(key_of(graph, backend="torch-tensorrt"), b"engine")
    opened = TensorrtInfer(
        graph, ("logits",), store, lambda: Cuda(lambda name: driver), "torch-tensorrt"
    )
    batch = random(1, 1, 32, 32)
    np.testing.assert_array_equal(opened(batch)[0], 20 * batch - 10)
    opened.close()


@pytest.mark.parametrize(
    ("other", "stale"),
    [
        ({"version": "10.7.0"}, "tensorrt 10.7.0 then, 10.3.0 now"),
        ({"gpu": "other"}, "GPU other then, Orin, 8 multiprocessors now"),
        ({"gpu": "Orin, 16 multiprocessors"}, "GPU Orin, 16 .* then, Orin, 8 .* now"),
        ({"target": "sm_72"}, "target sm_72 then, sm_87 now"),
        ({"version": "9.0", "gpu": "other"}, "tensorrt 9.0 then, 10.3.0 now; GPU other then"),
        ({"backend": "tensorrt-rtx"}, None),
        ({"backend": "torch-tensorrt"}, None),
        ({"graph_sha256": "0" * 64}, None),
    ],
)
def test_an_engine_of_elsewhere_does_not_count(
    trt: FakeTensorrt, store: EngineStore, graph: Path, other: dict[str, str], stale: str | None
) -> None:
    store.save(replace(key_of(graph), **other), b"engine")
    assert engines_of(graph, store) == ()
    why = r"no engine was built of it here" if stale is None else rf"is stale \({stale}"
    with pytest.raises(IrstdError, match=rf"int8\.onnx: .*{why}.*BUNDLE --variant int8$"):
        TensorrtInfer(graph, ("logits",), store)


def test_of_several_stale_engines_the_one_with_the_fewest_changes_is_told(
    trt: FakeTensorrt, store: EngineStore, graph: Path
) -> None:
    store.save(key_of(graph, version="9.0", gpu="other"), b"engine")
    store.save(key_of(graph, version="10.7.0"), b"engine")
    assert "stale (tensorrt 10.7.0 then, 10.3.0 now)" in why_no_engine(graph, store)


def test_an_engine_of_another_power_mode_or_module_does_not_count(
    trt: FakeTensorrt, store: EngineStore, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = ("min=1x1x32x32", "opt=1x1x32x32", "max=1x1x32x32")
    for mode, name in ((0, "orin-nano-8gb"), (1, "orin-nano-8gb"), (0, "orin-nx-8gb")):
        place = (f"module={name}", f"power=nvpmodel {mode}")
        store.save(key_of(graph, *ends, *place), b"engine")
    monkeypatch.setattr(module, "this_machine", lambda: JETSON)
    (key,) = engines_of(graph, store)
    assert key.flags == (*ends, "module=orin-nano-8gb", "power=nvpmodel 1")
    monkeypatch.setattr(module, "this_machine", lambda: replace(JETSON, power_mode="nvpmodel 2"))
    stale = r"is stale \(power nvpmodel . then, nvpmodel 2 now\)"
    with pytest.raises(IrstdError, match=stale):
        TensorrtInfer(graph, ("logits",), store)


def test_what_was_built_here_is_found_here(
    trt: FakeTensorrt, store: EngineStore, tmp_path: Path, mask_spec: ModelSpec, monkeypatch: Any
) -> None:
    for each in (compiler, module):
        monkeypatch.setattr(each, "this_machine", lambda: JETSON)
        monkeypatch.setattr(each, "this_gpu", lambda: ORIN)
    manifest = Manifest(mask_spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    bundle = write_bundle(tmp_path / "b", manifest, {"fp32.onnx": b"a graph"})
    monkeypatch.setattr(compiler, "tensorrt_version", lambda: VERSION)
    built = Engine(b"engine", VERSION, 1.0)
    done = compile_engine(bundle, "fp32", EnginePlan(), store, build=lambda *_: built)
    named = replace(JETSON, power_mode="nvpmodel 1 (25W)")  # as its tool tells, if it answers
    monkeypatch.setattr(module, "this_machine", lambda: named)
    assert engines_of(bundle.path / "fp32.onnx", store) == (done.key,)


def test_an_altered_engine_is_never_given_to_tensorrt(
    infer: TensorrtInfer, trt: FakeTensorrt, store: EngineStore, graph: Path
) -> None:
    store.path(key_of(graph)).write_bytes(b"evil")
    with pytest.raises(IrstdError, match="altered since it was built"):
        infer(random(1, 1, 32, 32))
    assert trt.loaded == []


def test_what_tensorrt_says_is_told_in_one_line(
    trt: FakeTensorrt, driver: Any, store: EngineStore, graph: Path
) -> None:
    store.save(key_of(graph), b"broken")
    opened = TensorrtInfer(graph, ("logits",), store, lambda: Cuda(lambda name: driver))
    with pytest.raises(IrstdError, match=r"TensorRT: Serialization assertion.* failed: build it"):
        opened(random(1, 1, 32, 32))


def test_an_engine_of_other_types_is_refused(infer: TensorrtInfer, trt: FakeTensorrt) -> None:
    trt.dtype = "float16"
    with pytest.raises(IrstdError, match="not float32 frame, logits: build it again"):
        infer(random(1, 1, 32, 32))


def test_a_missing_tensorrt_says_how_to_get_it(
    graph: Path, mask_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="tensorrt: not installed: on a Jetson .*jetpack"):
        open_graph(graph, mask_spec, "int8", "tensorrt")


def test_a_missing_gpu_says_where_to_run(
    graph: Path, mask_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "this_gpu", lambda: None)
    monkeypatch.setattr(module, "cuda_refusal", lambda: None)
    with pytest.raises(MachineError, match="tensorrt: no usable NVIDIA GPU here: run it on the"):
        open_graph(graph, mask_spec, "int8", "tensorrt")
    monkeypatch.setattr(module, "cuda_refusal", lambda: "cuInit failed (801): join")
    with pytest.raises(MachineError, match=r"^tensorrt: cuInit failed \(801\): join$"):
        open_graph(graph, mask_spec, "int8", "tensorrt")


def test_a_runner_of_it_detects_and_frees_it(
    trt: FakeTensorrt,
    driver: Any,
    tmp_path: Path,
    mask_spec: ModelSpec,
    frame: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        TensorrtInfer.__init__, "__defaults__", (None, lambda: Cuda(lambda n: driver), "tensorrt")
    )
    manifest = Manifest(mask_spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    files = {"int8.onnx": b"a graph", **golden_files([], {"int8.onnx": ()})}
    bundle = write_bundle(tmp_path / "b", manifest, files)
    ends = ("min=1x1x32x24", "opt=1x1x32x24", "max=1x1x32x24")
    open_store().save(key_of(bundle.path / "int8.onnx", *ends), b"engine")
    with open_runner(bundle, "int8", "tensorrt") as run:
        first, second = run.detect(frame)
    assert (first.row, first.col, first.area_px) == (6.5, 8.5, 4.0)
    assert (second.row, second.col, second.area_px) == (20.5, 14.5, 4.0)
    assert run.name == "mshnet int8 on tensorrt"
    assert driver.memory == {}


@pytest.mark.tensorrt
@pytest.mark.skipif(
    find_spec("tensorrt") is None or this_gpu() is None or find_spec("polygraphy") is None,
    reason="needs TensorRT, Polygraphy and an NVIDIA GPU",
)
class TestWithTensorrt:
    """Where it exists: built, stored, loaded and compared with ONNX Runtime."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def bundle(self, tmp_path: Path, heatmap_spec: ModelSpec, heatmap_graph: bytes) -> Bundle:
        manifest = Manifest(heatmap_spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
        files = {"fp32.onnx": heatmap_graph, **golden_files([], {"fp32.onnx": ()})}
        return write_bundle(tmp_path / "b", manifest, files)

    def test_it_gives_the_numbers_of_onnx_runtime(self, bundle: Bundle) -> None:
        compile_engine(
            bundle, "fp32", EnginePlan(sizes=((64, 80), (32, 32)), batch=2), open_store()
        )
        with (
            open_runner(bundle, "fp32", "onnxruntime") as reference,
            open_runner(bundle, "fp32", "tensorrt") as run,
        ):
            for shape in ((1, 1, 64, 80), (2, 1, 32, 32), (1, 1, 64, 80)):
                for seed in range(3):  # as it is, while it is recorded, replayed
                    batch = np.random.default_rng(seed).random(shape, np.float32)
                    pairs = zip(run.infer(batch), reference.infer(batch), strict=True)
                    for found, expected in pairs:
                        np.testing.assert_allclose(found, expected, atol=0.05)  # TF32
