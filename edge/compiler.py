"""A variant of a bundle -> an engine in this machine's store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irstd_edge.edge.bundle import Bundle
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.engine_from_onnx import THIS, EnginePlan, engine_from_onnx
from irstd_edge.edge.engine_store import EngineKey, EngineStore
from irstd_edge.edge.gpu import this_gpu
from irstd_edge.edge.tensorrt_runtime import engines_of
from irstd_edge.edge.types import IrstdError

RUNTIME = "tensorrt"
"""Its graphs are those of the signed form with zero-point 0; TensorRT-RTX reads the same."""
FASTEST_FIRST = ("int8-fp16", "int8", "fp16", "fp32")


@dataclass(frozen=True)
class Compiled:
    """An engine that was built and stored."""

    path: Path
    variant: str
    key: EngineKey
    size_bytes: int
    build_s: float

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
        }


def best_variant(bundle: Bundle) -> str:
    """The one that should run fastest. Raises IrstdError where the bundle has no graph for it."""
    there = bundle.variants(RUNTIME)
    for variant in FASTEST_FIRST:
        if variant in there:
            return variant
    raise IrstdError(f"{bundle.path}: has no graph for TensorRT: quantize again")


def variant_to_run(bundle: Bundle) -> str:
    """The fastest that has an engine here; where none has, the one to build."""
    there = bundle.variants(RUNTIME)
    built = (v for v in FASTEST_FIRST if v in there and engines_of(bundle.graph(v, RUNTIME)))
    return next(built, None) or best_variant(bundle)


def compile_engine(bundle: Bundle, variant: str, plan: EnginePlan, store: EngineStore) -> Compiled:
    """Build an engine of a bundle and keep it. Raises as `engine_from_onnx` does."""
    graph = bundle.graph(variant, RUNTIME)
    engine = engine_from_onnx(graph, bundle.manifest.model, plan)
    key = engine_key(bundle, variant, plan, engine.version)
    return Compiled(store.save(key, engine.data), variant, key, len(engine.data), engine.build_s)


def engine_key(bundle: Bundle, variant: str, plan: EnginePlan, version: str) -> EngineKey:
    """What an engine of this plan depends on, here and now."""
    shapes = plan.shapes(bundle.manifest.model.input.stride)
    flags = [f"{end}={'x'.join(map(str, s))}" for end, s in zip(_ENDS, shapes, strict=True)]
    gpu, target = None, plan.target
    if plan.target == THIS:
        machine, here = this_machine(), this_gpu()
        if machine.is_jetson:  # its kernels are chosen by their time, at the clocks of the mode
            flags.append(f"power={machine.power_mode}")
        gpu = None if here is None else here.name
        target = THIS if here is None else f"sm_{here.sm}"
    name = bundle.graph(variant, RUNTIME).name
    return EngineKey(bundle.manifest.files[name], plan.backend, version, gpu, target, tuple(flags))


_ENDS = ("min", "opt", "max")
