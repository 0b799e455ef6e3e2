import copy
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd_edge.benchmarks import bench as bench_module
from irstd_edge.benchmarks.bench import SATURATES, bench, warnings_of
from irstd_edge.benchmarks.energy import Board, Energy
from irstd_edge.benchmarks.memory import Loaded, measure_load
from irstd_edge.benchmarks.plan import Plan, timed_on_of
from irstd_edge.benchmarks.schema import check_bench
from irstd_edge.edge.bundle import Bundle, write_bundle
from irstd_edge.edge.clocks import Throttle
from irstd_edge.edge.dataset import DataSet, open_dataset
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.runners import open_runner
from irstd_edge.edge.types import (
    DecodeSpec,
    InputSpec,
    IrstdError,
    MachineError,
    Manifest,
    ModelSpec,
    Quantization,
)

pytest.importorskip("onnx", reason="the tiny graphs are written with the train extra")

SHAPES = {"a": (32, 32), "b": (32, 32), "c": (20, 48)}
TARGETS = {"a": [(8, 8, 200)], "b": [(5, 20, 200), (20, 6, 120)], "c": [(10, 30, 200)]}
"""Name -> (row, col, counts) of its 2x2 targets."""


@pytest.fixture
def bundle(tmp_path: Path, threshold_net: Callable[[float], bytes]) -> Bundle:
    """Its INT8 graph is deaf to the fainter target."""
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    graphs = {"fp32.onnx": threshold_net(60), "int8.cpu.onnx": threshold_net(160)}
    golden = golden_files([], dict.fromkeys(graphs, ()))
    return write_bundle(tmp_path / "bundle", manifest, {**graphs, **golden})


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    root = tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name, shape in SHAPES.items():
        counts, mask = np.full(shape, 20, np.uint8), np.zeros(shape, bool)
        for row, col, value in TARGETS[name]:
            counts[row : row + 2, col : col + 2] = value
            mask[row : row + 2, col : col + 2] = True
        (root / "images" / f"{name}.png").write_bytes(png_of(counts))
        (root / "masks" / f"{name}.png").write_bytes(png_of(mask))
    (root / "images" / "odd.png").write_bytes(png_of(np.zeros((8, 8), np.uint8)))
    (root / "masks" / "odd.png").write_bytes(png_of(np.zeros((9, 9), bool)))
    (root / "test.txt").write_text("\n".join([*SHAPES, "odd"]))
    return open_dataset(root)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """Plans that take milliseconds: no process of its own for the memory."""
    monkeypatch.setattr(bench_module, "measure_load", lambda *ignored: Loaded(12.5, 80.0, None))
    return lambda **wanted: Plan(**{"threads": 1, "warm_up_s": 0.0, "samples": 5, **wanted})


def test_every_variant_is_timed_judged_and_compared(
    bundle: Bundle,
    data: DataSet,
    quick: Callable[..., Plan],
    threshold_net: Callable[[float], bytes],
) -> None:
    report = bench([bundle], quick(data=data))

    check_bench(json.loads(json.dumps(report, allow_nan=False)))
    (result,) = report["results"]
    assert (result["model"], result["bundle"]) == ("tiny", bundle.sha256)
    assert result["timed_on"] == "3 frames of the data, cut or mirrored to 32x32"
    assert result["cost"] == {
        "params": 2,
        "macs": 1024,
        "gflops": 2.048e-6,
        "activation_bytes": 4096,
        "input": [1, 1, 32, 32],
        "layers": [{"name": "conv", "op": "Conv", "macs": 1024, "params": 2, "output_bytes": 4096}],
    }
    fp32, int8 = result["variants"]
    assert [fp32["name"], int8["name"]] == ["fp32", "int8"]
    assert fp32["bytes"] == len(threshold_net(60))
    assert fp32["latency_ms"]["samples"] == 5
    for stage, mean in fp32["stages_ms"].items():  # every time is kept, of every stage
        assert len(fp32[f"{stage}_ms"]) == 5
        assert np.mean(fp32[f"{stage}_ms"]) == pytest.approx(mean, abs=1e-4)
    assert fp32["stages_ms"]["read"] > 0
    assert (fp32["memory_mb"], fp32["load_ms"], fp32["gpu_memory_mb"]) == (12.5, 80.0, None)
    assert (fp32["accuracy"]["pd"], int8["accuracy"]["pd"]) == (1.0, 0.75)
    assert fp32["accuracy"]["images"] == 3
    assert [skip["name"] for skip in fp32["accuracy"]["skipped"]] == ["odd"]
    curves = [variant["accuracy"]["curve"] for variant in (fp32, int8)]
    assert [curve["pd"][curve["threshold"].index(0.5)] for curve in curves] == [1.0, 0.75]
    assert [curve["pd"][-1] for curve in curves] == [0.0, 0.0]
    (drift,) = result["drift"]
    assert (drift["reference"], drift["candidate"]) == ("fp32", "int8")
    assert (drift["targets_lost"], drift["targets_gained"]) == (1, 0)
    (at_own, *_) = drift["pd_at_fa"]
    assert (at_own["pd_reference"], at_own["pd_candidate"], at_own["fa_per_mpx"]) == (
        *(1.0, 0.75, 0.0),
    )
    assert [each["lost"] for each in drift["by_area"]] == [1, 0, 0, 0]
    (lost,) = [target for target in drift["targets"] if target["flip"] == "lost"]
    assert (lost["image"], lost["row"], lost["col"]) == ("b", 20.5, 6.5)


@pytest.mark.parametrize(
    ("isa", "reduced", "plan", "warned"),
    [
        ("x86_64+avx2", False, Plan(), True),
        ("x86_64+avx2", True, Plan(), False),
        ("x86_64+avx2", False, Plan(variants=("fp32", "fp16")), False),
        ("x86_64+avx2", False, Plan(runtimes=("tensorrt",)), False),
        ("x86_64+avx2+avx512_vnni", False, Plan(), False),
    ],
)
def test_int8_without_vnni_is_warned_of(
    isa: str, reduced: bool, plan: Plan, warned: bool, bundle: Bundle
) -> None:
    machine = replace(this_machine(), isa=isa)
    recipe = Quantization("ptq", {"reduced_range": reduced}, (), ())
    made = replace(bundle, manifest=replace(bundle.manifest, quantization=recipe))
    timed_on = timed_on_of(plan)
    assert warnings_of(made, machine, plan, timed_on) == ([SATURATES] if warned else [])


def test_what_is_read_is_what_is_timed(data: DataSet) -> None:
    """At paper256 the frame is resized as well, which a frame end to end takes."""
    for protocol in ("native", "paper256"):
        timed_on = timed_on_of(Plan(data=data, protocol=protocol))
        first = timed_on.frames[0]
        assert timed_on.read is not None
        again = timed_on.read(first)
        assert again.shape == data.sample(first.name, protocol).frame.shape
        if protocol == "paper256":
            assert (again.counts == first.counts).all()


def warned_of_frames(report: dict[str, Any]) -> list[str]:
    """Not of this processor."""
    return [words for words in report["results"][0]["warnings"] if words != SATURATES]


def test_frames_that_clip_are_counted(
    bundle: Bundle, data: DataSet, quick: Callable[..., Plan]
) -> None:
    assert warned_of_frames(bench([bundle], quick(data=data))) == []
    name = data.names[0]
    counts = data.sample(name).frame.counts.copy()
    counts[:2, :2] = 255
    data.images[name].write_bytes(png_of(counts))
    (words,) = warned_of_frames(bench([bundle], quick(data=data)))
    assert words == "frames with over 0.1% of their pixels at full scale: 1"


def test_frames_that_tiles_would_serve_better_are_counted(
    bundle: Bundle, data: DataSet, quick: Callable[..., Plan]
) -> None:
    def warned(*shape: int) -> list[str]:
        for folder in ("images", "masks"):
            path = data.root / folder / f"{data.names[0]}.png"
            path.write_bytes(png_of(np.full(shape, 20 if folder == "images" else 0, np.uint8)))
        return warned_of_frames(bench([bundle], quick(data=data)))

    assert warned(512, 512) == []
    assert warned(512, 516) == [
        "frames run whole, which may hide targets (`eval --tile 320x320`): 1"
    ]


def test_without_data_noise_is_timed_and_nothing_judged(
    bundle: Bundle, quick: Callable[..., Plan]
) -> None:
    (result,) = bench([bundle], quick(size=(40, 30)))["results"]

    assert result["timed_on"] == "synthetic noise of 40x30 (no data was given)"
    assert result["cost"]["input"] == [1, 1, 48, 32]
    assert result["drift"] == []
    for variant in result["variants"]:
        assert variant["accuracy"] is None
        assert variant["stages_ms"]["read"] is None


def test_frames_go_in_batches_where_asked_to(bundle: Bundle, quick: Callable[..., Plan]) -> None:
    (alone,), (together,) = (
        bench([bundle], quick(size=(512, 512), batch=batch))["results"] for batch in (1, 20)
    )
    for one, many in zip(alone["variants"], together["variants"], strict=True):
        assert (one["batch"], many["batch"]) == (1, 20)  # more than the sixteen that are timed on
        assert many["latency_ms"]["p50"] > 5 * one["latency_ms"]["p50"]
        assert many["fps"] == pytest.approx(20_000 / many["latency_ms"]["p50"])
        stages = [ms for ms in many["stages_ms"].values() if ms is not None]
        assert many["fps_end_to_end"] == pytest.approx(20_000 / sum(stages))


def test_at_a_sensors_rate_every_variant_has_its_pace(
    bundle: Bundle, quick: Callable[..., Plan]
) -> None:
    report = bench([bundle], quick(size=(16, 16), rate_hz=200.0))
    check_bench(report)
    for variant in report["results"][0]["variants"]:
        pace = variant["pace"]
        assert (pace["rate_hz"], pace["detected"], len(pace["ages_ms"])) == (200.0, 5, 5)
        assert pace["arrived"] == pace["detected"] + pace["dropped"]
        assert min(pace["ages_ms"]) > 0
        assert "p99 of the age of 5 frames, 100 are needed" in variant["weak"]
    plain = bench([bundle], quick(size=(16, 16)))
    assert [each["pace"] for each in plain["results"][0]["variants"]] == [None, None]


def test_noise_is_given_to_fp32_where_asked_for(
    bundle: Bundle, data: DataSet, quick: Callable[..., Plan]
) -> None:
    quiet, faint, loud = (
        bench([bundle], quick(data=data, noise_counts=counts))["results"][0]
        for counts in (None, 0.4, 60.0)
    )
    check_bench({**bench([bundle], quick()), "results": [quiet, faint, loud]})
    assert quiet["noise"] is None
    noise = faint["noise"]
    assert (noise["counts"], noise["variant"], noise["runtime"]) == (0.4, "fp32", "onnxruntime")
    assert (noise["targets"], noise["targets_lost"], noise["iou"]) == (4, 0, 0)
    assert loud["noise"]["iou"] < -0.5 and loud["noise"]["false_alarms_gained"] > 0
    assert quiet["drift"] == faint["drift"] == loud["drift"]
    alone = bench([bundle], quick(data=data, noise_counts=1.0, variants=("int8",)))
    assert alone["results"][0]["noise"]["variant"] == "int8", "there is no other"
    assert bench([bundle], quick(noise_counts=1.0))["results"][0]["noise"] is None, "no data"


def test_on_a_board_power_is_measured_and_what_weakens_it_is_told(
    bundle: Bundle, quick: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    energy = Energy(8.0, 40.0, 52.5, 90, ("gpu-throttle-alert",))
    monkeypatch.setattr(bench_module, "this_board", lambda is_jetson: Board(clocks_locked=False))
    monkeypatch.setattr(bench_module, "measure_energy", lambda *ignored, batch: energy)
    report = bench([bundle], quick(size=(16, 16)))

    check_bench(report)
    assert report["machine"]["clocks_locked"] is False
    for variant in report["results"][0]["variants"]:
        assert (variant["power_w"], variant["joule_per_frame"]) == (8.0, 0.2)
        assert variant["hottest_c"] == 52.5
        reasons = " ".join(variant["weak"])
        assert "sudo jetson_clocks" in reasons
        assert "throttled itself while its power was measured (gpu-throttle" in reasons


def test_throttling_during_the_timing_weakens_every_variant_without_a_meter_too(
    bundle: Bundle, quick: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter((Throttle(frozenset(), 4), Throttle(frozenset({"cpu-throttle-alert"}), 6)))
    board = Board(read_throttle=lambda: next(states))
    monkeypatch.setattr(bench_module, "this_board", lambda is_jetson: board)
    (result,) = bench([bundle], quick(size=(16, 16)))["results"]
    words = (
        "the board throttled itself while variants were timed "
        "(cpu-throttle-alert, over-current, 2 times): cool it, or feed it"
    )
    assert [variant["power_w"] for variant in result["variants"]] == [None, None]
    assert all(words in variant["weak"] for variant in result["variants"])


def test_what_a_board_without_onnx_could_not_tell_is_added(
    bundle: Bundle, quick: Callable[..., Plan]
) -> None:
    plan = quick(size=(16, 16))
    (result,) = bench([bundle], plan)["results"]
    told = copy.deepcopy(result)
    assert told["cost"]["macs"] > 0
    result["cost"] = {"params": None, "macs": None, "gflops": None, "input": [1, 1, 16, 16]}
    for variant in result["variants"]:
        variant["sensor_step"] = None
    bench_module.complete(result, bundle, plan)
    assert result == told


def test_of_tensorrt_the_variants_with_an_engine_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    names = ("fp32.onnx", "int8.onnx", "int8-fp16.onnx")
    bundle = write_bundle(tmp_path / "bundle", manifest, dict.fromkeys(names, b"graph"))
    built = {"fp32.onnx", "int8-fp16.onnx"}
    monkeypatch.setattr(bench_module, "engines_of", lambda graph, backend: graph.name in built)
    plan = Plan(runtimes=("onnxruntime", "tensorrt"))
    assert bench_module._pairs(bundle, plan) == [
        *(("fp32", "onnxruntime"), ("fp32", "tensorrt"), ("int8-fp16", "tensorrt"))
    ]
    chosen = Plan(runtimes=("tensorrt",), variants=("fp32", "int8"))
    assert bench_module._pairs(bundle, chosen) == [("fp32", "tensorrt"), ("int8", "tensorrt")]
    built.remove("fp32.onnx")
    assert bench_module._pairs(bundle, chosen) == [("int8", "tensorrt")]
    unasked = replace(plan, built_only=True)
    assert bench_module._pairs(bundle, unasked)[1:] == [("int8-fp16", "tensorrt")]
    named = replace(unasked, variants=("fp32", "int8", "int8-fp16"))
    assert ("int8", "tensorrt") not in bench_module._pairs(bundle, named)
    built.clear()
    assert bench_module._pairs(bundle, plan)[1:] == [("fp32", "tensorrt"), ("int8", "tensorrt")]
    assert bench_module._pairs(bundle, unasked) == [("fp32", "onnxruntime")]


def test_what_no_engine_takes_is_refused_before_anything_is_measured(
    bundle: Bundle, data: DataSet, quick: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second bundle too."""
    asked = []

    class Engine:
        spec = bundle.manifest.model

        def engine(self, shape: tuple[int, ...]) -> None:
            asked.append(shape)
            if shape[2:] == (16, 48):
                raise IrstdError(f"no engine of it takes {shape}")

    @contextmanager
    def opened(bundle: Bundle, variant: str, runtime: str, **options: Any) -> Iterator[Engine]:
        if runtime == "onnxruntime":
            raise AssertionError("measured")
        yield Engine()

    pairs = [("fp32", "onnxruntime"), ("fp32", "tensorrt")]
    monkeypatch.setattr(bench_module, "_pairs", lambda bundle, plan: pairs)
    monkeypatch.setattr(bench_module, "open_runner", opened)
    plan = quick(data=data, size=(20, 30), batch=3)
    with pytest.raises(AssertionError, match="measured"):
        bench([bundle, bundle], plan)
    assert asked == 2 * [(3, 1, 32, 32), (1, 1, 32, 32), (1, 1, 32, 48)], "odd is skipped"
    with pytest.raises(IrstdError, match=r"no engine of it takes \(3, 1, 16, 48\)"):
        bench([bundle, bundle], quick(size=(16, 48), batch=3))


def test_a_runtime_without_fp32_is_compared_with_another_of_the_same_frames(
    bundle: Bundle, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners = {}
    with ExitStack() as stack:
        for variant in ("fp32", "int8"):
            runner = stack.enter_context(open_runner(bundle, variant, "onnxruntime"))
            runners[variant] = bench_module._evaluate(runner, Plan(data=data), "", lambda *_: None)
    cpu = {("fp32", "onnxruntime"): runners["fp32"], ("int8", "onnxruntime"): runners["int8"]}
    engine = {("int8-fp16", "tensorrt"): runners["int8"]}
    own, across = bench_module._drifts({**engine, **cpu})[::-1]
    assert (own["candidate"], own["reference_runtime"]) == ("int8", "onnxruntime")
    assert (across["candidate"], across["runtime"]) == ("int8-fp16", "tensorrt")
    assert (across["reference"], across["reference_runtime"]) == ("fp32", "onnxruntime")
    assert across["targets"] == own["targets"] and across["targets_lost"] == 1
    assert bench_module._drifts({**engine, ("fp32", "onnxruntime"): None}) == []
    beside = {("fp32", "tensorrt"): runners["fp32"]}
    assert bench_module._drifts({**cpu, **engine, **beside})[1]["reference_runtime"] == "tensorrt"


def test_without_a_board_there_is_no_power(bundle: Bundle, quick: Callable[..., Plan]) -> None:
    report = bench([bundle], quick(size=(16, 16)))
    for variant in report["results"][0]["variants"]:
        assert (variant["power_w"], variant["joule_per_frame"]) == (None, None)


def test_a_size_of_its_own_cuts_and_mirrors_the_frames(
    bundle: Bundle, data: DataSet, quick: Callable[..., Plan]
) -> None:
    timed_on = timed_on_of(quick(data=data, size=(24, 80)))

    assert {frame.shape for frame in timed_on.frames} == {(24, 80)}
    first = timed_on.frames[0].counts
    assert np.array_equal(first[:, 32:64], first[:, :32][:, ::-1])
    assert timed_on.read is not None
    assert np.array_equal(
        np.asarray(timed_on.read(timed_on.frames[0]).counts), data.sample("a").frame.counts
    )


def test_a_device_without_onnx_still_benches(
    bundle: Bundle, quick: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path, shape: tuple[int, ...]) -> None:
        raise MachineError("cost: counting a graph needs onnx")

    monkeypatch.setattr(bench_module, "cost_of_graph", missing)
    report = bench([bundle], quick(size=(16, 16)))
    check_bench(report)
    assert report["results"][0]["cost"] == {
        "params": None,
        "macs": None,
        "gflops": None,
        "input": [1, 1, 16, 16],
        "not_counted": "cost: counting a graph needs onnx",
    }


def test_progress_covers_every_evaluation_and_the_timing(
    bundle: Bundle, data: DataSet, quick: Callable[..., Plan]
) -> None:
    steps: list[tuple[str, int, int]] = []
    bench([bundle], quick(data=data), lambda *step: steps.append(step))
    ends = [step for step in steps if step[1] == step[2]]
    assert ends == [
        ("tiny fp32 onnxruntime", 4, 4),
        ("tiny int8 onnxruntime", 4, 4),
        ("tiny: timing", 5, 5),
        ("tiny: memory", 2, 2),
    ]


def test_a_frame_that_cannot_be_used_is_an_error_when_strict(
    bundle: Bundle, data: DataSet, quick: Callable[..., Plan]
) -> None:
    with pytest.raises(IrstdError, match=r"odd\.png"):
        bench([bundle], quick(data=data, strict=True))


def test_nothing_to_bench_is_named(bundle: Bundle, quick: Callable[..., Plan]) -> None:
    with pytest.raises(IrstdError, match="BUNDLE: none is given"):
        bench([], quick())
    with pytest.raises(IrstdError, match="bundle: has none of fp16"):
        bench([bundle], quick(variants=("fp16",)))


def test_memory_and_load_time_are_those_of_a_process_of_its_own(bundle: Bundle) -> None:
    loaded: Any = measure_load(bundle.path, "fp32", "onnxruntime", 1, (32, 32))
    assert 20 < loaded.memory_mb < 1000
    assert 0 < loaded.load_ms < 60_000
    assert loaded.gpu_memory_mb is None
    assert measure_load(bundle.path, "fp16", "onnxruntime", 1, (32, 32)) is None
