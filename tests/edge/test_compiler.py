from pathlib import Path
from typing import Any

import pytest

from irstd_edge.edge import compiler
from irstd_edge.edge.bundle import Bundle, write_bundle
from irstd_edge.edge.compiler import (
    FASTEST_FIRST,
    best_variant,
    compile_engine,
    engine_key,
    variant_to_run,
    why_not_built,
)
from irstd_edge.edge.devices import Machine
from irstd_edge.edge.engine_from_onnx import Engine, EnginePlan
from irstd_edge.edge.engine_store import open_store
from irstd_edge.edge.gpu import Gpu
from irstd_edge.edge.types import IrstdError, Manifest, ModelSpec, Quantization

PLAN = EnginePlan("tensorrt-rtx", "sm_86", ((250, 300),), batch=2)
JETSON = Machine(
    *("Cortex", "aarch64", 6, None, "NVIDIA Jetson Orin Nano", "nvpmodel 2", 0.1),
    module="orin-nano-8gb",
)


def bundle_of(path: Path, spec: ModelSpec, **graphs: bytes) -> Bundle:
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    files = {f"{name.replace('_', '-')}.onnx": data for name, data in graphs.items()}
    return write_bundle(path, manifest, files)


def test_the_fastest_variant_there_is_chosen(tmp_path: Path, mask_spec: ModelSpec) -> None:
    both = bundle_of(tmp_path / "a", mask_spec, fp32=b"f", int8=b"i")
    assert best_variant(both) == "int8"
    assert best_variant(bundle_of(tmp_path / "b", mask_spec, fp32=b"f", int8_fp16=b"h")) == (
        "int8-fp16"
    )
    assert best_variant(bundle_of(tmp_path / "c", mask_spec, fp32=b"f")) == "fp32"
    with pytest.raises(IrstdError, match="has no graph for TensorRT"):
        best_variant(bundle_of(tmp_path / "d", mask_spec, **{"int8.cpu": b"c"}))


def test_what_was_built_runs_before_what_would_be_faster(
    tmp_path: Path, mask_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(tmp_path / "a", mask_spec, fp32=b"f", int8=b"i", int8_fp16=b"h")
    built = {"fp32.onnx", "int8.onnx"}
    monkeypatch.setattr(compiler, "engines_of", lambda graph: graph.name in built)
    assert variant_to_run(bundle) == "int8"
    built.clear()
    assert variant_to_run(bundle) == "int8-fp16"


@pytest.mark.parametrize(
    ("built", "asked", "lacks"),
    [
        ((), (), "int8-fp16"),
        (("fp32", "fp16"), (), "int8-fp16"),
        (("int8",), (), None),
        (("int8-fp16",), (), None),
        (("int8-fp16",), ("fp32", "int8-fp16"), None),
        (("int8-fp16",), ("fp16", "int8-fp16"), "fp16"),
        (("int8-fp16",), ("fp32",), "fp32"),
        (("fp16",), ("fp16",), None),
    ],
)
def test_what_a_bundle_ships_needs_an_engine(
    built: tuple[str, ...],
    asked: tuple[str, ...],
    lacks: str | None,
    tmp_path: Path,
    mask_spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("fp32", "fp16", "int8", "int8_fp16")
    bundle = bundle_of(tmp_path / "a", mask_spec, **{name: name.encode() for name in names})
    monkeypatch.setattr(compiler, "why_not_ready", lambda: None)
    monkeypatch.setattr(compiler, "engines_of", lambda graph: graph.stem in built)
    monkeypatch.setattr(compiler, "why_no_engine", lambda graph: graph.stem)
    assert why_not_built(bundle, asked) == lacks
    monkeypatch.setattr(compiler, "why_not_ready", lambda: "tensorrt: not installed")
    assert why_not_built(bundle, asked) == "tensorrt: not installed"


def test_the_engine_is_stored_under_what_it_depends_on(
    tmp_path: Path, mask_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(tmp_path / "bundle", mask_spec, fp32=b"f", int8=b"i")
    seen: list[Any] = []

    def build(*arguments: Any) -> Engine:
        seen.append(arguments)
        return Engine(b"engine", "1.7", 2.5, said=("a warning",))

    monkeypatch.setattr(compiler, "engine_from_onnx", build)
    store = open_store(tmp_path / "engines")
    done = compile_engine(bundle, "int8", PLAN, store)

    assert seen == [(bundle.path / "int8.onnx", mask_spec, PLAN, b"", None)]
    digest = bundle.manifest.files["int8.onnx"]
    assert store.load(engine_key(bundle, digest, PLAN, "1.7")) == b"engine"
    assert done.record() == {
        "engine": str(store.path(done.key)),
        "variant": "int8",
        "backend": "tensorrt-rtx",
        "version": "1.7",
        "target": "sm_86",
        "gpu": None,
        "flags": ["min=1x1x252x300", "opt=2x1x252x300", "max=2x1x252x300"],
        "bytes": 6,
        "build_s": 2.5,
        "layers": None,
        "warnings": ["a warning"],
    }
    assert done.key.graph_sha256 == bundle.manifest.files["int8.onnx"]


def test_fp32_alone_is_built_with_tf32(tmp_path: Path, mask_spec: ModelSpec) -> None:
    names = ("fp32", "fp16", "int8", "int8_fp16")
    bundle = bundle_of(tmp_path / "bundle", mask_spec, **dict.fromkeys(names, b"g"))
    store, seen = open_store(tmp_path / "engines"), []

    def build(graph: Path, spec: Any, plan: EnginePlan, *_: Any) -> Engine:
        seen.append((graph.stem, plan.tf32))
        return Engine(b"engine", "1.7", 1.0)

    flagged = {
        variant: "tf32" in compile_engine(bundle, variant, PLAN, store, build=build).key.flags
        for variant in FASTEST_FIRST
    }
    assert flagged == dict(seen) == {v: v == "fp32" for v in FASTEST_FIRST}


def test_on_a_jetson_module_and_power_mode_are_part_of_it(
    tmp_path: Path, mask_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "this_machine", lambda: JETSON)
    monkeypatch.setattr(compiler, "this_gpu", lambda: Gpu("Orin", 87, 8))
    bundle = bundle_of(tmp_path / "bundle", mask_spec, fp32=b"f")
    key = engine_key(bundle, "0" * 64, EnginePlan("tensorrt"), "10.3")
    assert (key.gpu, key.target) == ("Orin, 8 multiprocessors", "sm_87")
    assert key.flags[-2:] == ("module=orin-nano-8gb", "power=nvpmodel 2")


def test_a_dla_and_torch_have_one_variant_each(tmp_path: Path, mask_spec: ModelSpec) -> None:
    bundle = bundle_of(tmp_path / "a", mask_spec, fp32=b"f", fp16=b"h", int8_fp16=b"i")
    dla, torch = EnginePlan(dla=True), EnginePlan("torch-tensorrt")
    assert (best_variant(bundle, dla), best_variant(bundle, torch)) == ("fp16", "fp32")
    store = open_store(tmp_path / "engines")
    with pytest.raises(IrstdError, match="--variant: --dla takes fp16 alone, not int8"):
        compile_engine(bundle, "int8", dla, store)
    with pytest.raises(IrstdError, match="--backend torch-tensorrt takes fp32 alone, not fp16"):
        compile_engine(bundle, "fp16", torch, store)


def test_timings_of_one_build_are_given_to_the_next(
    tmp_path: Path, mask_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(tmp_path / "bundle", mask_spec, fp32=b"f", int8=b"i")
    monkeypatch.setattr(compiler, "this_gpu", lambda: Gpu("Orin", 87, 8))
    monkeypatch.setattr(compiler, "tensorrt_version", lambda: "10.3.0")
    given: list[bytes] = []

    def build(graph: Path, spec: ModelSpec, plan: EnginePlan, timings: bytes, *_: Any) -> Engine:
        given.append(timings)
        return Engine(b"engine", "10.3.0", 1.0, timings=timings + b"+" + graph.stem.encode())

    store = open_store(tmp_path / "engines")
    for variant in ("fp32", "int8"):
        compile_engine(bundle, variant, EnginePlan(), store, build=build)
    for _ in range(2):  # which keeps its own
        compile_engine(bundle, "fp32", EnginePlan("torch-tensorrt"), store, build=build)
    assert given == [b"", b"+fp32", b"", b"+fp32"]


def test_the_decode_is_another_graph_and_another_engine(
    tmp_path: Path, heatmap_spec: ModelSpec, heatmap_graph: bytes
) -> None:
    import onnx

    bundle = bundle_of(tmp_path / "bundle", heatmap_spec, fp32=heatmap_graph)
    store, seen = open_store(tmp_path / "engines"), []

    def build(graph: Path, spec: Any, plan: Any, timings: Any, outputs: Any) -> Engine:
        seen.append(([o.name for o in onnx.load(graph).graph.output], outputs))
        return Engine(b"engine", "1.7", 1.0)

    plain = compile_engine(bundle, "fp32", PLAN, store, build=build)
    decoded = compile_engine(bundle, "fp32", PLAN, store, targets=8, build=build)
    assert seen == [(["heatmap", "geometry"], None), (["targets"], ("targets",))]
    assert plain.path != decoded.path and plain.path.exists() and decoded.path.exists()


def test_a_variant_that_is_not_there(tmp_path: Path, mask_spec: ModelSpec) -> None:
    bundle = bundle_of(tmp_path / "bundle", mask_spec, fp32=b"f")
    with pytest.raises(IrstdError, match=r"variants for tensorrt are: fp32"):
        compile_engine(bundle, "int8", PLAN, open_store(tmp_path / "engines"))
