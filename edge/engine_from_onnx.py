"""ONNX graph -> TensorRT engine, through Polygraphy: one way for TensorRT and TensorRT-RTX.

Graphs are explicitly typed: what is INT8 or FP16 is written in them, and nothing else may become
so; but for a DLA, which before TensorRT 11 takes weakly typed FP16 networks alone. TensorRT builds
for the GPU it runs on; TensorRT-RTX builds for any it knows, without one.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from irstd_edge.edge.detect import OUTPUTS
from irstd_edge.edge.engine_layers import Layer, layers_of
from irstd_edge.edge.engine_plan import BACKENDS as BACKENDS
from irstd_edge.edge.engine_plan import THIS as THIS
from irstd_edge.edge.engine_plan import EnginePlan as EnginePlan
from irstd_edge.edge.gpu import cuda_refusal, this_gpu
from irstd_edge.edge.graph_file import refuse_graph
from irstd_edge.edge.runtimes import INPUT
from irstd_edge.edge.types import IrstdError, MachineError, ModelSpec

INSTALLS = {
    "tensorrt": "on a Jetson it comes with JetPack (sudo apt install nvidia-jetpack, and a venv "
    "made with --system-site-packages), elsewhere pip install 'irstd-edge[tensorrt]'",
    "tensorrt-rtx": "pip install 'irstd-edge[tensorrt-rtx]'",
    "torch-tensorrt": "pip install 'irstd-edge[train,tensorrt]' --extra-index-url "
    "https://pypi.nvidia.com",
}
DRIVER = {"polygraphy": "pip install polygraphy"}
"""What drives both; pure Python."""
OLDEST_TENSORRT = 10
"""Its networks can be typed explicitly; that of JetPack 5 cannot."""
LAST_WITH_DLA, FIRST_WITH_DLA_AGAIN = (10, 7), (11, 4, 1)
"""TensorRT's own words, of its 11.4.1, which knows that of AGX Orin alone; Thor has none at all."""


@dataclass(frozen=True)
class Engine:
    """A serialized engine and what it took."""

    data: bytes
    version: str
    """Of the backend that built it, which alone can load it."""
    build_s: float
    layers: tuple[Layer, ...] = ()
    """As the engine inspector tells; empty where the engine can't be loaded to ask it."""
    timings: bytes = b""
    """What TensorRT measured of its kernels, for the next build; empty where it measured none."""
    said: tuple[str, ...] = ()
    """Warnings of the backend."""


def engine_from_onnx(
    graph: Path,
    spec: ModelSpec,
    plan: EnginePlan,
    timings: bytes = b"",
    outputs: tuple[str, ...] | None = None,
) -> Engine:
    """Build an engine of a bundle's graph.

    timings: of an earlier engine on this GPU. outputs: of the graph; None for those of its kind.

    Raises:
        IrstdError: the backend refuses the graph; the message names the node and the fix.
        MachineError: the backend or the GPU is missing here.
    """
    library = _library(plan)
    refuse_graph(graph)
    with _heard() as heard:
        network = _network(library, graph, plan, outputs or OUTPUTS[spec.decode.kind], heard)
        start = time.perf_counter()
        data, timings = _build(graph, network, spec, plan, timings, heard)
        build_s = time.perf_counter() - start
        layers = _inspected(library, data) if plan.target == THIS else ()
        said = tuple(dict.fromkeys(text for _, text in heard))
        return Engine(data, library.__version__, build_s, layers, timings, said)


def is_too_old(version: str) -> bool:
    """Whether TensorRT of this version cannot build typed graphs; not where it does not say."""
    major = re.match(r"\d+", version)
    return major is not None and int(major[0]) < OLDEST_TENSORRT


def tensorrt_version() -> str | None:
    """Of the TensorRT here, which torch-tensorrt builds with too; None where there is none."""
    return None if find_spec("tensorrt") is None else str(load_backend("tensorrt").__version__)


def load_backend(name: str) -> Any:
    """Import the module of a backend. Raises MachineError where it does not load."""
    try:
        return import_module(BACKENDS[name])
    except (ImportError, OSError) as error:  # mostly a library of another version, or none
        raise MachineError(
            f"{name}: is installed but does not load ({error}): install it again: {INSTALLS[name]}"
        ) from error


def _library(plan: EnginePlan) -> Any:
    """The backend's module, with Polygraphy set to it."""
    installs = {BACKENDS[plan.backend]: INSTALLS[plan.backend], **DRIVER}
    for module, install in installs.items():
        if find_spec(module) is None:
            raise MachineError(f"{plan.backend}: {module} is not installed: {install}")
    if plan.target == THIS and this_gpu() is None:
        raise MachineError(f"{plan.backend}: {cuda_refusal() or _elsewhere(plan)}")
    _choose(plan.backend)
    library = load_backend(plan.backend)
    if plan.backend == "tensorrt" and is_too_old(library.__version__):
        raise MachineError(
            f"tensorrt: version {library.__version__} cannot build typed graphs: use "
            f"{OLDEST_TENSORRT} or newer (JetPack 6.1 on Orin)"
        )
    if plan.dla:
        _refuse_missing_dla(library)
    return library


def _elsewhere(plan: EnginePlan) -> str:
    other = (
        "or give another's --target, as in sm_86"
        if plan.backend == "tensorrt-rtx"
        else "or use --backend tensorrt-rtx with a --target, as in sm_86"
    )
    return f"no usable NVIDIA GPU here: run it on the device, {other}"


def _refuse_missing_dla(library: Any) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", library.__version__)[:3])
    if LAST_WITH_DLA < version[:2] and version < FIRST_WITH_DLA_AGAIN:
        raise MachineError(
            f"--dla: TensorRT {library.__version__} has no DLA: use 10.7 or older (JetPack 6), on "
            "AGX Orin also 11.4.1 or newer (JetPack 7.2.2), or leave --dla out"
        )


def is_weakly_typed(plan: EnginePlan, version: str) -> bool:
    """Whether precision is a flag of the builder: so it is for a DLA before TensorRT 11."""
    return plan.dla and int(version.split(".")[0]) < FIRST_WITH_DLA_AGAIN[0]


def _choose(backend: str) -> None:
    """Tell Polygraphy, which asks once, when it is imported."""
    wants_rtx = backend == "tensorrt-rtx"
    if "polygraphy.config" not in sys.modules:
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if wants_rtx else "0"
    from polygraphy import config

    if config.USE_TENSORRT_RTX != wants_rtx:
        raise MachineError(f"{backend}: this process has built with the other one: start a new one")


Heard = list[tuple[int, str]]
"""Level, as `logging.ERROR`, and text of what a backend said."""


@contextmanager
def _heard() -> Iterator[Heard]:
    """Collect what the backend says instead of letting it print: warnings and errors."""
    from polygraphy.logger import G_LOGGER

    heard: Heard = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(record.getMessage().split())[4:]  # without "[E] "
            heard.append((record.levelno, text))

    voice, listener = logging.getLogger("Polygraphy"), Listener()
    before = voice.propagate, G_LOGGER.use_python_logging_system, G_LOGGER.colors
    voice.addHandler(listener)
    voice.propagate, G_LOGGER.use_python_logging_system, G_LOGGER.colors = False, True, False
    G_LOGGER.once_logged.clear()  # a warning of an earlier graph is news for this one
    try:
        with G_LOGGER.verbosity(G_LOGGER.WARNING):
            yield heard
    finally:
        voice.removeHandler(listener)
        voice.propagate, G_LOGGER.use_python_logging_system, G_LOGGER.colors = before


def _network(
    library: Any, graph: Path, plan: EnginePlan, wanted: tuple[str, ...], heard: Heard
) -> Any:
    """(builder, network, parser) of a graph that was accepted node by node."""
    from polygraphy.backend.trt import create_network
    from polygraphy.backend.trt.util import get_trt_logger

    builder, network = create_network(strongly_typed=not is_weakly_typed(plan, library.__version__))
    if plan.dla and builder.num_DLA_cores == 0:
        raise MachineError(
            "--dla: there is none here: AGX Orin has, and Orin NX with TensorRT 10.7 or older "
            "(JetPack 6); leave --dla out"
        )
    parser = library.OnnxParser(network, get_trt_logger())
    parsed = parser.parse_from_file(str(graph))
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if errors:
        raise IrstdError(f"{graph}: {_refusal(errors[0])}")
    if any("UINT8" in text for _, text in heard):  # taken for INT8, which is another number
        raise IrstdError(f"{graph}: {_unsigned(graph)}")
    names = [network.get_output(index).name for index in range(network.num_outputs)]
    inputs = [network.get_input(index).name for index in range(network.num_inputs)]
    if not parsed or inputs != [INPUT] or names != list(wanted):
        raise IrstdError(
            f"{graph}: has inputs {inputs} and outputs {names}, not {[INPUT]} and {list(wanted)}: "
            "quantize again"
        )
    return builder, network, parser


def _refusal(error: Any) -> str:
    """`NODE (OPERATOR): reason: fix`, from the first error of the parser."""
    reason = " ".join(str(error.desc()).split())
    if "zero point" in reason.lower():
        reason, fix = "its zero point is not 0", "make its quantizer symmetric, and quantize again"
    elif "Plugin not found" in reason or str(error.code()).endswith("UNSUPPORTED_NODE"):
        reason, fix = "no such operator there", "export the network without it, and quantize again"
    else:
        fix = "change that node, and quantize again"
    return f"{error.node_name() or 'a node'} ({error.node_operator()}): {reason:.200}: {fix}"


def _unsigned(graph: Path) -> str:
    """The node that holds unsigned integers, if the onnx package is here to look."""
    if find_spec("onnx") is not None:
        import onnx

        from irstd_edge.edge.qdq import lint_int8

        for finding in lint_int8(onnx.load(graph, load_external_data=False)):
            if "uint8" in finding.problem:
                return f"{finding}, and quantize again"
    return "holds uint8, which TensorRT takes for int8: make its quantizers signed, quantize again"


def _build(
    graph: Path,
    network: Any,
    spec: ModelSpec,
    plan: EnginePlan,
    timings: bytes,
    heard: Heard,
) -> tuple[bytes, bytes]:
    """The engine and the timings of its kernels."""
    from polygraphy.backend.trt import engine_bytes_from_network
    from polygraphy.exception import PolygraphyException

    with TemporaryDirectory(prefix="irstd-edge-") as folder:
        cache = None if plan.backend == "tensorrt-rtx" else Path(folder, "timings")
        if cache is not None:
            cache.write_bytes(timings)
        kept = None if cache is None else str(cache)
        try:
            with warnings.catch_warnings():
                # Polygraphy makes calls that newer versions deprecate; none is ours to change.
                warnings.simplefilter("ignore", DeprecationWarning)
                config = _config(spec, plan, kept)
                data = bytes(engine_bytes_from_network(network, config, save_timing_cache=kept))
        except PolygraphyException as error:
            # The last error is what ended it; before it come tactics that were skipped, and above
            # its level Polygraphy, which says that there is no engine.
            errors = [text for level, text in heard if level == logging.ERROR]
            reason = " ".join((errors or [str(error)])[-1].split())
            if "Compute capability" in reason:
                raise MachineError(f"--target: {reason} Known are {_known_targets()}") from error
            raise IrstdError(f"{graph}: {plan.backend} cannot build it ({reason:.300})") from error
        return data, b"" if cache is None else cache.read_bytes()


def _config(spec: ModelSpec, plan: EnginePlan, timings: str | None) -> Any:
    """The builder's configuration; precision is no part of it, but for a DLA before TensorRT 11."""
    from polygraphy.backend.trt import CreateConfig, Profile

    profile = Profile().add(INPUT, *plan.shapes(spec.input.stride))
    if plan.backend == "tensorrt":
        import tensorrt

        half = True if is_weakly_typed(plan, tensorrt.__version__) else None
        return CreateConfig(
            profiles=[profile],
            load_timing_cache=timings,
            profiling_verbosity=tensorrt.ProfilingVerbosity.DETAILED,
            fp16=half,
            tf32=plan.tf32,
            use_dla=plan.dla or None,
            allow_gpu_fallback=plan.dla or None,
        )
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    if plan.target == THIS:
        made = CreateConfigRTX(profiles=[profile], use_gpu=True)
    else:
        digits = plan.target.removeprefix("sm_")
        capability = int(digits[:-1]), int(digits[-1])
        made = CreateConfigRTX(profiles=[profile], compute_capabilities=[capability])
    return made if plan.tf32 else _without_tf32(made)


def _without_tf32(make: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A configuration of TensorRT-RTX with TF32 off: there it is on, and Polygraphy leaves it."""

    def made(builder: Any, network: Any) -> Any:
        import tensorrt_rtx

        config = make(builder, network)
        config.clear_flag(tensorrt_rtx.BuilderFlag.TF32)
        return config

    return made


def _inspected(library: Any, data: bytes) -> tuple[Layer, ...]:
    """What the engine says of its layers, at the shape that it was tuned for."""
    from polygraphy.backend.trt.util import get_trt_logger

    engine = library.Runtime(get_trt_logger()).deserialize_cuda_engine(data)
    if engine is None:
        return ()
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    if context is not None:  # types of dynamic shapes are told for a shape alone
        context.set_input_shape(INPUT, engine.get_tensor_profile_shape(INPUT, 0)[1])
        inspector.execution_context = context
    return layers_of(inspector.get_engine_information(library.LayerInformationFormat.JSON))


def _known_targets() -> str:
    import tensorrt_rtx

    names = tensorrt_rtx.ComputeCapability.__members__
    return ", ".join(f"sm_{name[2:]}" for name in names if name.startswith("SM"))
