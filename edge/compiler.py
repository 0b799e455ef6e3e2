"""A variant of a bundle -> an engine in this machine's store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from irstd_edge.edge.bundle import Bundle
from irstd_edge.edge.decode_graph import DECODED, with_decode
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.engine_from_onnx import Engine, engine_from_onnx, tensorrt_version
from irstd_edge.edge.engine_layers import report_of
from irstd_edge.edge.engine_place import EnginePlace, engine_place
from irstd_edge.edge.engine_plan import ELSEWHERE, THIS, EnginePlan
from irstd_edge.edge.engine_store import DLA, EngineKey, EngineStore, shape_flags
from irstd_edge.edge.files import sha256_of, write_atomic
from irstd_edge.edge.gpu import this_gpu
from irstd_edge.edge.tensorrt_runtime import TENSORRT, engines_of, why_no_engine, why_not_ready
from irstd_edge.edge.types import IrstdError, MachineError

FASTEST_FIRST = ("int8-fp16", "int8", "fp16", "fp32")
DLA_VARIANT = "fp16"
"""A DLA computes in FP16 and INT8, and takes no QuantizeLinear: its INT8 has scales beside it."""
TORCH_VARIANT = "fp32"
"""FP16 and INT8 are written in the ONNX graphs, which torch-tensorrt does not read."""
TF32_VARIANT = "fp32"
"""TensorRT's own form of FP32; elsewhere it would round the frame at the entrance."""

Build = Callable[..., Engine]
"""`engine_from_onnx`, or another of its kind."""


@dataclass(frozen=True)
class Compiled:
    """An engine that was built and stored."""

    path: Path
    variant: str
    key: EngineKey
    size_bytes: int
    build_s: float
    engine: Engine
    """With what the backend says of its layers."""

    def record(self) -> dict[str, Any]:
        """For `compile --json`."""
        return {
            "engine": str(self.path),
            "variant": self.variant,
            "backend": self.key.backend,
            "version": self.key.version,
            "target": self.key.target,
            "gpu": self.key.gpu,
            "flags": list(self.key.flags),
            "bytes": self.size_bytes,
            "build_s": round(self.build_s, 3),
            "layers": report_of(self.engine.layers) if self.engine.layers else None,
            "warnings": list(self.engine.said),
        }


def best_variant(bundle: Bundle, plan: EnginePlan | None = None) -> str:
    """The one that should run fastest. Raises IrstdError where the bundle has no graph for it."""
    there = bundle.variants(TENSORRT)
    for variant in _fastest_first(plan):
        if variant in there:
            return variant
    raise IrstdError(f"{bundle.path}: has no graph for TensorRT: quantize again")


def _fastest_first(plan: EnginePlan | None) -> tuple[str, ...]:
    if plan is not None and plan.backend == "torch-tensorrt":
        return (TORCH_VARIANT,)
    return (DLA_VARIANT,) if plan is not None and plan.dla else FASTEST_FIRST


def check_variant(variant: str, plan: EnginePlan) -> None:
    """Raises IrstdError for one that the plan cannot build."""
    takes = _fastest_first(plan)
    if takes != FASTEST_FIRST and variant not in takes:
        flag = "--dla" if plan.dla else f"--backend {plan.backend}"
        raise IrstdError(f"--variant: {flag} takes {takes[0]} alone, not {variant}: leave it out")


def variant_to_run(bundle: Bundle) -> str:
    """The fastest that has an engine here; where none has, the one to build."""
    there = bundle.variants(TENSORRT)
    built = (v for v in FASTEST_FIRST if v in there and engines_of(bundle.graph(v, TENSORRT)))
    return next(built, None) or best_variant(bundle)


def why_not_built(bundle: Bundle, asked: Sequence[str] = ()) -> str | None:
    """Why TensorRT would not run here what a bundle ships for it; None where it would.

    asked: variants, each of which needs an engine, but for FP32 beside others. Without any it is
    the INT8 that counts, in either form: an engine of FP32 outlives a new quantization, and tells
    nothing of it.
    """
    if (refusal := why_not_ready()) is not None:
        return refusal
    there = [variant for variant in FASTEST_FIRST if variant in bundle.variants(TENSORRT)]
    rounded = [variant for variant in there if variant.startswith("int8")]
    named = [variant for variant in asked if variant in there]
    named = [variant for variant in named if variant != TF32_VARIANT] or named
    for choice in [[variant] for variant in named] or [rounded or there]:
        graphs = [bundle.graph(variant, TENSORRT) for variant in choice]
        if graphs and not any(map(engines_of, graphs)):
            return why_no_engine(graphs[0])
    return None


def compile_engine(
    bundle: Bundle,
    variant: str,
    plan: EnginePlan,
    store: EngineStore,
    targets: int | None = None,
    build: Build | None = None,
) -> Compiled:
    """Build an engine of a bundle and keep it. Raises as `engine_from_onnx` does.

    targets: None for the graph as it is, else the decode is a part of it, see `decode_graph`.
    """
    check_variant(variant, plan)
    plan = replace(plan, tf32=variant == TF32_VARIANT)
    with _graph(bundle, variant, targets) as graph:
        spec, timings = bundle.manifest.model, b""
        digest = sha256_of(graph)
        if plan.backend != ELSEWHERE and (version := tensorrt_version()) is not None:
            timings = store.timings(engine_key(bundle, digest, plan, version))
        outputs = None if targets is None else DECODED[spec.decode.kind]
        engine = (build or engine_from_onnx)(graph, spec, plan, timings, outputs)
    key = engine_key(bundle, digest, plan, engine.version)
    if engine.timings:
        store.save_timings(key, engine.timings)
    path = store.save(key, engine.data)
    return Compiled(path, variant, key, len(engine.data), engine.build_s, engine)


@contextmanager
def _graph(bundle: Bundle, variant: str, targets: int | None) -> Iterator[Path]:
    """The file to build of; one with the decode in it is gone afterwards."""
    graph = bundle.graph(variant, TENSORRT)
    if targets is None:
        yield graph
        return
    with TemporaryDirectory(prefix="irstd-edge-") as folder:
        yield export_graph(bundle, variant, Path(folder) / graph.name, targets)


def export_graph(bundle: Bundle, variant: str, out: Path, targets: int) -> Path:
    """Write a variant's graph with the decode in it. Raises MachineError without onnx."""
    try:
        import onnx
    except ImportError as error:
        raise MachineError("onnx: adds the decode to a graph: pip install onnx") from error
    model = onnx.load(bundle.graph(variant, TENSORRT), load_external_data=False)
    decoded = with_decode(model, bundle.manifest.model.decode, targets)
    write_atomic(out, decoded.SerializeToString(deterministic=True))
    return out


def engine_key(bundle: Bundle, digest: str, plan: EnginePlan, version: str) -> EngineKey:
    """What an engine of this plan depends on, here and now. digest: of its graph."""
    flags = [*shape_flags(*plan.shapes(bundle.manifest.model.input.stride))]
    flags += [*([DLA] if plan.dla else ()), *(["tf32"] if plan.tf32 else ())]
    place = EnginePlace(None, plan.target)
    if plan.target == THIS:
        place = engine_place(this_gpu(), this_machine())
    flags += place.flags
    return EngineKey(digest, plan.backend, version, place.gpu, place.target, tuple(flags))
