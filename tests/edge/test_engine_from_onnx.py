import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from irstd_edge.edge import engine_from_onnx as module
from irstd_edge.edge.decode_graph import DECODED, with_decode
from irstd_edge.edge.engine_from_onnx import (
    Engine,
    engine_from_onnx,
    is_weakly_typed,
    load_backend,
)
from irstd_edge.edge.engine_plan import EnginePlan
from irstd_edge.edge.gpu import Gpu, this_gpu
from irstd_edge.edge.types import DecodeSpec, InputSpec, IrstdError, MachineError, ModelSpec

SPEC = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
PLAN = EnginePlan("tensorrt-rtx", "sm_86", sizes=((64, 64),))
NO_GRAPH = Path("there-is-none.onnx")
"""What is missing is told before it is read."""
MAGIC = b"trt"
"""Bytes 1 to 3 of what the TensorRT family serializes."""

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None or find_spec("onnx") is None,
    reason="needs tensorrt-rtx and onnx: pip install 'irstd-edge[dev]'",
)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "trt"}, "--backend: 'trt' is not one of tensorrt, tensorrt-rtx"),
        ({"backend": "tensorrt-rtx", "target": "8.6"}, "--target: '8.6' is neither this nor like"),
        ({"target": "sm_86"}, "tensorrt builds for the GPU it runs on"),
        ({"batch": 0}, "--batch"),
        ({"sizes": ()}, "--size"),
        ({"backend": "torch-tensorrt", "target": "sm_86"}, "torch-tensorrt builds for the GPU it"),
        ({"backend": "tensorrt-rtx", "dla": True}, "--dla: tensorrt-rtx knows no DLA"),
        ({"sizes": ((64, 64), (96, 96)), "dla": True}, "--dla: takes no dynamic shapes: give one"),
    ],
)
def test_a_plan_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(IrstdError, match=message):
        EnginePlan(**wrong)


def test_sizes_and_batch_become_one_profile() -> None:
    plan = EnginePlan(sizes=((512, 640), (256, 700)), batch=4)
    assert plan.shapes(16) == ((1, 1, 256, 640), (4, 1, 512, 640), (4, 1, 512, 704))
    assert EnginePlan().shapes(16) == ((1, 1, 256, 256),) * 3
    assert all(plan.takes(size, 16) for size in ((512, 640), (255, 640), (300, 697)))
    assert not any(plan.takes(size, 16) for size in ((240, 640), (513, 640), (512, 624)))


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_backend_says_how_to_get_it(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="is not installed: .*pip install 'irstd-edge"):
        engine_from_onnx(NO_GRAPH, SPEC, EnginePlan(backend))


def test_jetpack_brings_tensorrt_but_not_what_drives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: name != "polygraphy" or None)
    with pytest.raises(MachineError, match="polygraphy is not installed: pip install polygraphy"):
        engine_from_onnx(NO_GRAPH, SPEC, EnginePlan("tensorrt"))


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_without_a_gpu_it_says_where_to_build(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "this_gpu", lambda: None)
    monkeypatch.setattr(module, "cuda_refusal", lambda: None)
    with pytest.raises(MachineError, match="no usable NVIDIA GPU here: .*--target, as in sm_86"):
        engine_from_onnx(NO_GRAPH, SPEC, EnginePlan(backend))
    monkeypatch.setattr(module, "cuda_refusal", lambda: "cuInit failed (801): join")
    with pytest.raises(MachineError, match=rf"^{backend}: cuInit failed \(801\): join$"):
        engine_from_onnx(NO_GRAPH, SPEC, EnginePlan(backend))


def test_a_tensorrt_that_knows_no_typed_graphs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = type("tensorrt", (), {"__version__": "8.5.2.2"})
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "this_gpu", lambda: Gpu("Xavier", 72, 6))
    monkeypatch.setattr(module, "_choose", lambda backend: None)
    monkeypatch.setattr(module, "import_module", lambda name: old)
    with pytest.raises(MachineError, match=r"8\.5\.2\.2 cannot build typed graphs: use 10"):
        engine_from_onnx(NO_GRAPH, SPEC, EnginePlan("tensorrt"))


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_backend_that_does_not_load_is_told_with_the_reason(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise error("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(module, "import_module", broken)
    with pytest.raises(MachineError, match="does not load .libnvinfer.*: install it again: on a J"):
        load_backend("tensorrt")


@needs_rtx
def test_the_error_that_ends_a_build_is_told_and_not_a_warning_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module._choose("tensorrt-rtx")  # for this process, as the other tests do
    from polygraphy.backend import trt
    from polygraphy.logger import G_LOGGER

    def build(*_: Any, **__: Any) -> None:
        G_LOGGER.warning("Unable to determine GPU memory usage")
        G_LOGGER.error("Skipping tactic 0x1: insufficient memory")
        G_LOGGER.error("Error Code 10: no implementation for node /conv")
        G_LOGGER.critical("Invalid Engine")

    monkeypatch.setattr(trt, "engine_bytes_from_network", build)
    monkeypatch.setattr(module, "_config", lambda *_: None)
    with module._heard() as heard, pytest.raises(IrstdError) as caught:
        module._build(tmp_path / "int8.onnx", None, SPEC, EnginePlan(), b"", heard)
    assert "cannot build it (Error Code 10: no implementation for node /conv)" in str(caught.value)


def test_a_dla_gets_one_shape() -> None:
    assert EnginePlan(sizes=((500, 640),), dla=True).shapes(16) == ((1, 1, 512, 640),) * 3


@pytest.mark.parametrize(
    ("version", "has_one"),
    [
        ("10.3.0", True),
        ("10.7.0.23", True),
        ("10.8.0", False),
        ("10.16.2", False),
        ("11.4.0", False),
        ("11.4.1.2", True),
    ],
)
def test_some_versions_of_tensorrt_have_no_dla(
    version: str, has_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = type("tensorrt", (), {"__version__": version})
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "this_gpu", lambda: Gpu("Orin", 87, 8))
    monkeypatch.setattr(module, "_choose", lambda backend: None)
    monkeypatch.setattr(module, "import_module", lambda name: library)
    assert module._library(EnginePlan()) is library
    plan = EnginePlan(dla=True)
    if has_one:
        assert module._library(plan) is library
        assert is_weakly_typed(plan, version) == version.startswith("10.")
    else:
        words = rf"--dla: TensorRT {version} has no DLA: use 10\.7 .* on AGX Orin also 11\.4\.1"
        with pytest.raises(MachineError, match=words):
            module._library(plan)


@needs_rtx
def test_a_module_without_a_dla_says_which_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module._choose("tensorrt-rtx")  # for this process, as the other tests do
    from polygraphy.backend import trt

    builder = SimpleNamespace(num_DLA_cores=0)
    monkeypatch.setattr(trt, "create_network", lambda **_: (builder, None))
    library = SimpleNamespace(__version__="11.4.1")
    with pytest.raises(
        MachineError, match=r"AGX Orin has, and Orin NX with TensorRT 10\.7 or older"
    ):
        module._network(library, Path("fp16.onnx"), EnginePlan(dla=True), ("logits",), [])


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """frame -> Conv `first` -> the nodes, from a to x -> Conv `second` -> logits, as a file."""

    def graph(*nodes: tuple[Any, ...], zero: Any = 0, output: str = "logits") -> Path:
        import onnx

        tensors = {
            "w1": np.ones((8, 1, 3, 3), np.float32),
            "w2": np.ones((1, 8, 3, 3), np.int8),
            "scale": np.float32(0.1),
            "zero": np.asarray(zero, getattr(zero, "dtype", np.int8)),
            "none": np.int8(0),
        }
        make = onnx.helper.make_node
        made = [
            make("Conv", ["frame", "w1"], ["a"], pads=[1] * 4, name="first"),
            *(make(op, list(i), [o], name=name, domain=d) for op, i, o, name, d in nodes),
            make("DequantizeLinear", ["w2", "scale", "none"], ["w2d"], name="weight"),
            make("Conv", ["x", "w2d"], [output], pads=[1] * 4, name="second"),
        ]
        free: list[Any] = ["N", 1, "H", "W"]
        frame, logits = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, free)
            for name in ("frame", output)
        )
        constants = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()]
        body = onnx.helper.make_graph(made, "net", [frame], [logits], constants)
        domains = [("", 17), ("org.openvinotoolkit", 1)]
        opsets = [onnx.helper.make_opsetid(*domain) for domain in domains]
        path = tmp_path / "int8.onnx"
        onnx.save(onnx.helper.make_model(body, opset_imports=opsets, ir_version=8), path)
        return path

    return graph


QUANTIZE = ("QuantizeLinear", ("a", "scale", "zero"), "q", "quant", "")
DEQUANTIZE = ("DequantizeLinear", ("q", "scale", "zero"), "x", "dequant", "")


@needs_rtx
def test_a_signed_graph_builds_without_a_gpu(
    save: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    engine = engine_from_onnx(save(QUANTIZE, DEQUANTIZE), SPEC, PLAN)
    assert engine.data[1:4] == MAGIC and engine.build_s > 0
    assert engine.version == version("tensorrt-rtx")
    assert capfd.readouterr().out == ""  # stdout is for results


@needs_rtx
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of calls that Polygraphy makes
@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_a_flag_of_the_configuration(tf32: bool) -> None:
    module._choose("tensorrt-rtx")
    import tensorrt_rtx
    from polygraphy.backend.trt import create_network

    builder, network = create_network(strongly_typed=True)
    network.add_input("frame", tensorrt_rtx.float32, (-1, 1, -1, -1))
    config = module._config(SPEC, replace(PLAN, tf32=tf32), None)(builder, network)
    assert config.get_flag(tensorrt_rtx.BuilderFlag.TF32) is tf32


@needs_rtx
@pytest.mark.parametrize("tf32", [True, False])
def test_polygraphy_is_told_of_tf32(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module._choose("tensorrt-rtx")  # for this process, as the other tests do
    from polygraphy.backend import trt

    told: dict[str, Any] = {}
    monkeypatch.setattr(trt, "CreateConfig", lambda **wanted: told.update(wanted))
    fake = ModuleType("tensorrt")
    fake.__version__, fake.ProfilingVerbosity = "10.3.0", type("V", (), {"DETAILED": 2})
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    module._config(SPEC, EnginePlan(tf32=tf32), None)
    assert (told["tf32"], told["fp16"]) == (tf32, None)


@needs_rtx
@pytest.mark.parametrize("_again", [1, 2])  # TensorRT warns of it, and Polygraphy says so once
def test_uint8_is_refused_by_node(save: Callable[..., Path], _again: int) -> None:
    path = save(QUANTIZE, DEQUANTIZE, zero=np.uint8(0))
    with pytest.raises(IrstdError, match="int8.onnx: quant: its zero point is uint8.*signed"):
        engine_from_onnx(path, SPEC, PLAN)


@needs_rtx
def test_uint8_is_refused_without_onnx_to_look_at_the_graph(
    save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(QUANTIZE, DEQUANTIZE, zero=np.uint8(0))
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(IrstdError, match="holds uint8, which TensorRT takes for int8"):
        engine_from_onnx(path, SPEC, PLAN)


@needs_rtx
def test_a_zero_point_is_refused_by_node(save: Callable[..., Path]) -> None:
    path = save(QUANTIZE, DEQUANTIZE, zero=np.int8(3))
    message = r"quant \(QuantizeLinear\): its zero point is not 0: make its quantizer symmetric"
    with pytest.raises(IrstdError, match=message):
        engine_from_onnx(path, SPEC, PLAN)


@needs_rtx
@pytest.mark.parametrize(
    "node",
    [
        ("FakeQuantize", ("a", "scale"), "x", "strange", "org.openvinotoolkit"),
        ("Det", ("a",), "x", "strange", ""),
    ],
    ids=["foreign", "unsupported"],
)
def test_an_unknown_operator_is_refused_by_node(
    save: Callable[..., Path], node: tuple[Any, ...]
) -> None:
    message = rf"strange \({node[0]}\): no such operator there: export the network without it"
    with pytest.raises(IrstdError, match=message):
        engine_from_onnx(save(node), SPEC, PLAN)


@needs_rtx
def test_other_names_are_refused(save: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(IrstdError, match=r"outputs \['mask'\], not \['frame'\] and \['logits'\]"):
        engine_from_onnx(save(QUANTIZE, DEQUANTIZE, output="mask"), SPEC, PLAN)
    (tmp_path / "no.onnx").write_bytes(b"hello")
    with pytest.raises(IrstdError, match="no.onnx: .*quantize again"):
        engine_from_onnx(tmp_path / "no.onnx", SPEC, PLAN)


@needs_rtx
def test_a_gpu_that_the_backend_does_not_know(save: Callable[..., Path]) -> None:
    orin = EnginePlan("tensorrt-rtx", "sm_87", sizes=((64, 64),))
    with pytest.raises(MachineError, match=r"--target: .*8\.7.*Known are sm_75, .*sm_86"):
        engine_from_onnx(save(QUANTIZE, DEQUANTIZE), SPEC, orin)


@needs_rtx
def test_one_process_builds_with_one_backend() -> None:
    code = (
        "from irstd_edge.edge import engine_from_onnx as e\n"
        "e._choose('tensorrt-rtx'); e._choose('tensorrt-rtx')\n"
        "try: e._choose('tensorrt')\n"
        "except e.MachineError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "start a new one" in run.stdout


@needs_rtx
def test_building_asks_nobody_and_leaves_nothing(
    save: Callable[..., Path], cut_off: Callable[[str, Path], tuple[int, list[str]]], tmp_path: Path
) -> None:
    """No socket, and no file in the home folder."""
    graph = save(QUANTIZE, DEQUANTIZE)
    code = (
        "from pathlib import Path\n"
        "from irstd_edge.edge.engine_from_onnx import EnginePlan, engine_from_onnx\n"
        "from irstd_edge.edge.types import *\n"
        "spec = ModelSpec('tiny', InputSpec(stride=16), DecodeSpec('mask'))\n"
        "plan = EnginePlan('tensorrt-rtx', 'sm_86', ((64, 64),))\n"
        f"assert engine_from_onnx(Path({str(graph)!r}), spec, plan).data\n"
    )
    assert cut_off(code, tmp_path) == (0, [])


@needs_rtx
@pytest.mark.parametrize("kind", DECODED)
def test_a_graph_with_its_decode_builds_for_a_range_of_sizes(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import onnx

    spec = request.getfixturevalue(f"{kind}_spec")
    model = onnx.load_from_string(request.getfixturevalue(f"{kind}_graph"))
    graph = tmp_path / "decoded.onnx"
    onnx.save(with_decode(model, spec.decode), graph)
    plan = EnginePlan("tensorrt-rtx", "sm_86", ((64, 64), (96, 128)), batch=2)
    assert engine_from_onnx(graph, spec, plan, outputs=DECODED[kind]).data[1:4] == MAGIC
    with pytest.raises(IrstdError, match="not .'frame'. and"):
        engine_from_onnx(graph, spec, plan)


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["p2p", "mshnet"])
def test_the_float_graph_of_each_model_builds(name: str, tmp_path: Path) -> None:
    models = pytest.importorskip("irstd_edge.models", reason="networks need the train extra")
    from irstd_edge.models.onnx_from_torch import onnx_from_torch

    spec = models.spec_of(name)
    graph = tmp_path / "fp32.onnx"
    graph.write_bytes(onnx_from_torch(models.create_model(name).eval().deploy(), spec))
    plan = EnginePlan("tensorrt-rtx", "sm_86", sizes=((256, 256), (512, 640)), batch=2)
    engine = engine_from_onnx(graph, spec, plan)
    weights = sum(p.numel() for p in models.create_model(name).deploy().parameters())
    assert engine.data[1:4] == MAGIC and len(engine.data) > 4 * weights


@pytest.mark.tensorrt
@pytest.mark.skipif(
    find_spec("tensorrt") is None or this_gpu() is None, reason="needs TensorRT and an NVIDIA GPU"
)
def test_tensorrt_builds_for_the_gpu_here(save: Callable[..., Path]) -> None:
    engine = engine_from_onnx(
        save(QUANTIZE, DEQUANTIZE), SPEC, EnginePlan("tensorrt", sizes=((64, 64),))
    )
    assert isinstance(engine, Engine) and engine.data
    assert {layer.precision for layer in engine.layers} & {"int8", "fp32"}
    assert engine.timings


@pytest.mark.tensorrt
@pytest.mark.skipif(
    find_spec("tensorrt") is None or this_gpu() is None, reason="needs TensorRT and an NVIDIA GPU"
)
def test_timings_of_one_build_make_the_next_no_slower(save: Callable[..., Path]) -> None:
    graph, plan = save(QUANTIZE, DEQUANTIZE), EnginePlan("tensorrt", sizes=((64, 64),))
    first = engine_from_onnx(graph, SPEC, plan)
    again = engine_from_onnx(graph, SPEC, plan, first.timings)
    assert again.build_s < 1.5 * first.build_s and len(again.timings) >= len(first.timings) > 0
