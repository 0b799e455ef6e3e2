import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd_edge.benchmarks import projection
from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.kernels import Kernel
from irstd_edge.benchmarks.limits import Limits
from irstd_edge.benchmarks.projection import (
    CALLS_COST,
    LAUNCHES_COST,
    Roofline,
    conclusions,
    devices_to_project,
    project,
    project_latency,
)
from irstd_edge.benchmarks.report import write_report
from irstd_edge.benchmarks.schema import check_bench
from irstd_edge.benchmarks.summary import summaries
from irstd_edge.edge.bundle import Bundle, write_bundle
from irstd_edge.edge.devices import Machine
from irstd_edge.edge.profiles import PROFILES, profile_of
from irstd_edge.edge.types import (
    DecodeSpec,
    InputSpec,
    IrstdError,
    MachineError,
    Manifest,
    ModelSpec,
    Quantization,
)

FIXTURE = json.loads((Path(__file__).parent / "yolo11_kernels.json").read_text())
PUBLISHED = [
    (device, f"{size} {precision}", ms)
    for device, precisions in FIXTURE["published_ms"].items()
    for precision, figures in precisions.items()
    for size, ms in figures.items()
]
EVEN = Roofline(0.5, 0.5, 0.5, launch_us=10, call_ms=1)


def yolo11(name: str) -> tuple[list[Kernel], str]:
    """Its INT8 engines were built as TensorRT does by default, with TF32."""
    kernels = [Kernel("", *row) for row in FIXTURE["kernels"][name]]
    return kernels, "fp16" if name.endswith("fp16") else "tf32"


@pytest.mark.parametrize(("device", "name", "ms"), PUBLISHED)
@pytest.mark.parametrize("roofline", [CALLS_COST, LAUNCHES_COST], ids=["calls", "launches"])
def test_both_fits_give_the_published_figures(
    roofline: Roofline, device: str, name: str, ms: float
) -> None:
    kernels, floats = yolo11(name)
    assert roofline.time_ms(kernels, profile_of(device), floats) == pytest.approx(ms, rel=0.15)


@pytest.mark.parametrize(("device", "name", "ms"), PUBLISHED)
def test_the_range_holds_the_published_figures(device: str, name: str, ms: float) -> None:
    kernels, floats = yolo11(name)
    found = project_latency(kernels, profile_of(device), floats)
    assert found.low_ms < ms < found.high_ms
    assert found.high_ms / found.low_ms < 1.8


@pytest.mark.parametrize(("precision", "fps"), [("fp16", 140), ("int8", 207)])
def test_a_figure_of_another_board_that_no_fit_has_seen(precision: str, fps: float) -> None:
    """YOLOv7 at 640x640 on AGX Orin: 52.35 GMACs in about a hundred launches, bound by them."""
    work = {"macs" if precision == "fp16" else "macs_int8": 523_500_000}
    kernels = [Kernel("", **work)] * 100
    found = project_latency(kernels, profile_of("agx-orin-64gb"), "fp16")
    assert found.low_ms < 1000 / fps < found.high_ms


def test_a_kernel_takes_the_longer_of_arithmetic_and_traffic() -> None:
    device = profile_of("orin-nano-8gb")  # 10 TFLOPS in FP16, 20 TOPS in INT8, 68 GB/s
    fixed_ms = 1 + 10e-3

    def time_ms(floats: str = "fp16", **work: int) -> float:
        return EVEN.time_ms([Kernel("", **work)], device, floats) - fixed_ms

    assert time_ms(macs=5 * 10**9) == pytest.approx(2.0)
    assert time_ms("tf32", macs=5 * 10**9) == pytest.approx(4.0)
    assert time_ms("fp32", macs=5 * 10**9) == pytest.approx(2.0 * 10 / 1.28)
    assert time_ms("fp32", values=17 * 10**6) == pytest.approx(2.0)
    assert time_ms(macs_int8=5 * 10**9) == pytest.approx(1.0)
    assert time_ms(values=34 * 10**6) == pytest.approx(2.0)
    assert time_ms(bytes_int8=34 * 10**6) == pytest.approx(1.0)
    assert time_ms(macs=5 * 10**9, values=17 * 10**6) == pytest.approx(2.0)


def test_other_generations_get_a_wider_range() -> None:
    kernels, _ = yolo11("m fp16")
    ratios = {}
    for name in ("agx-orin-32gb", "agx-xavier", "thor-t5000"):
        found = project_latency(kernels, profile_of(name), "fp16")
        ratios[name] = found.high_ms / found.low_ms
        assert found.middle_ms**2 == pytest.approx(found.low_ms * found.high_ms)
    assert ratios["agx-orin-32gb"] < min(ratios["agx-xavier"], ratios["thor-t5000"])


def two_layers(quantized: bool) -> bytes:
    """frame -> conv -> conv -> logits; with Q/DQ around the second."""
    onnx = pytest.importorskip("onnx", reason="counting a graph needs the train extra")
    tensors = {
        "w1": np.ones((8, 1, 3, 3), np.float32),
        "w2": np.ones((1, 8, 3, 3), np.int8 if quantized else np.float32),
        "scale": np.float32(0.1),
        "zero": np.int8(0),
    }
    node = onnx.helper.make_node
    nodes = [node("Conv", ["frame", "w1"], ["a"], pads=[1] * 4)]
    activation, weight = "a", "w2"
    if quantized:
        nodes.append(node("QuantizeLinear", ["a", "scale", "zero"], ["q"]))
        for source, name in (("q", "activation"), ("w2", "weight")):
            nodes.append(node("DequantizeLinear", [source, "scale", "zero"], [name]))
        activation, weight = "activation", "weight"
    nodes.append(node("Conv", [activation, weight], ["logits"], pads=[1] * 4))
    free = ["n", 1, "h", "w"]
    frame, logits = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, free)
        for name in ("frame", "logits")
    )
    constants = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()]
    graph = onnx.helper.make_graph(nodes, "net", [frame], [logits], constants)
    opset = onnx.helper.make_opsetid("", 17)
    data: bytes = onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=8
    ).SerializeToString()
    return data


def write(path: Path, **graphs: bytes) -> Bundle:
    spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    return write_bundle(path, manifest, {f"{name}.onnx": data for name, data in graphs.items()})


@pytest.fixture
def graph_bundle(tmp_path: Path) -> Bundle:
    integer = two_layers(True)
    graphs = {"fp32": two_layers(False), "int8": integer, "int8-fp16": integer}
    return write(tmp_path / "bundle", **graphs)


@pytest.fixture
def projected(graph_bundle: Bundle) -> dict[str, Any]:
    return project([graph_bundle], tuple(PROFILES.values()), (60, 64))


def test_nothing_in_it_passes_for_measured(projected: dict[str, Any]) -> None:
    check_bench(json.loads(json.dumps(projected, allow_nan=False)))
    (result,) = projected["results"]
    assert result["cost"]["input"] == [1, 1, 64, 64]  # padded to the stride
    assert [(v["device"], v["name"]) for v in result["variants"]] == [
        (device, variant) for device in PROFILES for variant in ("fp16", "int8", "int8-fp16")
    ]
    for variant in result["variants"]:
        low, high = variant["range_ms"]
        assert variant["measured"] is False and "projected from" in variant["not_measured"]
        assert low < variant["latency_ms"]["p50"] < high
        assert variant["fps"] == pytest.approx(1000 / variant["latency_ms"]["p50"])
        missing = ("p90", "p99", "mean", "samples")
        assert all(variant["latency_ms"][name] is None for name in missing)
        assert variant["accuracy"] is None and variant["power_w"] is None


def test_each_variant_is_projected_from_its_graph(projected: dict[str, Any]) -> None:
    first = {v["name"]: v for v in projected["results"][0]["variants"][:3]}
    assert "fp32.onnx" in first["fp16"]["not_measured"]
    assert "int8.onnx" in first["int8"]["not_measured"]
    assert "float32 where it is not INT8" in first["int8"]["not_measured"]
    assert "int8-fp16.onnx" in first["int8-fp16"]["not_measured"]
    p50 = {name: variant["latency_ms"]["p50"] for name, variant in first.items()}
    assert p50["int8-fp16"] < p50["int8"]  # its float values are half as wide


def test_the_floats_of_an_int8_engine_have_no_tensor_cores(graph_bundle: Bundle) -> None:
    """`compile` builds it with TF32 off."""
    computes = {
        variant: floats for variant, (_, floats) in projection._graphs(graph_bundle).items()
    }
    assert computes == {"fp16": "fp16", "int8": "fp32", "int8-fp16": "fp16"}


def test_the_gate_never_judges_a_projection(projected: dict[str, Any]) -> None:
    verdict = judge(projected, Limits(floor={"fps": 1e9}))
    assert not verdict.passed  # a gate that checks nothing is not green
    (check,) = verdict.checks
    assert check.name == "gate.empty"
    assert check.why.endswith("projection; measure on the board, or from here with bench --host")
    (sentence,) = summaries(projected, verdict)
    assert sentence.endswith(
        ": a projection is not judged; measure on the board, or by bench --host"
    )


@pytest.mark.parametrize(
    ("fps", "words"),
    [
        ([(100, 104), (200, 190)], "0.95x to 1.04x as fast as FP16, no gain: compile both"),
        ([(100, 120), (200, 202)], "1.01x to 1.20x as fast as FP16, not a gain on every board"),
        ([(100, 120), (200, 240)], "1.20x as fast as FP16"),
    ],
)
def test_it_concludes_whether_int8_gains(
    projected: dict[str, Any], fps: list[tuple[float, float]], words: str
) -> None:
    (result,) = projected["results"]
    for device, speeds in zip(PROFILES, fps, strict=False):
        own = [v for v in result["variants"] if v["device"] == device]
        for variant, value in zip(own, (speeds[0], 50.0, speeds[1]), strict=True):
            variant["fps"] = value
    result["variants"] = result["variants"][: 3 * len(fps)]
    (sentence,) = conclusions(projected)
    assert sentence.startswith(f"{result['model']}: INT8 is projected {words}")


def test_bundles_of_one_model_are_told_apart(projected: dict[str, Any]) -> None:
    projected["results"] *= 2
    starts = [sentence.partition(":")[0] for sentence in conclusions(projected)]
    assert starts == [f"{projected['results'][0]['model']} #{n}" for n in (1, 2)]


def test_the_report_marks_it(projected: dict[str, Any], tmp_path: Path) -> None:
    write_report([projected], tmp_path / "report.html")
    assert '<span class="pill">projected</span>' in (tmp_path / "report.html").read_text()


def test_a_bundle_without_a_graph_for_the_device_is_refused(tmp_path: Path) -> None:
    lone = write(tmp_path / "lone", **{"int8.cpu": two_layers(False)})
    with pytest.raises(IrstdError, match="no graph to project from: quantize again"):
        project([lone], [profile_of("xavier-nx")], (64, 64))


JETSON = Machine("Cortex", "aarch64", 6, None, "NVIDIA Jetson AGX Orin", None, 0.1)
PC = Machine("CPU", "x86_64", 2, None, None, None, 0.1)


def test_what_is_here_is_measured_and_what_is_not_is_projected() -> None:
    assert devices_to_project("cpu", PC) == devices_to_project("jetson", JETSON) == ()
    assert devices_to_project("jetson", JETSON, require_measured=True) == ()
    assert devices_to_project("jetson", PC) == tuple(PROFILES.values())
    assert devices_to_project("xavier-nx", JETSON) == (profile_of("xavier-nx"),)
    nx = replace(JETSON, module="xavier-nx")
    assert devices_to_project("xavier-nx", nx, require_measured=True) == ()
    assert devices_to_project("agx-xavier", nx) == (profile_of("agx-xavier"),)


@pytest.mark.parametrize("device", ["jetson", "thor-t5000"])
def test_a_projection_can_be_forbidden(device: str) -> None:
    with pytest.raises(MachineError, match=f"--device {device}: this machine is none"):
        devices_to_project(device, PC, require_measured=True)


def test_a_gpu_is_measured_and_never_projected() -> None:
    assert devices_to_project("cuda", PC, require_measured=True) == ()


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(IrstdError, match="'tpu' is not one of cpu, cuda, jetson, orin-nano-4gb"):
        devices_to_project("tpu", PC)
